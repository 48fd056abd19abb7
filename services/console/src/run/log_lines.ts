/** Lines of output as they arrive, in order, without any twice; the oldest are dropped beyond a limit. */

export interface LogLine {
  number: number;
  from: string;
  at: number;
  text: string;
}

interface Output {
  key: string;
  attempt: number;
  first: number;
  entries: { [name: string]: unknown }[];
}

export const MOST_LINES = 200_000;

export class LogLines {
  lines: LogLine[] = [];
  dropped = 0;
  private count = 0;
  private seen = new Map<string, number>();
  private open = new Map<string, LogLine>();

  add(output: Output): void {
    const attempt = `${output.key}.${output.attempt}`;
    const from = output.attempt > 1 ? `${output.key} #${output.attempt}` : output.key;
    const known = this.seen.get(attempt) ?? 0;
    output.entries.forEach((entry, index) => {
      const { stream, text, at } = entry;
      if (output.first + index < known || stream !== "output" || typeof text !== "string") return;
      this.append(attempt, from, typeof at === "number" ? at : 0, text);
    });
    this.seen.set(attempt, Math.max(known, output.first + output.entries.length));
    if (this.lines.length > MOST_LINES) {
      const extra = this.lines.length - MOST_LINES;
      this.lines = this.lines.slice(extra);
      this.dropped += extra;
    }
  }

  /** An entry may end within a line, which the next one of the attempt continues. */
  private append(attempt: string, from: string, at: number, text: string): void {
    const pieces = text.split("\n");
    pieces.forEach((piece, index) => {
      const last = index === pieces.length - 1;
      const open = this.open.get(attempt);
      if (open) open.text += piece;
      else if (piece || !last) {
        const line = { number: this.count, from, at, text: piece };
        this.count += 1;
        this.lines.push(line);
        this.open.set(attempt, line);
      }
      if (!last) this.open.delete(attempt);
    });
  }
}
