"""A result of a run as an HTTP response: inline JSON, the bytes of an artifact, or the description of its parts."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request, Response

from penstock_core.pipeline import values
from penstock_core.pipeline.values import Value
from penstock_core.run import machine
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.errors import NotFoundError, UnprocessableError
from penstock_gateway.runs.run_states import FoldedRun
from penstock_gateway.runs.steps import no_step

MEDIA_TYPE = "application/vnd.penstock.value+json"
"""A value with stored parts, in the form that facts have."""


def find(folded: FoldedRun, step: str | None, output: str | None) -> Value:
    """Return the value of an output of a step, or of the run.

    Raises:
        NotFoundError: it does not exist, or not yet.
        UnprocessableError: there are several outputs and none was named.
    """
    if step is None:
        where, outputs, finished = "The run", _of_run(folded), folded.state.finished is not None
    else:
        found = folded.state.find(step)
        if found is None:
            raise no_step(folded, step)
        where, outputs, finished = (
            f"Step {step!r}",
            outputs_of(folded, found),
            found.status in machine.TERMINAL_STATUSES,
        )
    if not outputs:
        what = "finished without outputs" if finished else "has no outputs yet"
        raise NotFoundError(f"{where} {what}", f"the run is {folded.name}")
    name = output or ("result" if "result" in outputs else next(iter(outputs)) if len(outputs) == 1 else None)
    if name is None:
        raise UnprocessableError(f"{where} has several outputs", f"name one of {_names(outputs)}")
    if name not in outputs:
        raise NotFoundError(f"{where} has no output {name!r}", f"it has {_names(outputs)}")
    return outputs[name]


async def respond(request: Request, artifacts: Artifacts, value: Value) -> Response:
    """Respond with a value whose references were resolved."""
    if isinstance(value, values.Stored):
        return await artifacts.get(request, value.artifact.sha256, value.artifact)
    try:
        return Response(orjson.dumps(plain(value)), media_type="application/json")
    except LookupError:
        return Response(orjson.dumps(value), media_type=MEDIA_TYPE)


def outputs_of(folded: FoldedRun, step: machine.StepState) -> dict[str, Value]:
    """Return the outputs of a step or item; large ones and those of a mapped step are references into the log."""
    names = [port.name for port in folded.state.plan.specs[step.node].outputs]
    if step.mapped is not None and not step.mapped.source and step.status in machine.SUCCESSFUL_STATUSES:
        return {
            name: values.Collected(values.CollectedRef(key=step.key, count=step.mapped.count, output=name))
            for name in names
        }
    if step.status in machine.SUCCESSFUL_STATUSES and not step.outputs and step.attempt:
        return {
            name: values.ResultOf(values.ResultRef(key=step.key, attempt=step.attempt, output=name)) for name in names
        }
    return step.outputs


def plain(value: Value) -> Any:
    """Return a value as plain JSON data.

    Raises:
        LookupError: a part of it is an artifact.
    """
    match value:
        case values.Inline(inline):
            return inline
        case values.Items(items):
            return [plain(item) for item in items]
        case values.Fields(fields):
            return {name: plain(item) for name, item in fields.items()}
        case _:
            raise LookupError("a part of the value is an artifact")


def _of_run(folded: FoldedRun) -> dict[str, Value]:
    return folded.state.finished.outputs if folded.state.finished else {}


def _names(things: Any) -> str:
    names = [repr(name) for name in things]
    return ", ".join(names[:50]) + (" …" if len(names) > 50 else "")
