/** Where the steps of a run are drawn. Big graphs are grouped, so that never more than about 500 boxes are drawn. */

import dagre from "@dagrejs/dagre";

import type { StepView } from "../api/queries";

export const MOST_BOXES = 500;
export const WIDTH = 210;
export const HEIGHT = 58;

export interface Box {
  id: string;
  /** The step; for a group, how many steps it has by state. */
  keys: string[];
  states: Record<string, number>;
  x: number;
  y: number;
}

export interface Layout {
  boxes: Box[];
  edges: { from: string; to: string }[];
  grouped: boolean;
  /** The height of the drawing. */
  height: number;
}

type Steps = Record<string, Pick<StepView, "state" | "depends_on" | "item_of">>;

/** The part of a key that its group is named by: `features-2/split` and `fit-3` belong to `features` and `fit`. */
export function groupOf(key: string): string {
  const slash = key.indexOf("/");
  return (slash < 0 ? key : key.slice(0, slash)).replace(/-\d+$/, "");
}

export function layout(steps: Steps): Layout {
  const own = Object.entries(steps).filter(([, step]) => !step.item_of);
  const grouped = own.length > MOST_BOXES;
  const name = grouped ? groupOf : (key: string) => key;
  const boxes = new Map<string, Box>();
  for (const [key, step] of own) {
    const id = name(key);
    const box = boxes.get(id) ?? { id, keys: [], states: {}, x: 0, y: 0 };
    box.keys.push(key);
    box.states[step.state] = (box.states[step.state] ?? 0) + 1;
    boxes.set(id, box);
  }
  const edges = new Map<string, { from: string; to: string }>();
  for (const [key, step] of own) {
    for (const upstream of step.depends_on) {
      const from = name(upstream);
      const to = name(key);
      if (from !== to && boxes.has(from)) edges.set(`${from}\n${to}`, { from, to });
    }
  }
  if (boxes.size > MOST_BOXES) placeInRows([...boxes.values()]);
  else place(boxes, [...edges.values()]);
  const drawn = [...boxes.values()].slice(0, MOST_BOXES);
  return { boxes: drawn, edges: [...edges.values()], grouped, height: Math.max(...drawn.map((box) => box.y + HEIGHT), 0) };
}

function place(boxes: Map<string, Box>, edges: { from: string; to: string }[]): void {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 16, ranksep: 60, marginx: 12, marginy: 12 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const id of boxes.keys()) graph.setNode(id, { width: WIDTH, height: HEIGHT });
  for (const { from, to } of edges) graph.setEdge(from, to);
  dagre.layout(graph);
  for (const [id, box] of boxes) {
    const at = graph.node(id);
    box.x = at.x - WIDTH / 2;
    box.y = at.y - HEIGHT / 2;
  }
}

function placeInRows(boxes: Box[]): void {
  const columns = Math.ceil(Math.sqrt(boxes.length));
  boxes.forEach((box, index) => {
    box.x = (index % columns) * (WIDTH + 20);
    box.y = Math.floor(index / columns) * (HEIGHT + 16);
  });
}

const ORDER = ["failed", "timed_out", "lost", "running", "retrying", "suspended", "queued", "pending", "cancelled", "skipped"];

/** The state that a group shows: the one that a person must know first. */
export function worst(states: Record<string, number>): string {
  return ORDER.find((one) => states[one]) ?? Object.keys(states)[0] ?? "pending";
}
