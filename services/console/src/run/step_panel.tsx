import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { items, step } from "../api/queries";
import { duration, number, shortened } from "../ui/format";
import { Card, Elapsed, Facts, Load, State } from "../ui/kit";
import { Values } from "./values";

const PARTS = ["queue", "load", "run", "save"] as const;

/** One step: its attempts, inputs, outputs, what it logged; of a mapped step, its items by page. */
export function StepPanel({ runId, stepKey, onChoose }: { runId: string; stepKey: string; onChoose: (key: string | undefined) => void }) {
  const found = useQuery(step(runId, stepKey));
  return (
    <Card
      title={<span className="mono">{stepKey}</span>}
      aside={
        <button type="button" onClick={() => onChoose(undefined)} aria-label="Close">
          ✕
        </button>
      }
    >
      <Load query={found}>
        {(data) => (
          <div className="pad">
            <Facts
              rows={[
                ["State", <State key="state" state={data.state} />],
                ["Duration", <Elapsed key="duration" from={data.started_at} to={data.finished_at} />],
                ["Attempts", data.attempts],
                ...(data.executor ? ([["Executor", data.executor]] as [string, string][]) : []),
              ]}
            />
            {data.reason && <p className="soft">{data.reason}</p>}
            {data.error && (
              <div className="problem" role="alert">
                <strong>
                  {data.error.type}: {data.error.message}
                </strong>
                {data.error.traceback && <pre>{shortened(data.error.traceback)}</pre>}
              </div>
            )}
            {data.items && <Items runId={runId} stepKey={stepKey} onChoose={onChoose} />}
            <Metrics metrics={data.metrics} />
            <Values title="Inputs" values={data.inputs} />
            <Values title="Outputs" values={data.outputs} />
            <Values title="Artifacts" values={data.artifacts} />
            {data.history.length > 0 && (
              <>
                <h3 className="soft">Attempts</h3>
                <table>
                  <tbody>
                    {data.history.map((one) => (
                      <tr key={one.number}>
                        <td className="number">{one.number}</td>
                        <td>
                          <State state={one.state} />
                          {one.error && (
                            <div className="soft">
                              {one.error.type}: {one.error.message}
                            </div>
                          )}
                        </td>
                        <td className="right">
                          {PARTS.map((part) => {
                            const seconds = one[`${part}_seconds`];
                            return seconds === null || seconds === undefined ? null : (
                              <div key={part}>
                                <span className="soft">{part}</span> <span className="number">{duration(seconds)}</span>
                              </div>
                            );
                          })}
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </>
            )}
          </div>
        )}
      </Load>
    </Card>
  );
}

function Metrics({ metrics }: { metrics: Record<string, number> }) {
  const rows = Object.entries(metrics);
  if (!rows.length) return null;
  return (
    <>
      <h3 className="soft">Metrics</h3>
      <table>
        <tbody>
          {rows.map(([name, value]) => (
            <tr key={name}>
              <td>{name}</td>
              <td className="right number">{number(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

function Items({ runId, stepKey, onChoose }: { runId: string; stepKey: string; onChoose: (key: string) => void }) {
  const [state, setState] = useState("");
  const [after, setAfter] = useState<number[]>([-1]);
  const page = useQuery(items(runId, stepKey, state || undefined, after.at(-1) ?? -1));
  return (
    <>
      <div className="filters">
        <select
          aria-label="State of items"
          value={state}
          onChange={(event) => {
            setState(event.target.value);
            setAfter([-1]);
          }}
        >
          <option value="">all items</option>
          {["failed", "running", "succeeded", "queued", "pending"].map((one) => (
            <option key={one}>{one}</option>
          ))}
        </select>
        <button type="button" disabled={after.length < 2} onClick={() => setAfter(after.slice(0, -1))}>
          previous
        </button>
        <button
          type="button"
          disabled={page.data?.next === null || page.data?.next === undefined}
          onClick={() => setAfter([...after, page.data?.next ?? -1])}
        >
          next
        </button>
      </div>
      <Load query={page}>
        {(data) => (
          <table>
            <tbody>
              {Object.entries(data.items).map(([key, item]) => (
                <tr key={key}>
                  <td>
                    <button type="button" className="mono" onClick={() => onChoose(key)}>
                      {key.slice(key.lastIndexOf("["))}
                    </button>
                  </td>
                  <td>
                    <State state={item.state} />
                  </td>
                  <td className="right">
                    <Elapsed from={item.started_at} to={item.finished_at} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Load>
    </>
  );
}
