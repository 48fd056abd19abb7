import { describe, expect, it } from "vitest";

import { EventParser } from "../src/api/stream";
import { type Trigger, describe as describeTrigger } from "../src/pages/trigger";
import { bars, ticks } from "../src/run/gantt";
import { HEIGHT, MOST_BOXES, WIDTH, groupOf, layout, worst } from "../src/run/graph";
import { LogLines } from "../src/run/log_lines";
import { parts, plain } from "../src/ui/ansi";
import { ago, bytes, duration, inline, number, shortened, until } from "../src/ui/format";

describe("server-sent events", () => {
  it("are read however they are cut", () => {
    const text = ': on\n\nid: 4\nevent: change\ndata: {"a":1}\n\nid: 5\ndata: one\ndata: two\n\n: still here\n\n';
    const wanted = [
      { id: "4", event: "change", data: '{"a":1}' },
      { id: "5", event: "message", data: "one\ntwo" },
    ];
    for (let cut = 0; cut <= text.length; cut += 1) {
      const parser = new EventParser();
      expect([...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))]).toEqual(wanted);
    }
  });
});

describe("formats", () => {
  it("durations", () => {
    expect([0, 0.0204, 0.0995, 1.052, 9.996, 59.9, 59.96, 200, 7500, 180_000].map(duration)).toEqual([
      "0 ms", "20 ms", "0.10 s", "1.05 s", "10.0 s", "59.9 s", "1 min 0 s", "3 min 20 s", "2 h 5 min", "2 d 2 h",
    ]);
  });
  it("times, sizes and numbers", () => {
    expect([ago(100, 112), ago(0, 200), ago(100, 99), until(160, 100), until(116, 100), until(1, 2)]).toEqual([
      "12 s ago", "3 min ago", "0 s ago", "in 1 min 0 s", "in 16 s", "now",
    ]);
    expect([bytes(91), bytes(18_200), bytes(999_600), bytes(5e15)]).toEqual(["91 B", "18.2 kB", "1.0 MB", "5000 TB"]);
    expect([number(0.123456), number(1e-9), number(12345), number(3)]).toEqual(["0.1235", "1.000e-9", "12,345", "3"]);
    expect(inline({ a: "x".repeat(200) }, 20)).toHaveLength(20);
  });
});

describe("triggers", () => {
  it("are described as by the command", () => {
    const of = (trigger: Partial<Trigger>) => describeTrigger({ name: "x", kind: "cron", ...trigger });
    expect(of({ cron: "0 3 * * *", every: 0, tz: "Europe/Paris" })).toBe("cron 0 3 * * * Europe/Paris");
    expect(of({ cron: "", every: 90, tz: "UTC" })).toBe("every 1 min 30 s");
    expect(of({ kind: "event", types: ["a.b", "c.d"], window: { kind: "debounce", seconds: 5 } })).toBe("on a.b, c.d (debounce 5 s)");
    expect(of({ kind: "endpoint", rate: 2 })).toBe("endpoint, 2 requests/s");
    expect(of({ kind: "webhook", provider: "github" })).toBe("webhook github");
  });
});

describe("tracebacks", () => {
  it("have paths in the source of the version", () => {
    const digest = "7e".repeat(32);
    const text = `  File "/home/ada/.penstock/sources/${digest}/big.py", line 27, in bad\n  File "/usr/lib/python3.11/json/__init__.py", line 1`;
    expect(shortened(text)).toBe('  File "big.py", line 27, in bad\n  File "/usr/lib/python3.11/json/__init__.py", line 1');
  });
});

describe("output", () => {
  it("has colours and no other escape sequences", () => {
    expect(parts("a\u001b[1;32mok\u001b[0m\u001b]0;title\u0007\u001b[2Jb")).toEqual([
      { text: "a", className: "" },
      { text: "ok", className: "ansi-green ansi-bold" },
      { text: "b", className: "" },
    ]);
    expect(parts("\u001b[38;5;196mred\u001b[39m")).toEqual([{ text: "red", className: "" }]);
    expect(plain("\u001b[31mx\u001b[0m\r\u0000")).toBe("x");
  });
  it("has each line once, however entries are cut and repeated", () => {
    const store = new LogLines();
    const entry = (text: string) => ({ stream: "output", text, at: 1 });
    const first = { key: "fit", attempt: 1, first: 0, entries: [entry("one\ntw"), { metric: "m" }, entry("o\n")] };
    store.add(first);
    store.add(first);
    store.add({ key: "fit", attempt: 1, first: 3, entries: [entry("three\n\nfour")] });
    store.add({ key: "fit", attempt: 2, first: 0, entries: [entry("again\n")] });
    expect(store.lines.map((line) => `${line.from}: ${line.text}`)).toEqual([
      "fit: one", "fit: two", "fit: three", "fit: ", "fit: four", "fit #2: again",
    ]);
  });
});

