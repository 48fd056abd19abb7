"""`penstock runs cancel`: cancel a run or a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json, RunArgument, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import FAILED

if TYPE_CHECKING:
    from penstock.client.client import Client


def cancel(
    name: RunArgument,
    step: Annotated[str | None, typer.Option("--step", help="Only this step or item (its key).")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Reason, recorded with the run.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the terminal state.")] = True,
    json: Json = False,
) -> None:
    """Cancel a run, or one step of it. Running attempts are stopped, the rest is skipped."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.display import summary
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        run = client.runs.get(resolve_run(client, name))
        if step is not None:
            _cancel_step(client, run.run_id, step, reason, wait=wait, json=json)
            return
        if not run.finished:
            client.runs.cancel(run.run_id, reason)
            run = client.runs.wait(run.run_id) if wait else client.runs.get(run.run_id)
        else:
            output.note(f"run {run.run_id} had already finished")
    if json:
        output.as_json(summary.run_fields(run))
    else:
        output.line(f"run {run.run_id} {run.state}")
    raise typer.Exit(0 if run.state == "cancelled" or not wait else FAILED)


def _cancel_step(client: Client, run_id: str, step: str, reason: str, *, wait: bool, json: bool) -> None:
    """Cancel one step and wait for its terminal state; the run continues."""
    state = client.runs.cancel(run_id, reason, step=step)
    had_finished = state is not None
    if wait and state is None:
        for event in client.runs.events(run_id):
            if event.kind in ("attempt.finished", "step.skipped", "step.expanded", "run.finished"):
                state = client.runs.cancel(run_id, reason, step=step)
            if state is not None:
                break
    if json:
        output.as_json({"run_id": run_id, "step": step, "state": state})
    else:
        if had_finished:
            output.note(f"step {step} had already finished")
        output.line(f"step {step} of run {run_id} {state or 'cancelling'}")
    raise typer.Exit(0 if state == "cancelled" or not wait else FAILED)
