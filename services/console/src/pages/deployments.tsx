import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { idempotencyKey, post, type Schemas } from "../api/client";
import { deployments } from "../api/queries";
import { Card, Empty, Load, ProblemBox, State, Time } from "../ui/kit";
import { type Trigger, describe } from "./trigger";

type Deployment = Schemas["DeploymentView"];

export function Deployments() {
  const found = useQuery(deployments());
  return (
    <>
      <div className="page-head">
        <h1>Deployments</h1>
      </div>
      <Card>
        <Load query={found}>
          {(data) =>
            data.deployments.length ? (
              <div className="scroll">
                <table>
                  <thead>
                    <tr>
                      <th>State</th>
                      <th>Name</th>
                      <th>Pipeline</th>
                      <th>Triggers</th>
                      <th>Next tick</th>
                      <th>Changed</th>
                      <th />
                    </tr>
                  </thead>
                  <tbody>
                    {data.deployments.map((one) => (
                      <Row key={one.name} one={one} />
                    ))}
                  </tbody>
                </table>
              </div>
            ) : (
              <Empty command="penstock deployments create NAME --pipeline PIPELINE --cron '0 3 * * *'">
                There are no deployments: they start runs by schedules, events, webhooks and endpoints.
              </Empty>
            )
          }
        </Load>
      </Card>
    </>
  );
}

function Row({ one }: { one: Deployment }) {
  const cache = useQueryClient();
  const path = `/v1/deployments/${encodeURIComponent(one.name)}`;
  const change = useMutation({
    mutationFn: (verb: string) =>
      post(`${path}/${verb}`, {}, { "idempotency-key": idempotencyKey() }),
    onSettled: () => cache.invalidateQueries(),
  });
  const ticks = Object.values(one.next);
  return (
    <tr>
      <td><State state={one.paused ? "paused" : "active"} /></td>
      <td>
        {one.name} <span className="soft nowrap">revision {one.revision}</span>
        {one.definition.description && <div className="soft">{one.definition.description}</div>}
        {change.error && <ProblemBox error={change.error} />}
      </td>
      <td>
        {one.definition.pipeline}{" "}
        <span className="soft nowrap">{one.definition.version === null ? "latest published" : `v${one.definition.version}`}</span>
      </td>
      <td>
        {(one.definition.triggers as unknown as Trigger[]).map((trigger) => (
          <div key={trigger.name}>{describe(trigger)}</div>
        ))}
      </td>
      <td className="nowrap">{ticks.length > 0 && <Time at={Math.min(...ticks)} />}</td>
      <td>
        <Time at={one.at} /> <span className="soft">{one.by}</span>
      </td>
      <td className="right nowrap">
        <button type="button" disabled={change.isPending} onClick={() => change.mutate(one.paused ? "resume" : "pause")}>
          {one.paused ? "Resume" : "Pause"}
        </button>{" "}
        <button type="button" disabled={change.isPending} onClick={() => change.mutate("runs")}>
          Run now
        </button>
      </td>
    </tr>
  );
}
