import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useMemo, useRef, useState } from "react";

import { runPath } from "../api/queries";
import { follow } from "../api/stream";
import { parts, plain } from "../ui/ansi";
import { Empty } from "../ui/kit";
import { LogLines } from "./log_lines";

const LINE = 20;

/** The output of a run, or of one step, while it arrives. */
export function Logs({ runId, step, finished }: { runId: string; step: string | undefined; finished: boolean }) {
  const store = useMemo(() => new LogLines(), [runId, step]);
  const [version, setVersion] = useState(0);
  const [search, setSearch] = useState("");
  const [tail, setTail] = useState(true);
  const over = useRef(finished);
  over.current = finished;
  const box = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const stop = new AbortController();
    let frame = 0;
    void follow(
      `${runPath(runId)}/logs`,
      { step, follow: "true" },
      {
        onEvents: (events) => {
          for (const one of events) if (one.event === "output") store.add(JSON.parse(one.data));
          frame ||= requestAnimationFrame(() => {
            frame = 0;
            setVersion((known) => known + 1);
          });
        },
        isDone: () => over.current,
      },
      stop.signal,
    );
    return () => {
      stop.abort();
      cancelAnimationFrame(frame);
    };
  }, [runId, step, store]);

  const lines = useMemo(() => {
    const wanted = search.toLowerCase();
    return wanted ? store.lines.filter((line) => plain(line.text).toLowerCase().includes(wanted)) : store.lines;
    // `store.lines` changes in place: `version` says so.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [store, version, search, store.lines.length]);
  const rows = useVirtualizer({
    count: lines.length,
    getScrollElement: () => box.current,
    estimateSize: () => LINE,
    overscan: 20,
  });
  useEffect(() => {
    if (tail && lines.length) rows.scrollToIndex(lines.length - 1);
  }, [tail, lines.length, rows]);

  return (
    <>
      <div className="filters pad">
        <input
          type="search"
          placeholder="Search the output"
          aria-label="Search the output"
          data-search
          value={search}
          onChange={(event) => setSearch(event.target.value)}
        />
        <label>
          <input type="checkbox" checked={tail} onChange={(event) => setTail(event.target.checked)} /> follow
        </label>
        <span className="soft">
          {lines.length.toLocaleString("en")} lines
          {store.dropped > 0 && `, ${store.dropped.toLocaleString("en")} older ones are not shown`}
        </span>
      </div>
      {lines.length === 0 && <Empty>{search ? "No line matches." : "No output."}</Empty>}
      <div
        className="log"
        ref={box}
        hidden={lines.length === 0}
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label="Output"
        onWheel={(event) => event.deltaY < 0 && setTail(false)}
      >
        <div style={{ height: rows.getTotalSize(), position: "relative" }}>
          {rows.getVirtualItems().map((row) => {
            const line = lines[row.index];
            if (!line) return null;
            return (
              <div
                key={row.key}
                className="log-line"
                style={{ position: "absolute", top: 0, transform: `translateY(${row.start}px)` }}
              >
                {step === undefined && <span className="from">{line.from}</span>}
                <span>
                  {parts(line.text).map((part, index) => (
                    <span key={index} className={part.className}>
                      <Marked text={part.text} search={search} />
                    </span>
                  ))}
                </span>
              </div>
            );
          })}
        </div>
      </div>
    </>
  );
}

function Marked({ text, search }: { text: string; search: string }) {
  const at = search ? text.toLowerCase().indexOf(search.toLowerCase()) : -1;
  if (at < 0) return <>{text}</>;
  return (
    <>
      {text.slice(0, at)}
      <mark>{text.slice(at, at + search.length)}</mark>
      {text.slice(at + search.length)}
    </>
  );
}
