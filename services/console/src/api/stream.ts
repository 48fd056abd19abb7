/** Server-sent events by `fetch`, which can send the project's header and sees the status of a refusal.
 *
 * A stream that ends is opened again after the last event that arrived, so nothing is lost by sleep or a restart.
 */

import { Problem, address, problemOf, projectHeaders } from "./client";

export interface StreamEvent {
  id: string;
  event: string;
  data: string;
}

export type Connection = "connecting" | "open" | "waiting";

interface Handlers {
  onEvents: (events: StreamEvent[]) => void;
  onConnection?: ((connection: Connection) => void) | undefined;
  onProblem?: ((problem: Problem) => void) | undefined;
  /** Called when the server ends the stream; true if that was its end, and it is not opened again. */
  isDone?: (() => boolean) | undefined;
}

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;

/** Splits text into events as it arrives; the rest of an incomplete event is kept. */
export class EventParser {
  private rest = "";

  push(text: string): StreamEvent[] {
    this.rest += text;
    const found: StreamEvent[] = [];
    for (;;) {
      const end = /\r?\n\r?\n/.exec(this.rest);
      if (!end) return found;
      const block = this.rest.slice(0, end.index);
      this.rest = this.rest.slice(end.index + end[0].length);
      const event: StreamEvent = { id: "", event: "message", data: "" };
      const data: string[] = [];
      for (const line of block.split(/\r?\n/)) {
        if (line.startsWith(":")) continue;
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") data.push(value);
        else if (field === "id") event.id = value;
        else if (field === "event") event.event = value;
      }
      if (!data.length) continue;
      event.data = data.join("\n");
      found.push(event);
    }
  }
}

/** Follow a stream until `signal` is aborted. */
export async function follow(
  path: string,
  query: Record<string, string | undefined>,
  handlers: Handlers,
  signal: AbortSignal,
  lastId = "",
): Promise<void> {
  let pause = FIRST_PAUSE;
  while (!signal.aborted) {
    handlers.onConnection?.("connecting");
    try {
      const headers: Record<string, string> = { accept: "text/event-stream", ...projectHeaders() };
      if (lastId) headers["last-event-id"] = lastId;
      const response = await fetch(address(path, query), { headers, signal, credentials: "same-origin" });
      if (!response.ok || !response.body) {
        const problem = await problemOf(response);
        if (response.status < 500 && response.status !== 429) {
          handlers.onProblem?.(problem);
          return;
        }
        throw problem;
      }
      handlers.onConnection?.("open");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = parser.push(value);
        if (!events.length) continue;
        pause = FIRST_PAUSE;
        lastId = events.findLast((one) => one.id)?.id ?? lastId;
        handlers.onEvents(events);
      }
      if (handlers.isDone?.()) return;
    } catch {
      if (signal.aborted) return;
    }
    handlers.onConnection?.("waiting");
    await sleep(pause * (0.5 + Math.random()), signal);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
