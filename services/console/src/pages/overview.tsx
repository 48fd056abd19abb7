import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import { deployments, limits, platform, questions, runs } from "../api/queries";
import { Card, Empty, Load, ProblemBox, RunLink, Time } from "../ui/kit";
import { RunTable } from "./runs";

const MOST = 500;

export function Overview() {
  const running = useQuery(runs({ state: "running", limit: MOST }));
  const queued = useQuery(runs({ state: "queued", limit: MOST }));
  const failed = useQuery(runs({ state: "failed", limit: 8 }));
  const recent = useQuery(runs({ limit: 8 }));
  const about = useQuery(platform());
  const waiting = useQuery(questions());
  const slots = about.data?.executors.reduce((sum, one) => sum + one.slots, 0);
  return (
    <>
      <div className="page-head">
        <h1>Overview</h1>
      </div>
      {about.data?.problems.map((one) => <ProblemBox key={one} error={new Error(one)} />)}
      <div className="tiles">
        <Link className="tile" to="/runs" search={{ state: "running" }}>
          <b>{count(running.data?.runs.length)}</b>
          <span>running</span>
        </Link>
        <Link className="tile" to="/runs" search={{ state: "queued" }}>
          <b>{count(queued.data?.runs.length)}</b>
          <span>queued</span>
        </Link>
        <Link className="tile" to="/questions">
          <b>{count(waiting.data?.questions.length)}</b>
          <span>waiting for an answer</span>
        </Link>
        <Link className="tile" to="/system">
          <b>{slots ?? "…"}</b>
          <span>slots of executors</span>
        </Link>
      </div>
      {(running.data?.runs.length ?? 0) > 0 && (
        <Card title="Running now">
          <RunTable runs={running.data?.runs.slice(0, 10) ?? []} />
        </Card>
      )}
      <Card title="Latest runs" aside={<Link to="/runs">all runs</Link>}>
        <Load query={recent}>
          {(data) =>
            data.runs.length ? (
              <RunTable runs={data.runs} />
            ) : (
              <Empty command="penstock run FILE">There are no runs yet. Write a pipeline and run it:</Empty>
            )
          }
        </Load>
      </Card>
      <div className="grid">
        {(failed.data?.runs.length ?? 0) > 0 && (
          <Card title="Failed lately">
            <table>
              <tbody>
                {failed.data?.runs.map((run) => (
                  <tr key={run.run_id}>
                    <td>
                      <RunLink id={run.run_id}>{run.pipeline}</RunLink>
                      <div className="soft">{run.error?.slice(0, 160)}</div>
                    </td>
                    <td className="right nowrap">
                      <Time at={run.finished_at} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Card>
        )}
        <NextTicks />
        <Slots />
      </div>
    </>
  );
}

function count(length: number | undefined): string {
  return length === undefined ? "…" : length >= MOST ? `${MOST}+` : String(length);
}

function NextTicks() {
  const found = useQuery(deployments());
  const ticks = (found.data?.deployments ?? [])
    .filter((one) => !one.paused)
    .flatMap((one) => Object.values(one.next).map((at) => ({ name: one.name, at })))
    .sort((a, b) => a.at - b.at)
    .slice(0, 8);
  return (
    <Card title="Next ticks" aside={<Link to="/deployments">deployments</Link>}>
      {ticks.length ? (
        <table>
          <tbody>
            {ticks.map((tick) => (
              <tr key={`${tick.name}${tick.at}`}>
                <td>{tick.name}</td>
                <td className="right">
                  <Time at={tick.at} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      ) : (
        <Empty command="penstock deployments create NAME --pipeline PIPELINE --cron '0 3 * * *'">
          No deployment has a schedule.
        </Empty>
      )}
    </Card>
  );
}

function Slots() {
  const found = useQuery(limits());
  const rows = found.data?.limits ?? [];
  if (!rows.length) return null;
  return (
    <Card title="Limits">
      <table>
        <tbody>
          {rows.map((one) => (
            <tr key={one.name}>
              <td>{one.name}</td>
              <td>
                <div className="bar" title={`${one.in_use} of ${one.slots ?? "?"} slots`}>
                  <i style={{ width: `${one.slots ? Math.min(100, (100 * one.in_use) / one.slots) : 0}%` }} />
                </div>
              </td>
              <td className="right number">
                {one.in_use} of {one.slots ?? "?"}
                {one.waiting > 0 && `, ${one.waiting}${one.more_waiting ? "+" : ""} waiting`}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  );
}
