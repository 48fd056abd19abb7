import { useQuery } from "@tanstack/react-query";

import { platform } from "../api/queries";
import { Card, Empty, Facts, Load, ProblemBox, State, Time } from "../ui/kit";

export function System() {
  const found = useQuery(platform());
  return (
    <>
      <div className="page-head">
        <h1>System</h1>
      </div>
      <Load query={found}>
        {(data) => (
          <>
            <Facts
              rows={[
                ["Version", data.version],
                ["Gateway started", <Time key="started" at={data.started_at} />],
                ["Artifact store", `${data.store.kind} ${data.store.root ?? ""}`],
              ]}
            />
            {data.problems.map((one) => (
              <ProblemBox key={one} error={new Error(one)} />
            ))}
            <div className="grid">
              <Card title="Parts">
                <table>
                  <tbody>
                    {Object.entries(data.parts as Record<string, unknown>).map(([name, ok]) => (
                      <tr key={name}>
                        <td>{name}</td>
                        <td className="right">
                          <State state={ok ? "ok" : "failed"} />
                        </td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </Card>
              <Card title="Executors">
                {data.executors.length ? (
                  <table>
                    <thead>
                      <tr>
                        <th>Name</th>
                        <th>Pool</th>
                        <th className="right">Slots</th>
                        <th className="right">Cores</th>
                      </tr>
                    </thead>
                    <tbody>
                      {data.executors.map((one) => (
                        <tr key={one.name}>
                          <td className="mono">{one.name}</td>
                          <td>{one.pool === "*" ? "all" : one.pool}</td>
                          <td className="right number">{one.slots}</td>
                          <td className="right number">{one.cpu ?? ""}</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                ) : (
                  <Empty>No executor is connected: steps wait.</Empty>
                )}
              </Card>
              <Card title="Schedulers">
                {data.schedulers.length ? (
                  <table>
                    <tbody>
                      {data.schedulers.map((one) => (
                        <tr key={one.name}>
                          <td className="mono">{one.name}</td>
                          <td className="right number">{one.shards.length} shards</td>
                        </tr>
                      ))}
                    </tbody>
                  </table>
                ) : (
                  <Empty>No scheduler answers: runs make no progress.</Empty>
                )}
              </Card>
            </div>
          </>
        )}
      </Load>
    </>
  );
}
