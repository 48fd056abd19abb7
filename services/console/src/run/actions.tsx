/** What can be done with a run. Each action says before what it will do. */

import { useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type ReactNode, useEffect, useRef, useState } from "react";

import { idempotencyKey, post } from "../api/client";
import { FINAL, type RunView, runPath } from "../api/queries";
import { ProblemBox } from "../ui/kit";

interface Action {
  name: string;
  what: string;
  danger?: boolean;
  run: () => Promise<string | undefined>;
}

export function Actions({ run }: { run: RunView }) {
  const [asked, setAsked] = useState<Action>();
  const path = runPath(run.run_id);
  const again = async (body: object) =>
    (await post<{ run_id: string }>(`${path}/rerun`, body, { "idempotency-key": idempotencyKey() })).run_id;
  const steps = Object.keys(run.steps).length;
  const actions: Action[] = FINAL.has(run.state)
    ? [
        {
          name: "Rerun",
          what: `Starts a new run of ${run.pipeline} v${run.version} with the same inputs. All ${steps} steps run again, unless their results are cached.`,
          run: () => again({}),
        },
        ...(run.state === "succeeded"
          ? []
          : [
              {
                name: "Resume",
                what: "Starts a new run that takes the results of the steps that succeeded, and runs the others.",
                run: () => again({ resume: true }),
              },
            ]),
      ]
    : [
        {
          name: "Cancel",
          what: "Stops the running steps (first SIGTERM, then SIGKILL) and starts no further ones. Steps of the closing phase still run.",
          danger: true,
          run: async () => {
            await post(`${path}/cancel`, { reason: "cancelled in the console" });
            return undefined;
          },
        },
      ];
  return (
    <div className="actions">
      {actions.map((one) => (
        <button type="button" key={one.name} className={one.danger ? "danger" : ""} onClick={() => setAsked(one)}>
          {one.name}
        </button>
      ))}
      {asked && <Ask action={asked} onClose={() => setAsked(undefined)} runId={run.run_id} />}
    </div>
  );
}

function Ask({ action, runId, onClose }: { action: Action; runId: string; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const cache = useQueryClient();
  const navigate = useNavigate();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const confirm = () => {
    setBusy(true);
    action
      .run()
      .then(async (started) => {
        await cache.invalidateQueries({ queryKey: ["run", runId] });
        onClose();
        if (started !== undefined) await navigate({ to: "/runs/$runId", params: { runId: started } });
      })
      .catch(setError)
      .finally(() => setBusy(false));
  };
  let shown: ReactNode = null;
  if (error !== undefined) shown = <ProblemBox error={error} />;
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="ask-title">
      <h1 id="ask-title">{action.name}</h1>
      <p>{action.what}</p>
      {shown}
      <menu>
        <button type="button" onClick={() => dialog.current?.close()}>
          Back
        </button>
        <button type="button" className="primary" disabled={busy} onClick={confirm}>
          {action.name}
        </button>
      </menu>
    </dialog>
  );
}
