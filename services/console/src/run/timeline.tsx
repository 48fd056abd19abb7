import { useEffect, useRef } from "react";

import { FINAL, type RunView } from "../api/queries";
import { duration } from "../ui/format";
import { Empty, useNow } from "../ui/kit";
import { bars, draw, height, rowAt } from "./gantt";

export function Timeline({ run, chosen, onChoose }: { run: RunView; chosen: string | undefined; onChoose: (key: string) => void }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const now = useNow();
  const end = FINAL.has(run.state) ? (run.finished_at ?? now) : now;
  const rows = bars(run.steps, end);
  useEffect(() => {
    const drawn = canvas.current;
    if (!drawn) return;
    const paint = () => draw(drawn, rows, run.created_at, end, chosen, (seconds) => duration(seconds));
    paint();
    const sizes = new ResizeObserver(paint);
    sizes.observe(drawn);
    return () => sizes.disconnect();
  });
  if (!rows.length) return <Empty>No step has started.</Empty>;
  const label = rows.map((bar) => `${bar.key} ${bar.state} ${duration(bar.to - bar.from)}`).join(", ");
  return (
    <div className="scroll" style={{ maxHeight: "max(460px, 68vh)", overflowY: "auto" }}>
      <canvas
        ref={canvas}
        className="gantt"
        style={{ height: height(rows.length) }}
        role="img"
        aria-label={label.slice(0, 2000)}
        onClick={(event) => {
          const bar = rowAt(event.nativeEvent.offsetY, rows);
          if (bar) onChoose(bar.key);
        }}
      />
    </div>
  );
}
