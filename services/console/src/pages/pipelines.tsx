import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import type { Schemas } from "../api/client";
import { versions } from "../api/queries";
import { Card, Empty, Load, Time } from "../ui/kit";

type Version = Schemas["VersionList"]["versions"][number];

export function Pipelines() {
  const found = useQuery(versions());
  return (
    <>
      <div className="page-head">
        <h1>Pipelines</h1>
      </div>
      <Load query={found}>
        {(data) => {
          const pipelines = new Map<string, Version[]>();
          for (const one of data.versions) pipelines.set(one.pipeline, [...(pipelines.get(one.pipeline) ?? []), one]);
          if (!pipelines.size) {
            return (
              <Card>
                <Empty command="penstock register FILE">No pipeline is published.</Empty>
              </Card>
            );
          }
          return [...pipelines]
            .sort(([a], [b]) => a.localeCompare(b))
            .map(([name, found]) => <PipelineCard key={name} name={name} versions={found.toReversed()} />);
        }}
      </Load>
    </>
  );
}

function PipelineCard({ name, versions: found }: { name: string; versions: Version[] }) {
  return (
    <Card
      title={name}
      aside={
        <Link to="/runs" search={{ pipeline: name }}>
          runs
        </Link>
      }
    >
      <div className="scroll">
        <table>
          <thead>
            <tr>
              <th>Version</th>
              <th>Registered</th>
              <th>By</th>
              <th>Commit</th>
              <th className="right">Steps</th>
            </tr>
          </thead>
          <tbody>
            {found.slice(0, 10).map((one) => (
              <tr key={one.version}>
                <td>
                  v{one.version} {one.latest && <span className="label">latest</span>}
                  {!one.published && <span className="soft">experiment</span>}
                </td>
                <td>
                  <Time at={one.published_at ?? one.registered_at} />
                </td>
                <td>{one.registered_by}</td>
                <td>
                  {one.git && (
                    <span className="mono" title={`${one.git.branch} ${one.git.remote}`}>
                      {one.git.commit.slice(0, 10)}
                      {one.git.dirty && "*"}
                    </span>
                  )}
                </td>
                <td className="right number">{one.steps}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}
