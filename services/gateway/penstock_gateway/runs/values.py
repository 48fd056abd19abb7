"""A result of a run as an HTTP answer: inline JSON, an artifact's bytes, or the description of its parts."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from penstock_core.pipeline import values
from penstock_core.pipeline.values import Value
from penstock_core.run import machine
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.runs.run_states import FoldedRun

MEDIA_TYPE = "application/vnd.penstock.value+json"
"""A value that holds stored parts, in the form that facts have."""


def find(folded: FoldedRun, step: str | None, output: str | None) -> Value:
    """The value of an output of a step, or of the run.

    Raises:
        ProblemError: 404 there is none (yet); 422 there are several and none was named.
    """
    if step is None:
        where, outputs, over = "the run", _of_run(folded), folded.state.finished is not None
    else:
        found = folded.state.find(step)
        if found is None:
            raise ProblemError(404, f"The run has no step {step!r}", _names(folded.state.steps))
        where, outputs, over = f"step {step!r}", outputs_of(folded, found), found.status in machine.TERMINAL_STATUSES
    if not outputs:
        when = "ended without any" if over else "has none yet"
        raise ProblemError(404, f"There is no output: {where} {when}", f"the run is {folded.name}")
    name = output or ("result" if "result" in outputs else next(iter(outputs)) if len(outputs) == 1 else None)
    if name is None:
        raise ProblemError(422, f"{where.capitalize()} has several outputs", f"say which: {_names(outputs)}")
    if name not in outputs:
        raise ProblemError(404, f"There is no output {name!r} of {where}", _names(outputs))
    return outputs[name]


async def answer(request: Request, artifacts: Artifacts, value: Value) -> Response:
    """The answer that carries a value, with nothing left to be read from the log."""
    if isinstance(value, values.Stored):
        return await artifacts.get(request, value.artifact.sha256, value.artifact)
    try:
        return Response(orjson.dumps(plain(value)), media_type="application/json")
    except LookupError:
        return Response(orjson.dumps(value), media_type=MEDIA_TYPE)


def outputs_of(folded: FoldedRun, step: machine.StepState) -> dict[str, Value]:
    """The outputs of a step or item; those of a mapped step, and large ones, are named for a reader of the log."""
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
    """The JSON that a value is.

    Raises:
        LookupError: a part of it is stored elsewhere.
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
    return f"there are: {', '.join(names[:50])}{' …' if len(names) > 50 else ''}" if names else "there are none"
