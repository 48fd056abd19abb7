import { useInfiniteQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";

import { get, type Schemas } from "../api/client";
import type { RunSummary } from "../api/queries";
import type { RunsSearch } from "../router";
import { number } from "../ui/format";
import { Card, Elapsed, Empty, Labels, Load, RunLink, State, Time } from "../ui/kit";

const route = getRouteApi("/runs");
const STATES = ["queued", "running", "succeeded", "failed", "cancelled", "skipped"];
const PAGE = 100;

export function Runs() {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const filter = { ...search, label: words(search.label), metric: words(search.metric), limit: PAGE };
  const pages = useInfiniteQuery({
    queryKey: ["runs", filter],
    queryFn: ({ pageParam, signal }) => get<Schemas["RunPage"]>("/v1/runs", { ...filter, cursor: pageParam }, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const set = (name: keyof RunsSearch) => (value: string) =>
    void navigate({ search: (known) => ({ ...known, [name]: value || undefined }), replace: true });
  const filtered = Object.keys(search).length > 0;
  return (
    <>
      <div className="page-head">
        <h1>Runs</h1>
      </div>
      <form className="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Filter label="Pipeline" value={search.pipeline} onChange={set("pipeline")} search />
        <select aria-label="State" value={search.state ?? ""} onChange={(event) => set("state")(event.target.value)}>
          <option value="">any state</option>
          {STATES.map((one) => (
            <option key={one}>{one}</option>
          ))}
        </select>
        <Filter label="Labels, such as team=ads" value={search.label} onChange={set("label")} />
        <Filter label="Metrics, such as loss<0.2" value={search.metric} onChange={set("metric")} />
        <select aria-label="Order" value={search.sort ?? ""} onChange={(event) => set("sort")(event.target.value)}>
          <option value="">newest first</option>
          <option value="-duration">longest first</option>
          <option value="duration">shortest first</option>
        </select>
      </form>
      <Card>
        <Load query={pages}>
          {(data) => {
            const rows = data.pages.flatMap((page) => page.runs);
            if (!rows.length) {
              return filtered ? (
                <Empty>No run matches.</Empty>
              ) : (
                <Empty command="penstock run FILE">There are no runs yet.</Empty>
              );
            }
            return <RunTable runs={rows} />;
          }}
        </Load>
      </Card>
      {pages.hasNextPage && (
        <button type="button" disabled={pages.isFetchingNextPage} onClick={() => void pages.fetchNextPage()}>
          Older runs
        </button>
      )}
    </>
  );
}

function words(text: string | undefined): string[] | undefined {
  return text?.split(/\s+/).filter(Boolean);
}

interface FilterProps {
  label: string;
  value: string | undefined;
  onChange: (value: string) => void;
  search?: boolean;
}

function Filter({ label, value, onChange, search = false }: FilterProps) {
  return (
    <input
      aria-label={label}
      placeholder={label}
      key={value ?? ""}
      defaultValue={value ?? ""}
      data-search={search || undefined}
      onBlur={(event) => onChange(event.target.value.trim())}
      onKeyDown={(event) => event.key === "Enter" && onChange(event.currentTarget.value.trim())}
    />
  );
}

/** Runs as a table. They have the metrics that they were filtered by, so that there may be none to show. */
export function RunTable({ runs }: { runs: RunSummary[] }) {
  const metrics = runs.some((run) => Object.keys(run.metrics).length > 0);
  return (
    <div className="scroll">
      <table>
        <thead>
          <tr>
            <th>State</th>
            <th>Run</th>
            <th>Pipeline</th>
            <th>Started by</th>
            <th>Created</th>
            <th className="right">Duration</th>
            {metrics && <th>Metrics</th>}
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={run.run_id}>
              <td>
                <State state={run.state} />
              </td>
              <td>
                <RunLink id={run.run_id} />
                {run.error && <div className="soft message">{run.error.slice(0, 160)}</div>}
                <div>
                  <Labels labels={run.labels} />
                </div>
              </td>
              <td className="nowrap">
                {run.pipeline} <span className="soft">v{run.version}</span>
              </td>
              <td className="nowrap">{run.deployment ?? run.requested_by}</td>
              <td className="nowrap">
                <Time at={run.created_at} />
              </td>
              <td className="right nowrap">
                <Elapsed from={run.created_at} to={run.finished_at} />
              </td>
              {metrics && (
                <td>
                  {Object.entries(run.metrics)
                    .slice(0, 4)
                    .map(([name, value]) => (
                      <span className="label" key={name}>
                        {name} {number(value)}
                      </span>
                    ))}
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
