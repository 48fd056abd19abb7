"""Waits that need no process: for people, events, points in time, and runs of other pipelines.

    answer = ask("Publish?", choices=["yes", "no"], timeout="2d")
    labels = wait_for_event("com.acme.labels.ready", key=dataset_id, timeout="7d")
    scored = run_pipeline("scoring", model=model).after(sleep("10m"))

Each is a node of the pipeline like a step: it has a key, `.after`, and stands in `when` blocks.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from penstock import hints, tracebacks
from penstock.authoring import mapping, options
from penstock.authoring.mapping import Mappable
from penstock.authoring.options import Duration
from penstock.authoring.trace import pipeline_tracer
from penstock.authoring.trace.drafts import CallOptions, PipelineDefinition
from penstock.authoring.trace.mapped_calls import MappedArguments
from penstock.authoring.trace.placeholders import Placeholder
from penstock.authoring.trace.references import Reference
from penstock.hints import json_schema
from penstock.hints.signature import Input, Signature
from penstock_core.pipeline import ir
from penstock_core.pipeline.ir import Kind


class WaitStep:
    """The definition of a wait.

    Attributes:
        kind: the kind of wait.
        name: first part of its key.
        signature: its inputs, see `ir.Kind`, and its one result.
        settings: further fields of `ir.StepSpec`.
        pipeline: the pipeline that it runs, where it was given and not only named.
    """

    def __init__(
        self, kind: Kind, name: str, inputs: Mapping[str, Any], returns: Any, settings: dict[str, Any]
    ) -> None:
        self.kind = kind
        self.name = options.name(name, "name")
        self.signature = Signature(
            {name: Input(name, hint) for name, hint in inputs.items()}, {"result": returns}, returns, None
        )
        self.settings = settings
        self.pipeline: PipelineDefinition | None = None
        self.call_options = CallOptions()
        self._file, self._line = tracebacks.caller()

    @property
    def identity(self) -> object:
        """Unique: each wait is a definition of its own."""
        return id(self)

    def spec(self, module: str | None = None) -> ir.StepSpec:
        """Return the IR; `module` has no effect, because there is no function."""
        del module
        returns = self.signature.returns
        return ir.StepSpec(
            name=self.name,
            entrypoint="",
            kind=self.kind,
            inputs=tuple(
                ir.Port(
                    name=one.name,
                    type=hints.show(one.hint),
                    required=one.required,
                    default=None if one.required else one.default,
                    schema=json_schema.schema(one.hint),
                )
                for one in self.signature.inputs.values()
            ),
            outputs=(ir.Port(name="result", type=hints.show(returns), schema=json_schema.schema(returns)),),
            file=self._file,
            line=self._line,
            **self.settings,
        )


def _record(waiting: WaitStep, given: dict[str, Any]) -> Any:
    """Record a wait as a call."""
    tracer = pipeline_tracer.active()
    if tracer is None:
        raise options.definition_error(f"{waiting.name}: waits can only be used inside a pipeline body, not in a step")
    return tracer.record(waiting, (), given)


def _timeout(value: Duration | None) -> dict[str, Any]:
    return {} if value is None else {"timeout": options.duration(value, "timeout")}


def ask(
    question: str,
    *,
    choices: Sequence[str] = ("yes", "no"),
    timeout: Duration | None = None,
    default: str | None = None,
    name: str = "ask",
) -> Any:
    """Ask people a question; the answer is the result.

    Args:
        question: the question, or a result that is one.
        choices: what can be answered.
        timeout: how long to wait for an answer; None: without end.
        default: the answer after the time-out; None: the step fails.
        name: key of the step.

    Returns:
        A reference of the choice, a text.

    Raises:
        DefinitionError: an argument is not valid, or it is used outside a pipeline body; with the user's line.
    """
    known = _choices(choices)
    kind: Any = str if known is None else Literal[tuple(known)]  # pyright: ignore[reportInvalidTypeForm] - at run time
    if default is not None and timeout is None:
        raise options.definition_error(
            "ask(): default=… requires timeout=…, because the default is the answer after the timeout"
        )
    if known is not None and default is not None and not isinstance(default, Placeholder) and default not in known:
        raise options.definition_error(
            f"ask(): default {default!r} is not one of the choices {', '.join(map(repr, known))}"
        )
    inputs: dict[str, Any] = {"question": str, "choices": list[str]}
    given: dict[str, Any] = {"question": question, "choices": choices if known is None else known}
    if default is not None:
        inputs["default"], given["default"] = str, default
    return _record(WaitStep(Kind.ASK, name, inputs, kind, _timeout(timeout)), given)


def _choices(choices: Any) -> list[str] | None:
    """Return the choices if they are known at compile time."""
    if isinstance(choices, Reference):
        return None
    several: list[Any] = list(choices) if isinstance(choices, list | tuple) else []
    if any(isinstance(one, Placeholder) for one in several):
        return None
    if not several or not all(isinstance(one, str) and one for one in several) or len(set(several)) < len(several):
        raise options.definition_error(f"choices of ask() must be a list of distinct strings, not {choices!r}")
    return several


class PartialWait(Mappable):
    """A wait with some inputs bound: `map` it over the others."""

    def __init__(self, make: Callable[[Iterable[str]], WaitStep], fixed: dict[str, Any]) -> None:
        self._make = make
        self._fixed = fixed

    def _record_mapped(self, given: MappedArguments) -> Any:
        if given.args:
            raise options.definition_error(f"{given.word}() takes keyword arguments only")
        waiting = self._make([*self._fixed, *given.lists])
        return mapping.fan_out(waiting, MappedArguments(given.mode, self._fixed, (), given.lists))


class WaitForEvent:
    """Wait for an event: `wait_for_event("com.acme.labels.ready", key=dataset_id)`."""

    def __call__(
        self, type: str, *, key: str | None = None, timeout: Duration | None = None, name: str = "wait_for_event"
    ) -> Any:
        """Wait for an event; its data is the result.

        Args:
            type: type of the event, such as `com.acme.labels.ready`.
            key: which of the events of this type: one whose key is the same; a text, or a result that is one.
            timeout: how long to wait; then the step fails. None: without end.
            name: key of the step.

        Returns:
            A reference of the event's data, a dictionary.

        Raises:
            DefinitionError: an argument is not valid, or it is used outside a pipeline body; with the user's line.
        """
        given = {"type": type} if key is None else {"type": type, "key": key}
        return _record(self._waiting(type, given, timeout, name), given)

    def partial(self, type: str, *, timeout: Duration | None = None, name: str = "wait_for_event") -> PartialWait:
        """Wait for one event for each key: `wait_for_event.partial("com.acme.labels.ready").map(key=ids)`."""
        return PartialWait(lambda names: self._waiting(type, names, timeout, name), {"type": type})

    def _waiting(self, type: Any, names: Iterable[str], timeout: Duration | None, name: str) -> WaitStep:
        if not isinstance(type, Placeholder) and (not isinstance(type, str) or not type):
            raise options.definition_error(
                f"type of wait_for_event() must be a string such as 'com.acme.labels.ready', not {type!r}"
            )
        inputs = {"type": str, "key": str} if "key" in names else {"type": str}
        return WaitStep(Kind.EVENT, name, inputs, dict[str, Any], _timeout(timeout))


wait_for_event = WaitForEvent()


def sleep(duration: Duration, *, name: str = "sleep") -> Any:
    """Wait for a duration: `train(data).after(sleep("10m"))`.

    Args:
        duration: "10m", "30s", seconds or a timedelta, or a result that is a number of seconds.
        name: key of the step.

    Raises:
        DefinitionError: an argument is not valid, or it is used outside a pipeline body; with the user's line.
    """
    seconds = duration if isinstance(duration, Placeholder) else options.duration(duration, "sleep()", zero=True)
    return _record(WaitStep(Kind.SLEEP, name, {"seconds": float}, type(None), {}), {"seconds": seconds})


def sleep_until(time: Any, *, name: str = "sleep_until") -> Any:
    """Wait until a point in time.

    Args:
        time: a `datetime` with its time zone, a text such as "2026-03-01T08:00:00+01:00", Unix seconds, or a result
            that is a datetime or Unix seconds. A past time does not wait.
        name: key of the step.

    Raises:
        DefinitionError: an argument is not valid, or it is used outside a pipeline body; with the user's line.
    """
    until = time if isinstance(time, Placeholder) else _unix(time)
    waiting = WaitStep(Kind.SLEEP, name, {"until": datetime.datetime | float}, type(None), {})
    return _record(waiting, {"until": until})


def _unix(time: Any) -> float:
    """Return a point in time in Unix seconds."""
    moment = time
    if isinstance(time, str):
        try:
            moment = datetime.datetime.fromisoformat(time)
        except ValueError:
            moment = None
    if isinstance(moment, datetime.datetime):
        if moment.tzinfo is None:
            raise options.definition_error(
                f"sleep_until(): {time!s} has no time zone: write it with one, such as +01:00 or Z"
            )
        return moment.timestamp()
    if isinstance(moment, int | float) and not isinstance(moment, bool) and math.isfinite(moment) and moment >= 0:
        return float(moment)
    raise options.definition_error(
        f"sleep_until() takes a datetime, a string such as '2026-03-01T08:00:00+01:00' or Unix seconds, not {time!r}"
    )


class RunOptions(TypedDict, total=False):
    """Options of `run_pipeline`.

    Attributes:
        version: which version; None: the latest published one when the run is started.
        timeout: time limit, after which the run is cancelled and the step fails; None: no limit.
        name: key of the step; default: the name of the pipeline.
    """

    version: int | None
    timeout: Duration | None
    name: str | None


class RunPipeline:
    """Run another pipeline: `run_pipeline("scoring", model=model)`."""

    def __init__(self, chosen: RunOptions | None = None) -> None:
        self._options = chosen

    def with_options(self, **changed: Unpack[RunOptions]) -> RunPipeline:
        """Return a copy with these options, whose keyword arguments are all inputs.

        For a pipeline that is given by its name and has a parameter called like an option:
        `run_pipeline.with_options(timeout="1h")("scoring", version="v2")`.
        """
        return RunPipeline({**(self._options or {}), **changed})

    def __call__(self, pipeline: str | PipelineDefinition, /, **given: Any) -> Any:
        """Start a run of another pipeline of the project, and wait for its output.

        Args:
            pipeline: the pipeline, or its name. Given the pipeline, the types of inputs and output are checked.
            **given: its inputs; and the options `version`, `timeout` and `name` (see `RunOptions`), except those that
                are parameters of the given pipeline.

        Returns:
            A reference of its output; of a dictionary, or the NamedTuple, where it has several.

        Raises:
            DefinitionError: an argument is not valid, or it is used outside a pipeline body; with the user's line.
        """
        chosen, inputs = self._split(pipeline, given)
        return _record(_run(pipeline, inputs, chosen), inputs)

    def partial(self, pipeline: str | PipelineDefinition, /, **given: Any) -> PartialWait:
        """Run it once for each item of lists: `run_pipeline.partial("scoring", model=model).map(day=days)`."""
        chosen, inputs = self._split(pipeline, given)
        return PartialWait(lambda names: _run(pipeline, names, chosen), inputs)

    def _split(self, pipeline: str | PipelineDefinition, given: dict[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
        if self._options is not None:
            return self._options, given
        own = {} if isinstance(pipeline, str) else getattr(pipeline, "signature", _NO_SIGNATURE).inputs
        names = [name for name in given if name in RunOptions.__annotations__ and name not in own]
        chosen: Any = {name: given[name] for name in names}
        return chosen, {name: value for name, value in given.items() if name not in names}


_NO_SIGNATURE = Signature({}, {}, Any, None)

run_pipeline = RunPipeline()


def _run(pipeline: Any, names: Iterable[str], given: RunOptions) -> WaitStep:
    settings, version = _timeout(given.get("timeout")), given.get("version")
    if version is not None:
        settings["target_version"] = options.whole(version, "version", 1, 2**31)
    known = getattr(pipeline, "signature", None)
    target = options.name(pipeline.name if known is not None else pipeline, "pipeline of run_pipeline()")
    waiting = WaitStep(
        Kind.RUN, given.get("name") or target, dict.fromkeys(names, Any), Any, {**settings, "target": target}
    )
    if isinstance(known, Signature):
        waiting.pipeline = pipeline
        waiting.signature = Signature(known.inputs, {"result": known.returns}, known.returns, None)
    return waiting
