import { useQuery } from "@tanstack/react-query";
import { Link, getRouteApi } from "@tanstack/react-router";

import { FINAL, type RunView, questions, reasons, run as runQuery, useLiveRun } from "../api/queries";
import { QuestionCard } from "../pages/questions";
import { Card, Elapsed, Facts, Labels, Load, State, Time } from "../ui/kit";
import { Actions } from "./actions";
import { Curves } from "./curves";
import { Dag } from "./dag";
import { Logs } from "./logs";
import { StepPanel } from "./step_panel";
import { Timeline } from "./timeline";
import { Values } from "./values";

const route = getRouteApi("/runs/$runId");

const VIEWS = [
  { id: "graph", name: "Graph" },
  { id: "timeline", name: "Timeline" },
  { id: "logs", name: "Logs" },
  { id: "metrics", name: "Metrics" },
  { id: "values", name: "Inputs and outputs" },
  { id: "why", name: "Why" },
] as const;

export function RunPage() {
  const { runId } = route.useParams();
  const found = useQuery(runQuery(runId));
  const connection = useLiveRun(runId, found.data);
  return <Load query={found}>{(run) => <Run key={runId} run={run} connection={connection} />}</Load>;
}

function Run({ run, connection }: { run: RunView; connection: string }) {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const view = search.view ?? "graph";
  const choose = (step: string | undefined) =>
    void navigate({ search: (known) => ({ ...known, step }), replace: true, resetScroll: false });
  const show = (next: string) => void navigate({ search: (known) => ({ ...known, view: next }), replace: true, resetScroll: false });
  const failed = Object.entries(run.steps).find(([, step]) => step.state === "failed" && step.error);
  return (
    <>
      <div className="page-head">
        <State state={run.state} />
        <h1>
          {run.pipeline} <span className="soft">v{run.version}</span>
        </h1>
        {connection !== "done" && <span className={`live ${connection}`}>{connection === "open" ? "live" : "connecting"}</span>}
        <Actions run={run} />
      </div>
      <Facts
        rows={[
          ["Run", <span key="id" className="mono">{run.run_id}</span>],
          ["Started by", run.deployment ?? run.requested_by],
          ["Created", <Time key="created" at={run.created_at} />],
          ["Duration", <Elapsed key="duration" from={run.created_at} to={run.finished_at} />],
          ...(Object.keys(run.labels).length
            ? ([["Labels", <Labels key="labels" labels={run.labels} />]] as [string, React.ReactNode][])
            : []),
        ]}
      />
      {(run.error || failed) && (
        <div className="problem" role="alert">
          <strong>{failed ? `${failed[0]}: ${failed[1].error?.type}: ${failed[1].error?.message}` : run.error}</strong>{" "}
          {failed && (
            <button type="button" onClick={() => choose(failed[0])}>
              show the step
            </button>
          )}
        </div>
      )}
      <OpenQuestions runId={run.run_id} />
      <div className="tabs" role="tablist" aria-label="Views of the run">
        {VIEWS.map((one) => (
          <button type="button" role="tab" key={one.id} aria-selected={view === one.id} onClick={() => show(one.id)}>
            {one.name}
          </button>
        ))}
      </div>
      <div className={search.step ? "split" : ""}>
        <Card>
          {view === "graph" && <Dag run={run} chosen={search.step} onChoose={choose} />}
          {view === "timeline" && <Timeline run={run} chosen={search.step} onChoose={choose} />}
          {view === "logs" && <Logs runId={run.run_id} step={search.step} finished={FINAL.has(run.state)} />}
          {view === "metrics" && <Curves runId={run.run_id} />}
          {view === "values" && (
            <div className="pad">
              <Values title="Inputs" values={run.inputs} />
              <Values title="Outputs" values={run.outputs} />
              <Registered run={run} />
            </div>
          )}
          {view === "why" && <Why runId={run.run_id} onChoose={choose} />}
        </Card>
        {search.step && <StepPanel key={search.step} runId={run.run_id} stepKey={search.step} onChoose={choose} />}
      </div>
    </>
  );
}

/** What this run waits for an answer to. */
function OpenQuestions({ runId }: { runId: string }) {
  const found = useQuery(questions());
  const own = (found.data?.questions ?? []).filter((one) => one.run_id === runId);
  return own.map((one) => <QuestionCard key={one.step} one={one} />);
}

function Registered({ run }: { run: RunView }) {
  if (!run.models.length) return null;
  return (
    <>
      <h3 className="soft">Models</h3>
      <table>
        <tbody>
          {run.models.map((one) => (
            <tr key={one.reference}>
              <td>
                <Link to="/models">{one.reference}</Link>
              </td>
              <td>
                {one.alias && (one.promoted ? `is now ${one.alias}` : `not ${one.alias}: ${one.gate} is false`)}
                {one.clauses.map((clause) => (
                  <div className="soft" key={clause}>
                    {clause}
                  </div>
                ))}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

/** Why each step is in its state, in sentences. */
function Why({ runId, onChoose }: { runId: string; onChoose: (key: string) => void }) {
  const found = useQuery(reasons(runId));
  return (
    <Load query={found}>
      {(data) => (
        <table>
          <tbody>
            {data.steps.map((one) => (
              <tr key={one.key}>
                <td>
                  <State state={one.state} />
                </td>
                <td>
                  <button type="button" className="mono" onClick={() => onChoose(one.key)}>
                    {one.key}
                  </button>
                </td>
                <td>{one.sentence}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Load>
  );
}
