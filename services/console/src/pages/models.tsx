import { useQuery } from "@tanstack/react-query";

import { model, models } from "../api/queries";
import { number } from "../ui/format";
import { Card, Empty, Load, RunLink, Time } from "../ui/kit";

export function Models() {
  const found = useQuery(models());
  return (
    <>
      <div className="page-head">
        <h1>Models</h1>
      </div>
      <Load query={found}>
        {(data) =>
          data.models.length ? (
            data.models.map((one) => <ModelCard key={one.name} name={one.name} />)
          ) : (
            <Card>
              <Empty>
                No model is registered: call <code>context().register_model(name, model)</code> in a step.
              </Empty>
            </Card>
          )
        }
      </Load>
    </>
  );
}

function ModelCard({ name }: { name: string }) {
  const found = useQuery(model(name));
  return (
    <Card title={name}>
      <Load query={found}>
        {(data) => (
          <div className="scroll">
            <table>
              <thead>
                <tr>
                  <th>Version</th>
                  <th>Aliases</th>
                  <th>Metrics</th>
                  <th>Run</th>
                  <th>Registered</th>
                </tr>
              </thead>
              <tbody>
                {data.versions
                  .toReversed()
                  .slice(0, 20)
                  .map((one) => (
                    <tr key={one.version}>
                      <td>
                        {one.reference} {one.archived && <span className="soft">archived</span>}
                        {one.description && <div className="soft">{one.description}</div>}
                      </td>
                      <td>
                        {one.aliases.map((alias) => (
                          <span className="label" key={String(alias)}>
                            {String(alias)}
                          </span>
                        ))}
                      </td>
                      <td>
                        {Object.entries(one.metrics).map(([metric, value]) => (
                          <span className="label" key={metric}>
                            {metric} {number(value)}
                          </span>
                        ))}
                      </td>
                      <td>{one.run_id && <RunLink id={one.run_id} />}</td>
                      <td>
                        <Time at={one.at} />
                      </td>
                    </tr>
                  ))}
              </tbody>
            </table>
          </div>
        )}
      </Load>
    </Card>
  );
}
