import {
  Background,
  BaseEdge,
  Controls,
  type Edge,
  type EdgeProps,
  Handle,
  type Node,
  type NodeProps,
  Position,
  ReactFlow,
  type ReactFlowInstance,
  getBezierPath,
} from "@xyflow/react";
import "@xyflow/react/dist/style.css";
import { type RefObject, useEffect, useMemo, useRef, useState } from "react";

import type { RunView, StepView } from "../api/queries";
import { Elapsed, State } from "../ui/kit";
import { HEIGHT, WIDTH, curve, layout, worst } from "./graph";

interface Data extends Record<string, unknown> {
  title: string;
  state: string;
  step: StepView | undefined;
  count: number;
  chosen: boolean;
}

type StepNode = Node<Data, "step">;
type StepEdge = Edge<{ route: { x: number; y: number }[] | undefined }, "step">;

const types = { step: StepBox };
const edgeTypes = { step: StepLine };

/** Below this zoom, names cannot be read: larger graphs begin at their first steps instead of showing all. */
const READABLE = 0.7;

/** The steps of a run as a graph; `signature` changes only when the shape does, so that a new state moves nothing. */
export function Dag({ run, chosen, onChoose }: { run: RunView; chosen: string | undefined; onChoose: (key: string) => void }) {
  const signature = Object.entries(run.steps)
    .map(([key, step]) => `${key}<${step.depends_on.join()}`)
    .join("|");
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const shape = useMemo(() => layout(run.steps), [signature]);
  const box = useRef<HTMLDivElement>(null);
  const [flow, setFlow] = useState<ReactFlowInstance<StepNode, StepEdge>>();
  const width = useWidth(box);
  // Again when the width changes, as the panel of a step opens or closes.
  useEffect(() => {
    if (!flow || !box.current || !width) return;
    const { clientWidth, clientHeight } = box.current;
    if (Math.min(clientWidth / (shape.width + 80), clientHeight / (shape.height + 40)) >= READABLE) {
      void flow.fitView({ maxZoom: 1, padding: 0.1 });
    } else if (chosen !== undefined) {
      const nodes = shape.boxes.filter((one) => one.keys.includes(chosen));
      void flow.fitView({ nodes, minZoom: READABLE, maxZoom: READABLE });
    } else void flow.setViewport({ x: 24, y: 12, zoom: READABLE });
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [flow, shape, width]);
  const nodes: StepNode[] = shape.boxes.map((box) => {
    const step = box.keys.length === 1 ? run.steps[box.keys[0] ?? ""] : undefined;
    const states: Record<string, number> = {};
    for (const key of box.keys) {
      const state = run.steps[key]?.state ?? "pending";
      states[state] = (states[state] ?? 0) + 1;
    }
    return {
      id: box.id,
      type: "step",
      position: { x: box.x, y: box.y },
      width: WIDTH,
      height: HEIGHT,
      data: {
        title: box.id,
        state: worst(states),
        step,
        count: box.keys.length,
        chosen: chosen !== undefined && box.keys.includes(chosen),
      },
    };
  });
  const edges: StepEdge[] = shape.edges.map(({ from, to, route }) => ({
    id: `${from} ${to}`,
    type: "step",
    source: from,
    target: to,
    data: { route },
  }));
  return (
    <div ref={box} className="graph" style={{ height: `clamp(220px, ${shape.height + 80}px, max(420px, 68vh))` }}>
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={types}
        onNodeClick={(_, node) => onChoose(shape.boxes.find((box) => box.id === node.id)?.keys[0] ?? node.id)}
        edgeTypes={edgeTypes}
        onInit={setFlow}
        minZoom={0.05}
        nodesDraggable={false}
        nodesConnectable={false}
        onlyRenderVisibleElements={nodes.length > 100}
        aria-label="Steps of the run"
      >
        <Background gap={22} />
        <Controls showInteractive={false} fitViewOptions={{ maxZoom: 1, padding: 0.1 }} />
      </ReactFlow>
    </div>
  );
}

/** The width of an element. React Flow, whose observer is older, knows it before this changes. */
function useWidth(box: RefObject<HTMLElement | null>): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!box.current) return;
    const sizes = new ResizeObserver(([entry]) => setWidth(entry?.contentRect.width ?? 0));
    sizes.observe(box.current);
    return () => sizes.disconnect();
  }, [box]);
  return width;
}

function StepLine({ id, data, ...ends }: EdgeProps<StepEdge>) {
  const { sourceX, sourceY, targetX, targetY } = ends;
  const [straight] = getBezierPath(ends);
  const path = data?.route
    ? curve([{ x: sourceX, y: sourceY }, ...data.route, { x: targetX, y: targetY }])
    : straight;
  return <BaseEdge id={id} path={path} />;
}

function StepBox({ data }: NodeProps<StepNode>) {
  const { step } = data;
  const items = step?.items;
  return (
    <div className={`node is-${data.state} ${data.chosen ? "chosen" : ""}`}>
      <Handle type="target" position={Position.Left} isConnectable={false} />
      <b title={data.title}>{data.title}</b>
      <small>
        <State state={data.state} />
        <span>
          {data.count > 1 ? (
            `${data.count} steps`
          ) : items ? (
            `${items["finished"] ?? 0} / ${items["count"] ?? 0}`
          ) : step?.progress && step.state === "running" ? (
            `${Math.round((100 * step.progress.done) / step.progress.total)} %`
          ) : (
            <Elapsed from={step?.started_at} to={step?.finished_at} />
          )}
        </span>
      </small>
      <Handle type="source" position={Position.Right} isConnectable={false} />
    </div>
  );
}
