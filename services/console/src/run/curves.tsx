import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import type { Schemas } from "../api/client";
import { series, seriesNames } from "../api/queries";
import { number } from "../ui/format";
import { Empty, Load } from "../ui/kit";

type Series = Schemas["SeriesPage"]["series"][number];

/** The metrics of a run as curves, one chart for each name. */
export function Curves({ runId }: { runId: string }) {
  const found = useQuery(seriesNames(runId));
  return (
    <Load query={found}>
      {(data) => {
        const names = new Map<string, Series[]>();
        for (const one of data.series) names.set(one.name, [...(names.get(one.name) ?? []), one]);
        if (!names.size) return <Empty>No step has logged a metric.</Empty>;
        return (
          <div className="grid pad">
            {[...names].slice(0, 40).map(([name, several]) => (
              <figure key={name} style={{ margin: 0 }}>
                <figcaption>
                  <b>{name}</b> <span className="soft">{lastValues(several)}</span>
                </figcaption>
                {several.some((one) => one.count > 1) && <Curve runId={runId} name={name} />}
              </figure>
            ))}
          </div>
        );
      }}
    </Load>
  );
}

function Curve({ runId, name }: { runId: string; name: string }) {
  const found = useQuery(series(runId, name));
  return <Load query={found}>{(data) => <Chart several={data.series.toSorted(byStep).slice(0, 12)} />}</Load>;
}

function byStep(a: Series, b: Series): number {
  return a.step.localeCompare(b.step, undefined, { numeric: true });
}

/** The last value; of several steps, the range of theirs. */
function lastValues(several: Series[]): string {
  if (several.length < 2) return several.map(last).join();
  const values = several.map((one) => one.last).filter((one): one is number => typeof one === "number");
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const range = !values.length ? "" : least === most ? number(least) : `${number(least)} to ${number(most)}`;
  return `${range} at the end of ${several.length} steps`;
}

function last(one: Series): string {
  return typeof one.last === "number" ? number(one.last) : String(one.last);
}

const COLORS = ["#0f766e", "#1d4ed8", "#b45309", "#be185d", "#6d28d9", "#15803d"];

function Chart({ several }: { several: Series[] }) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const data = several.map((one) => {
      const points = (one.points ?? []) as [number | null, number, number | string | null][];
      const xs = points.map(([step], index) => step ?? index);
      return [xs, points.map(([, , value]) => (typeof value === "number" ? value : null))] as uPlot.AlignedData;
    });
    const soft = getComputedStyle(element).getPropertyValue("--soft").trim();
    const grid = { stroke: getComputedStyle(element).getPropertyValue("--line").trim(), width: 1 };
    const chart = new uPlot(
      {
        width: element.clientWidth,
        height: 190,
        scales: { x: { time: false } },
        axes: [
          { stroke: soft, grid },
          { stroke: soft, grid, size: 60 },
        ],
        series: [
          { label: "step" },
          ...several.map((one, index) => ({ label: one.step, stroke: COLORS[index % COLORS.length] ?? "#0f766e", width: 1.5, spanGaps: true })),
        ],
        legend: { show: several.length > 1 },
      },
      uPlot.join(data),
      element,
    );
    const sizes = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height: 190 }));
    sizes.observe(element);
    return () => {
      sizes.disconnect();
      chart.destroy();
    };
  }, [several]);
  return <div ref={box} />;
}