describe("graphs", () => {
  const step = (state: string, ...depends_on: string[]) => ({ state, depends_on, item_of: null });
  it("draw upstream steps to the left", () => {
    const { boxes, edges, grouped } = layout({
      load: step("succeeded"),
      fit: step("running", "load"),
      "fit[0]": { ...step("running"), item_of: "fit" },
      report: step("pending", "fit", "load"),
    });
    const x = Object.fromEntries(boxes.map((box) => [box.id, box.x]));
    expect(x["load"]).toBeLessThan(x["fit"] ?? 0);
    expect(x["fit"]).toBeLessThan(x["report"] ?? 0);
    expect(boxes).toHaveLength(3);
    expect(edges).toHaveLength(3);
    expect(grouped).toBe(false);
  });
  it("group steps when there are many", () => {
    const many = Object.fromEntries(
      Array.from({ length: 10_000 }, (_, n) => [n ? `fit-${n + 1}` : "fit", step(n === 9 ? "failed" : "succeeded", "load")]),
    );
    const { boxes, edges, grouped } = layout({ load: step("succeeded"), ...many });
    expect(grouped).toBe(true);
    expect(boxes.map((box) => box.id)).toEqual(["load", "fit"]);
    expect(edges).toEqual([{ from: "load", to: "fit" }]);
    expect(worst(boxes[1]?.states ?? {})).toBe("failed");
  });
  it("never draw more than the limit", () => {
    const names = Object.fromEntries(Array.from({ length: 3000 }, (_, n) => [`step${String.fromCharCode(97 + (n % 26))}${n}`, step("pending")]));
    expect(layout(names).boxes).toHaveLength(MOST_BOXES);
  });
  it("are in the order of the pipeline where that costs no crossing", () => {
    const steps: Record<string, ReturnType<typeof step>> = {};
    for (let n = 1; n <= 10; n += 1) {
      steps[`part-${n}`] = step("pending");
      steps[`train-${n}`] = step("pending", `part-${n}`);
    }
    steps["best"] = step("pending", ...Array.from({ length: 10 }, (_, n) => `train-${n + 1}`));
    const { boxes } = layout(steps);
    const parts = boxes.filter((box) => box.id.startsWith("part-")).sort((a, b) => a.y - b.y);
    expect(parts.map((box) => box.id)).toEqual(Array.from({ length: 10 }, (_, n) => `part-${n + 1}`));
  });
  it("have edges that pass by boxes, and not behind them", () => {
    const { boxes, edges } = layout({ split: step("pending"), fit: step("pending", "split"), evaluate: step("pending", "fit", "split") });
    const fit = boxes.find((box) => box.id === "fit") ?? { x: 0, y: 0 };
    const past = edges.find((edge) => edge.from === "split" && edge.to === "evaluate")?.route ?? [];
    const behind = past.filter(({ x, y }) => x > fit.x && x < fit.x + WIDTH && y > fit.y && y < fit.y + HEIGHT);
    expect(past.length).toBeGreaterThan(1);
    expect(behind).toEqual([]);
    expect(edges.find((edge) => edge.to === "fit")?.route).toBeUndefined();
  });
  it("name groups by the part before copies and slashes", () => {
    expect(["features-2/split", "fit-3", "fit", "a-b"].map(groupOf)).toEqual(["features", "fit", "fit", "a-b"]);
  });
});

describe("timelines", () => {
  it("have steps that started, in order", () => {
    const base = { attempts: 1, depends_on: [], item_of: null };
    const steps = {
      b: { ...base, state: "running", started_at: 2, finished_at: null },
      a: { ...base, state: "succeeded", started_at: 1, finished_at: 3 },
      c: { ...base, state: "pending", started_at: null, finished_at: null },
    };
    expect(bars(steps as never, 9)).toEqual([
      { key: "a", state: "succeeded", from: 1, to: 3 },
      { key: "b", state: "running", from: 2, to: 9 },
    ]);
  });
  it("have round ticks", () => {
    expect(ticks(6.9)).toEqual([0, 2, 4, 6]);
    expect(ticks(0)).toEqual([0]);
    expect(ticks(Number.NaN)).toEqual([0]);
  });
});
