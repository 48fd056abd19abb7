/** When the steps of a run ran: rows of bars on a canvas, so that thousands can be drawn. */

import type { StepView } from "../api/queries";

export interface Bar {
  key: string;
  state: string;
  from: number;
  to: number;
}

export const ROW = 22;
export const LABEL = 190;
const AXIS = 24;

export function bars(steps: Record<string, StepView>, now: number): Bar[] {
  return Object.entries(steps)
    .filter(([, step]) => step.started_at !== null && step.started_at !== undefined && !step.item_of)
    .map(([key, step]) => ({ key, state: step.state, from: step.started_at as number, to: step.finished_at ?? now }))
    .sort((a, b) => a.from - b.from || a.key.localeCompare(b.key));
}

/** About five round positions between two times, in seconds after the first. */
export function ticks(span: number): number[] {
  if (!(span > 0)) return [0];
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough) ?? rough;
  return Array.from({ length: Math.floor(span / size) + 1 }, (_, index) => index * size);
}

export function height(rows: number): number {
  return AXIS + rows * ROW + 6;
}

export function draw(
  canvas: HTMLCanvasElement,
  rows: Bar[],
  begin: number,
  end: number,
  chosen: string | undefined,
  text: (seconds: number) => string,
): void {
  const style = getComputedStyle(canvas);
  const color = (name: string) => style.getPropertyValue(name).trim();
  const width = canvas.clientWidth;
  const ratio = devicePixelRatio;
  canvas.width = width * ratio;
  canvas.height = height(rows.length) * ratio;
  const pen = canvas.getContext("2d");
  if (!pen) return;
  pen.scale(ratio, ratio);
  pen.font = `12px ${style.fontFamily}`;
  pen.textBaseline = "middle";
  const span = Math.max(end - begin, 1e-3);
  const scale = (width - LABEL - 16) / span;
  for (const tick of ticks(span)) {
    const x = LABEL + tick * scale;
    pen.fillStyle = color("--line");
    pen.fillRect(x, AXIS - 6, 1, rows.length * ROW + 6);
    pen.fillStyle = color("--soft");
    const label = text(tick);
    if (x + 4 + pen.measureText(label).width <= width) pen.fillText(label, x + 4, AXIS / 2 - 2);
  }
  rows.forEach((bar, index) => {
    const y = AXIS + index * ROW;
    if (bar.key === chosen) {
      pen.fillStyle = color("--accent-soft");
      pen.fillRect(0, y, width, ROW);
    }
    pen.fillStyle = color("--text");
    pen.fillText(shorten(pen, bar.key, LABEL - 14), 8, y + ROW / 2);
    pen.fillStyle = color(COLORS[bar.state] ?? "--grey");
    pen.fillRect(LABEL + (bar.from - begin) * scale, y + 5, Math.max(2, (bar.to - bar.from) * scale), ROW - 10);
  });
}

const COLORS: Record<string, string> = {
  succeeded: "--green",
  failed: "--red",
  timed_out: "--red",
  lost: "--red",
  running: "--blue",
  suspended: "--violet",
};

function shorten(pen: CanvasRenderingContext2D, text: string, room: number): string {
  if (pen.measureText(text).width <= room) return text;
  let length = text.length;
  while (length > 1 && pen.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return `${text.slice(0, length)}…`;
}

/** The row at a height in the chart. */
export function rowAt(y: number, rows: Bar[]): Bar | undefined {
  return rows[Math.floor((y - AXIS) / ROW)];
}
