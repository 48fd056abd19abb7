/** The parts that pages are made of. */

import { Link } from "@tanstack/react-router";
import { type ReactNode, useEffect, useState, useSyncExternalStore } from "react";

import { Problem } from "../api/client";
import { ago, duration, exact, interval, until } from "./format";

const clock = {
  now: Date.now() / 1000,
  listeners: new Set<() => void>(),
  timer: undefined as ReturnType<typeof setInterval> | undefined,
};

function subscribe(listener: () => void): () => void {
  clock.listeners.add(listener);
  clock.timer ??= setInterval(() => {
    clock.now = Date.now() / 1000;
    for (const one of clock.listeners) one();
  }, 1000);
  return () => {
    clock.listeners.delete(listener);
    if (!clock.listeners.size) {
      clearInterval(clock.timer);
      clock.timer = undefined;
    }
  };
}

/** The time in Unix seconds, which changes every second; one timer for the whole page. */
export function useNow(): number {
  return useSyncExternalStore(subscribe, () => clock.now);
}

const STATES: Record<string, { icon: string; word: string }> = {
  succeeded: { icon: "✓", word: "succeeded" },
  reused: { icon: "↺", word: "reused" },
  failed: { icon: "✕", word: "failed" },
  timed_out: { icon: "⏱", word: "timed out" },
  lost: { icon: "?", word: "lost" },
  running: { icon: "▶", word: "running" },
  queued: { icon: "…", word: "queued" },
  suspended: { icon: "❚❚", word: "waiting" },
  skipped: { icon: "–", word: "skipped" },
  cancelled: { icon: "■", word: "cancelled" },
  pending: { icon: "○", word: "pending" },
  retrying: { icon: "↻", word: "retrying" },
  active: { icon: "▶", word: "active" },
  paused: { icon: "❚❚", word: "paused" },
  ok: { icon: "✓", word: "ok" },
};

/** A state as a word with a sign of its own, so that nobody depends on the colour. */
export function State({ state, bare = false }: { state: string; bare?: boolean }) {
  const { icon, word } = STATES[state] ?? { icon: "•", word: state.replaceAll("_", " ") };
  return (
    <span className={`state state-${state}`} title={word}>
      <span className="state-icon" aria-hidden="true">
        {icon}
      </span>
      <span className={bare ? "hidden" : ""}>{word}</span>
    </span>
  );
}

/** A time relative to now; the exact one, and UTC, on hover. */
export function Time({ at }: { at: number | null | undefined }) {
  const now = useNow();
  if (at === null || at === undefined) return null;
  return (
    <time dateTime={new Date(at * 1000).toISOString()} title={exact(at)}>
      {at > now + 1 ? until(at, now) : ago(at, now)}
    </time>
  );
}

/** How long something took, or takes so far. */
export function Elapsed({ from, to }: { from: number | null | undefined; to: number | null | undefined }) {
  return to !== null && to !== undefined ? <Took from={from} to={to} /> : <Running from={from} />;
}

function Took({ from, to }: { from: number | null | undefined; to: number }) {
  return from === null || from === undefined ? null : <span className="number">{duration(to - from)}</span>;
}

function Running({ from }: { from: number | null | undefined }) {
  const now = useNow();
  return from === null || from === undefined ? null : (
    <span className="number">{interval(Math.max(0, Math.floor(now - from)))}</span>
  );
}

export function RunLink({ id, children }: { id: string; children?: ReactNode }) {
  return (
    <Link to="/runs/$runId" params={{ runId: id }} className="mono nowrap">
      {children ?? id.slice(0, 10)}
    </Link>
  );
}

export function Card({ title, aside, children }: { title?: ReactNode; aside?: ReactNode; children: ReactNode }) {
  return (
    <section className="card">
      {title !== undefined && (
        <header>
          <h2>{title}</h2>
          {aside}
        </header>
      )}
      {children}
    </section>
  );
}

/** What there is to see when there is nothing: the command that changes that. */
export function Empty({ children, command }: { children: ReactNode; command?: string }) {
  return (
    <div className="empty">
      <p>{children}</p>
      {command !== undefined && <Command text={command} />}
    </div>
  );
}

export function Command({ text }: { text: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), 1500);
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <span className="command">
      <code>{text}</code>
      <button type="button" onClick={() => void navigator.clipboard.writeText(text).then(() => setCopied(true))}>
        {copied ? "copied" : "copy"}
      </button>
    </span>
  );
}

export function ProblemBox({ error }: { error: unknown }) {
  const problem = error instanceof Problem ? error : undefined;
  return (
    <div className="problem" role="alert">
      <strong>{problem?.message ?? String(error)}</strong>
      {problem?.detail && <p>{problem.detail}</p>}
      {problem?.errors.map((one) => (
        <p key={one.field}>
          <code>{one.field}</code> {one.message}
        </p>
      ))}
    </div>
  );
}

interface Loaded<T> {
  data: T | undefined;
  error: unknown;
}

/** What was read, or the error, or that it is being read. */
export function Load<T>({ query, children }: { query: Loaded<T>; children: (data: T) => ReactNode }) {
  if (query.data !== undefined) return <>{children(query.data)}</>;
  if (query.error) return <ProblemBox error={query.error} />;
  return <div className="loading" role="status" aria-label="loading" />;
}

export function Labels({ labels }: { labels: Record<string, string> }) {
  return (
    <>
      {Object.entries(labels).map(([name, value]) => (
        <span className="label" key={name}>
          {name}={value}
        </span>
      ))}
    </>
  );
}

export function Facts({ rows }: { rows: [string, ReactNode][] }) {
  return (
    <dl className="facts">
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
