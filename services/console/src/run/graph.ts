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

export interface Edge {
  from: string;
  to: string;
  /** The points by which an edge past other boxes avoids them; for others none. */
  route?: { x: number; y: number }[];
}

export interface Layout {
  boxes: Box[];
  edges: Edge[];
  grouped: boolean;
  /** The size of the drawing. */
  width: number;
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
  const edges = new Map<string, Edge>();
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
  const width = Math.max(...drawn.map((box) => box.x + WIDTH), 0);
  const height = Math.max(...drawn.map((box) => box.y + HEIGHT), 0);
  return { boxes: drawn, edges: [...edges.values()], grouped, width, height };
}

/** Place the boxes in the order in which the pipeline calls the steps, unless another order has fewer crossings. */
function place(boxes: Map<string, Box>, edges: Edge[]): void {
  const inOrder = arrange(boxes, edges, true);
  let best = inOrder;
  if (edges.length <= MOST_COMPARED) {
    const other = arrange(boxes, edges, false);
    if (crossings(other, edges) < crossings(inOrder, edges)) best = other;
  }
  for (const [id, box] of boxes) {
    const at = best.node(id);
    box.x = at.x - WIDTH / 2;
    box.y = at.y - HEIGHT / 2;
  }
  for (const edge of edges) {
    // The first and last points are those at the boxes, and one between them is in the gap between two columns.
    const points = best.edge(edge.from, edge.to).points.slice(1, -1);
    if (points.length > 1) edge.route = points.map(({ x, y }: { x: number; y: number }) => ({ x, y }));
  }
}

/** Edges up to which crossings are counted, for each pair. */
const MOST_COMPARED = 400;

type Graph = ReturnType<typeof arrange>;

function crossings(graph: Graph, edges: Edge[]): number {
  const ends = edges.map(({ from, to }) => [graph.node(from), graph.node(to)] as const);
  let count = 0;
  ends.forEach(([a, b], index) => {
    for (const [c, d] of ends.slice(index + 1)) {
      if (a.x === c.x && b.x === d.x && (a.y - c.y) * (b.y - d.y) < 0) count += 1;
    }
  });
  return count;
}

function arrange(boxes: Map<string, Box>, edges: Edge[], inOrder: boolean) {
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 16, ranksep: 60, marginx: 12, marginy: 12 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const id of boxes.keys()) graph.setNode(id, { width: WIDTH, height: HEIGHT });
  for (const { from, to } of edges) graph.setEdge(from, to);
  dagre.layout(graph, { disableOptimalOrderHeuristic: inOrder });
  return graph;
}

/** A smooth line through points, level at each of them. */
export function curve(points: { x: number; y: number }[]): string {
  return points
    .map(({ x, y }, index) => {
      const before = points[index - 1];
      if (!before) return `M${x},${y}`;
      const middle = (before.x + x) / 2;
      return `C${middle},${before.y} ${middle},${y} ${x},${y}`;
    })
    .join(" ");
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
