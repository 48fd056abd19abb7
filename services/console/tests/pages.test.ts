/** Every page in a real browser, on a real platform. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { Platform, findBrowser, openBrowser, signedIn } from "./platform";

const PIPELINES = `
import time
from penstock import ask, context, pipeline, step

@step
def load(n: int) -> list[int]:
    print("\\x1b[32mgreen\\x1b[0m words")
    return list(range(n))

@step
def work(x: int) -> float:
    if x == 7:
        raise ValueError("seven is not allowed")
    return x / 2

@step
def train(values: list[float]) -> dict[str, float]:
    for epoch in range(30):
        context().log_metric("loss", 1 / (epoch + 1), step=epoch)
        print("epoch", epoch)
    return {"accuracy": 0.93}

@step
def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds

@pipeline
def demo(n: int = 4) -> dict[str, float]:
    return train(work.map(load(n)))

@pipeline
def gated(n: int = 2) -> dict[str, float]:
    return train(work.map(load(n).after(ask("Publish <b>it</b>?", name="go"))))

@pipeline
def waiting(seconds: float = 60.0) -> float:
    return slow(seconds)
`;
const HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browserPath = findBrowser();
if (!browserPath) console.warn("The pages are not tested: no Chromium is installed (PENSTOCK_BROWSER names another one).");

/** What axe finds against WCAG 2.2 AA. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const axe = (window as unknown as { axe: { run: (root: Document, options: object) => Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe;
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
    const found = await axe.run(document, { runOnly: { type: "tag", values: tags } });
    return found.violations.map((one) => `${one.id}: ${one.nodes[0]?.html.slice(0, 200)}`);
  });
}

describe.skipIf(!browserPath)("the console", { timeout: 120_000 }, () => {
  const platform = new Platform();
  let browser: Browser;
  let page: Page;
  let errors: string[];
  let good = "";
  let failed = "";

  const open = (path: string) => page.goto(`${platform.url}/console${path}`);
  const newest = async (query = "") =>
    (await platform.request<{ runs: { run_id: string }[] }>(`/v1/runs?limit=1${query}`)).runs[0]?.run_id ?? "";

  beforeAll(async () => {
    platform.write("demo.py", PIPELINES);
    await platform.penstock("run", "demo.py:demo", "--quiet", "--label", "team=ads");
    good = await newest();
    await platform.penstock("run", "demo.py:demo", "-p", "n=9", "--quiet");
    failed = await newest();
    browser = await openBrowser();
    ({ page, errors } = await signedIn(browser, platform));
  }, 180_000);

  afterAll(async () => {
    await browser?.close();
    platform.close();
  }, 120_000);

  it("refuses a wrong token and takes a right one", async () => {
    const other = await browser.newPage();
    await other.goto(platform.url);
    await other.getByLabel(/Token/).fill("wrong");
    await other.getByRole("button", { name: "Sign in" }).click();
    await expect.poll(() => other.getByRole("alert").textContent()).toContain("token");
    await other.getByLabel(/Token/).fill(platform.token);
    await other.getByRole("button", { name: "Sign in" }).click();
    await other.getByRole("heading", { name: "Overview" }).waitFor();
    expect(await other.evaluate(() => document.cookie)).toBe("");
    await other.getByRole("button", { name: "Sign out" }).click();
    await other.getByRole("heading", { name: "Sign in" }).waitFor();
    await other.close();
  });

  it("shows runs on the overview, with the way to a failure", async () => {
    await open("/");
    await page.getByRole("heading", { name: "Failed lately" }).waitFor();
    await expect.poll(() => page.textContent("main")).toContain("seven is not allowed");
    expect(await violations(page)).toEqual([]);
  });

  it("filters runs by address", async () => {
    await open("/runs?state=failed");
    await page.locator("tbody tr").first().waitFor();
    expect(await page.locator("tbody tr").count()).toBe(1);
    await page.getByLabel("State").selectOption("");
    await page.getByLabel(/^Labels/).fill("team=ads");
    await page.keyboard.press("Enter");
    await expect.poll(() => page.url()).toContain("label=team");
    await expect.poll(() => page.locator("tbody").textContent()).toContain("team=ads");
    await expect.poll(() => page.locator("tbody tr").count()).toBe(1);
    expect(await violations(page)).toEqual([]);
  });

  it("shows why a run failed, down to the item and its traceback", async () => {
    await open(`/runs/${failed}`);
    await page.getByRole("button", { name: "show the step" }).click();
    await page.getByLabel("State of items").selectOption("failed");
    await page.getByRole("button", { name: "[7]" }).click();
    await expect.poll(() => page.locator(".split").textContent()).toContain('raise ValueError("seven is not allowed")');
    expect(page.url()).toContain("step=work%5B7%5D");
    expect(await violations(page)).toEqual([]);
  });

  it.each([
    ["graph", "load"],
    ["timeline", ""],
    ["logs", "epoch 29"],
    ["metrics", "loss"],
    ["values", "accuracy"],
    ["why", "succeeded"],
  ])("has the view %s", async (view, text) => {
    await open(`/runs/${good}?view=${view}`);
    await page.getByRole("tab", { selected: true }).waitFor();
    await expect.poll(() => page.locator(".card").first().textContent(), { timeout: 15_000 }).toContain(text);
    if (view === "timeline") await page.locator("canvas.gantt").waitFor();
    if (view === "metrics") await page.locator(".uplot canvas").first().waitFor();
    if (view === "logs") {
      await page.getByLabel("Search the output").fill("green");
      await expect.poll(() => page.locator(".log-line").count()).toBe(1);
      expect(await page.locator(".log-line .ansi-green").textContent()).toBe("green");
    }
    expect(await violations(page)).toEqual([]);
  });

  it("chooses a step in the graph", async () => {
    await open(`/runs/${good}`);
    await page.getByText("train", { exact: true }).click();
    await expect.poll(() => page.locator(".split").textContent()).toContain("Attempts");
    expect(page.url()).toContain("step=train");
  });

  it("runs again, and says before what that means", async () => {
    await open(`/runs/${good}`);
    await page.getByRole("button", { name: "Rerun" }).click();
    const dialog = page.getByRole("dialog");
    expect(await dialog.textContent()).toContain("the same inputs");
    await dialog.getByRole("button", { name: "Rerun" }).click();
    await expect.poll(() => page.url()).not.toContain(good);
    await expect.poll(() => page.locator(".page-head").textContent(), { timeout: 60_000 }).toContain("succeeded");
  });

  it("shows runs as they begin, and cancels one", async () => {
    await open("/runs?pipeline=waiting");
    await page.getByText("No run matches.").waitFor();
    await platform.penstock("run", "demo.py:waiting", "--detach");
    await expect.poll(() => page.locator("tbody").textContent(), { timeout: 20_000 }).toContain("running");
    await page.locator("tbody a").first().click();
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    await expect.poll(() => page.locator(".page-head").textContent(), { timeout: 60_000 }).toContain("cancelled");
  });

  it("answers a question", async () => {
    await platform.penstock("run", "demo.py:gated", "--detach");
    await open("/questions");
    await page.getByText("Publish <b>it</b>?").waitFor({ timeout: 20_000 });
    expect(await violations(page)).toEqual([]);
    await page.getByRole("button", { name: "yes" }).click();
    await page.getByText("No run waits for an answer.").waitFor({ timeout: 20_000 });
  });

  it("answers a question on the page of its run", async () => {
    await platform.penstock("run", "demo.py:gated", "--detach");
    await open(`/runs/${await newest("&pipeline=gated")}`);
    await page.getByRole("button", { name: "yes" }).click({ timeout: 20_000 });
    await expect.poll(() => page.locator(".page-head").textContent(), { timeout: 20_000 }).toContain("succeeded");
    expect(await page.getByText("Publish <b>it</b>?").count()).toBe(0);
  });

  it("describes deployments in words", async () => {
    await platform.penstock("register", "demo.py:demo");
    await platform.penstock("deployments", "create", "nightly", "--pipeline", "demo", "--cron", "0 3 * * *", "--tz", "Europe/Paris");
    await open("/deployments");
    const row = page.locator("tbody tr").first();
    await expect.poll(() => row.textContent()).toMatch(/^▶active.*cron 0 3 \* \* \* Europe\/Paris/);
    await row.getByRole("button", { name: "Pause" }).click();
    await expect.poll(() => row.textContent()).toMatch(/^❚❚paused/);
    await row.getByRole("button", { name: "Run now" }).click();
    await expect.poll(() => newest("&deployment=nightly"), { timeout: 20_000 }).not.toBe("");
    await row.getByRole("button", { name: "Resume" }).click();
    await expect.poll(() => row.textContent()).toMatch(/^▶active/);
  });

  it("never runs what users write", async () => {
    await platform.penstock("run", "demo.py:waiting", "-p", "seconds=0", "--label", `note=${HOSTILE}`, "--quiet");
    await open("/runs");
    await expect.poll(() => page.locator("tbody").textContent()).toContain("onerror");
    await page.waitForTimeout(300);
    expect(await page.title()).toBe("Penstock");
  });

  it("goes on after the platform was killed and started again", async () => {
    await open("/runs");
    await page.locator(".side .live.open").waitFor();
    platform.kill();
    await page.locator(".side .live:not(.open)").waitFor();
    await platform.penstock("run", "demo.py:demo", "-p", "n=2", "--quiet", "--label", "after=restart");
    await page.locator(".side .live.open").waitFor({ timeout: 40_000 });
    await expect.poll(() => page.locator("tbody").textContent(), { timeout: 20_000 }).toContain("after=restart");
  });

  it.each(["/pipelines", "/deployments", "/models", "/system"])("has the page %s", async (path) => {
    await open(path);
    await page.locator("h1").waitFor();
    await page.locator(".card").first().waitFor();
    expect(await violations(page)).toEqual([]);
  });

  it("works with the keyboard alone", async () => {
    await open("/");
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.keyboard.press("g");
    await page.keyboard.press("r");
    await page.getByRole("heading", { name: "Runs", exact: true }).waitFor();
    await page.keyboard.press("/");
    expect(await page.evaluate(() => document.activeElement?.getAttribute("aria-label"))).toBe("Pipeline");
    await page.keyboard.press("Escape");
    await page.evaluate(() => (document.activeElement as HTMLElement).blur());
    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
  });

  it("fits narrow screens, in dark colours", async () => {
    const narrow = await browser.newContext({ viewport: { width: 390, height: 800 }, colorScheme: "dark" });
    const small = await narrow.newPage();
    await small.goto(`${platform.url}/console/#token=${platform.token}`);
    await small.getByRole("heading", { name: "Overview" }).waitFor();
    for (const path of ["/", "/runs", `/runs/${failed}?step=work`]) {
      await small.goto(`${platform.url}/console${path}`);
      await small.locator(".card").first().waitFor();
      const [page, window] = await small.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      expect(page, path).toBeLessThanOrEqual(window ?? 0);
      expect(await violations(small), path).toEqual([]);
    }
    await narrow.close();
  });

  it("has logged no error", () => {
    expect(errors).toEqual([]);
  });
});
