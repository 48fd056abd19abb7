import { Background, Controls, Handle, type Node, type NodeProps, Position, ReactFlow } from "@xyflow/react";
import "@xyflow/react/dist/style.css";
import { useMemo } from "react";

import type { RunView, StepView } from "../api/queries";
import { Elapsed, State } from "../ui/kit";
import { HEIGHT, WIDTH, layout, worst } from "./graph";

interface Data extends Record<string, unknown> {
  title: string;
  state: string;
  step: StepView | undefined;
  count: number;
  chosen: boolean;
}

type StepNode = Node<Data, "step">;

const types = { step: StepBox };

/** The steps of a run as a graph; `signature` changes only when the shape does, so that a new state moves nothing. */
export function Dag({ run, chosen, onChoose }: { run: RunView; chosen: string | undefined; onChoose: (key: string) => void }) {
  const signature = Object.entries(run.steps)
    .map(([key, step]) => `${key}<${step.depends_on.join()}`)
    .join("|");
  // eslint-disable-next-line react-hooks/exhaustive-deps
  const shape = useMemo(() => layout(run.steps), [signature]);
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
  const edges = shape.edges.map(({ from, to }) => ({ id: `${from} ${to}`, source: from, target: to }));
  return (
    <div className="graph" style={{ height: Math.min(Math.max(shape.height + 80, 220), 620) }}>
      <ReactFlow
        nodes={nodes}
        edges={edges}
        nodeTypes={types}
        onNodeClick={(_, node) => onChoose(shape.boxes.find((box) => box.id === node.id)?.keys[0] ?? node.id)}
        fitView
        fitViewOptions={{ maxZoom: 1, padding: 0.1 }}
        minZoom={0.05}
        nodesDraggable={false}
        nodesConnectable={false}
        onlyRenderVisibleElements={nodes.length > 100}
        aria-label="Steps of the run"
      >
        <Background gap={22} />
        <Controls showInteractive={false} />
      </ReactFlow>
    </div>
  );
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
