"""Build run requests: the only code that makes a `RunRequested` for a pipeline version.

In: the pipeline version, the inputs as a client, a trigger, an earlier run or a step gives them, and the options of
the run. Out: a complete `RunRequested`, or an `InvalidInputsError` that lists every problem with its path.

HTTP requests, reruns, triggers and child runs all use `build`, so the same wrong input gives the same errors wherever
a run is requested. Registered models are resolved beforehand: `model_references` lists the references in the inputs,
the caller looks them up, and `Inputs.models` passes the results in.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from penstock_core import capacity, ids, json_schema
from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.errors import InputError, InvalidIdError, InvalidInputsError, PenstockError
from penstock_core.facts import CacheMode, Caller, RunRequested
from penstock_core.frozen import frozen
from penstock_core.pipeline.ir import Kind, Pipeline, Port
from penstock_core.pipeline.values import (
    INLINE_LIMIT,
    ArtifactRef,
    Collected,
    Element,
    Fields,
    Inline,
    Items,
    Lists,
    ResultOf,
    Stored,
    Value,
)
from penstock_core.registry import references
from penstock_core.registry.facts import ModelRegistered
from penstock_core.registry.references import Reference

LABEL_NAME_LIMIT = 100
"""Characters of the name of a label."""

LABEL_VALUE_LIMIT = 1000
"""Characters of the value of a label."""

_STEPS_SHOWN = 30
_PROBLEMS_SHOWN = 20

Problem = tuple[str, str]
"""A path, such as `inputs.depth`, and what is wrong there."""


@frozen(kw_only=True)
class Target:
    """The pipeline version to run, on a platform that limits the size of `limited_pools`.

    `available` are the pools and executors that there are; None: not checked.
    """

    project: str
    pipeline: Pipeline
    version: int
    limited_pools: Collection[str] = ()
    available: capacity.Available | None = None
    environments: Mapping[str, capacity.DeclaredEnvironment] | None = None


@frozen(kw_only=True)
class Inputs:
    """Where the values of a run's parameters come from.

    Attributes:
        given: by parameter: a JSON value, or a `Value` from a step. `{"artifact": {"sha256": …, "size": …}}` refers to
            an artifact.
        earlier: values of an earlier run, for parameters that are not given.
        earlier_models: the registered models among these values, see `RunRequested.models`.
        models: what the references to registered models in `given` resolve to, by parameter: a version, or the error of
            the lookup.
    """

    given: Mapping[str, Any]
    earlier: Mapping[str, Value] | None = None
    earlier_models: Mapping[str, str] | None = None
    models: Mapping[str, ModelRegistered | PenstockError] | None = None


@frozen(kw_only=True)
class Options:
    """How to run it. `deadline` is in seconds from the request; None: as the pipeline defines it.

    The other attributes are those of `RunRequested`.
    """

    trigger: Mapping[str, str]
    requested_by: str = ""
    labels: Mapping[str, str] | None = None
    priority: int = 0
    deadline: float | None = None
    cache: CacheMode = CacheMode.USE
    refresh: Sequence[str] = ()
    reuses: str = ""
    caller: Caller | None = None
    shadow: bool = False
    deployment_limit: DeploymentLimit | None = None


def build(run_id: str, target: Target, inputs: Inputs, options: Options, now: float) -> RunRequested:
    """Build the request of a run: fill in defaults, check everything, compute the deadline.

    Raises:
        InvalidInputsError: lists each input, label or option that is wrong.
        InvalidIdError: the run id or the project is not a valid name.
    """
    pipeline = target.pipeline
    values, problems = _values(pipeline.params, inputs)
    problems += _label_problems(options.labels or {}) + _refresh_problems(pipeline, options)
    if target.available is not None:
        problems += capacity.problems(pipeline, target.available, target.environments)
    if problems:
        raise InvalidInputsError(invalid(pipeline.name), problems)
    seconds = pipeline.deadline if options.deadline is None else options.deadline
    return RunRequested(
        run_id=run_id,
        project=target.project,
        pipeline=pipeline.name,
        version=target.version,
        inputs=values,
        trigger=dict(options.trigger),
        labels=dict(options.labels or {}),
        priority=options.priority,
        requested_at=now,
        deadline=None if seconds is None else now + seconds,
        cache=options.cache,
        refresh=tuple(dict.fromkeys(options.refresh)),
        reuses=options.reuses,
        caller=options.caller,
        requested_by=options.requested_by,
        limited_pools=tuple(sorted(pools(pipeline) & {*target.limited_pools})),
        models=_used_models(pipeline.params, inputs),
        shadow=options.shadow,
        deployment_limit=options.deployment_limit,
    )


def _used_models(params: Sequence[Port], inputs: Inputs) -> dict[str, str]:
    """Return the registered models among the inputs, by parameter."""
    given = {
        name: str(Reference(found.model, version=found.version))
        for name, found in (inputs.models or {}).items()
        if isinstance(found, ModelRegistered)
    }
    earlier = {name: text for name, text in (inputs.earlier_models or {}).items() if name not in inputs.given}
    used = earlier | given
    return {port.name: used[port.name] for port in params if port.name in used}


def invalid(pipeline: str) -> str:
    """Return the title of the error of an invalid request for a run."""
    return f"Invalid run request for pipeline {pipeline!r}"


def missing(type: str) -> str:
    """Describe that a parameter of this type has no value."""
    return f"missing, expected {type}"


def pools(pipeline: Pipeline) -> set[str]:
    """Return the pools in which steps of a pipeline run."""
    return {spec.pool for spec in pipeline.steps.values() if spec.kind is Kind.FUNCTION}


def check_inputs(pipeline: Pipeline, inputs: Inputs) -> dict[str, Value]:
    """Return the values of all parameters, in the order of the pipeline, with defaults filled in.

    Raises:
        InvalidInputsError: lists each input that is unknown, missing, too large or of the wrong type.
    """
    values, problems = _values(pipeline.params, inputs)
    if problems:
        raise InvalidInputsError(f"Invalid inputs for pipeline {pipeline.name!r}", problems)
    return values


def check_parameters(params: Sequence[Port], inputs: Inputs) -> tuple[dict[str, Value], list[Problem]]:
    """Return the values of some parameters, and what is wrong: unknown, missing, too large or of the wrong type."""
    return _values(params, inputs)


def model_references(params: Sequence[Port], given: Mapping[str, Any]) -> dict[str, str]:
    """Return the references to registered models in the given inputs, by parameter."""
    schemas = {port.name: port.schema for port in params}
    found = {name: references.named(_json(value), schemas[name]) for name, value in given.items() if name in schemas}
    return {name: reference for name, reference in found.items() if reference is not None}


# -------------------------------------------------------------------------------------------------------------- inputs


def _values(params: Sequence[Port], inputs: Inputs) -> tuple[dict[str, Value], list[Problem]]:
    known = [port.name for port in params]
    names: list[str] = [*dict.fromkeys([*inputs.given, *(inputs.earlier or {})])]
    problems = [(f"inputs.{name[:100]}", _unknown(name, known)) for name in names if name not in known]
    values: dict[str, Value] = {}
    for port in params:
        try:
            values[port.name] = _value(port, inputs)
        except _WrongInputError as error:
            problems += [(f"inputs.{port.name}{path}", message) for path, message in error.problems]
        except InputError as error:
            problems.append((f"inputs.{port.name}", str(error)))
    return values, problems


class _WrongInputError(InputError):
    """An input does not fit the schema of its parameter. `problems` are paths in the input, and what is wrong there."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems[0][1])
        self.problems = problems


def _check(value: Any, port: Port) -> None:
    if problems := list(itertools.islice(json_schema.problems(value, port.schema), _PROBLEMS_SHOWN)):
        raise _WrongInputError(problems)


def _value(port: Port, inputs: Inputs) -> Value:
    earlier = inputs.earlier or {}
    if port.name in inputs.given:
        model = (inputs.models or {}).get(port.name)
        return _given(port, inputs.given[port.name]) if model is None else _model(model)
    if port.name in earlier:
        return _earlier(port, earlier[port.name])
    if port.required:
        raise InputError(missing(port.type))
    return Inline(port.default)


def _model(resolved: ModelRegistered | PenstockError) -> Stored:
    if isinstance(resolved, PenstockError):
        raise InputError(f"does not refer to a registered model: {resolved}") from resolved
    return Stored(resolved.artifact)


def _given(port: Port, given: Any) -> Value:
    if isinstance(given, Stored | Items | Lists | Fields | ResultOf | Collected | Element):
        return given  # only the step that reads it knows its type
    value = _json(given)
    match value:
        case {"artifact": {"sha256": _} as reference, **rest} if not rest:
            return Stored(_reference(cast("dict[str, Any]", reference)))
        case _:
            pass
    if problem := _too_large(value):
        raise InputError(problem)
    _check(value, port)
    return Inline(value)


def _json(given: Any) -> Any:
    return given.value if isinstance(given, Inline) else given


def _earlier(port: Port, value: Value) -> Value:
    # A default may violate the schema of its parameter: `depth: int = None`.
    if isinstance(value, Inline) and (port.required or value.value != port.default):
        _check(value.value, port)
    return value


REFERENCE_TYPES: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "sha256": ("text", str),
    "size": ("an integer", int),
    "media_type": ("text", str),
    "format": ("text", str),
    "python_type": ("text", str),
    "filename": ("text", str),
    "unsafe": ("true or false", bool),
    "items": ("an integer", (int, type(None))),
    "total": ("an integer", int),
    "project_types": ("true or false", bool),
}
"""The fields of `ArtifactRef` as clients may give them."""


def _reference(given: dict[str, Any]) -> ArtifactRef:
    found: dict[str, Any] = {"media_type": "application/octet-stream", "format": "file"}
    found |= {name: value for name, value in given.items() if name in REFERENCE_TYPES}
    if "size" not in found:
        raise InputError("is not a reference to an artifact: size is missing")
    for name, value in found.items():
        expected, types = REFERENCE_TYPES[name]
        if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
            raise InputError(f"is not a reference to an artifact: {name} must be {expected}")
    try:
        ids.check_digest(found["sha256"])
    except InvalidIdError as error:
        raise InputError(f"is not a reference to an artifact: {error}") from error
    return ArtifactRef(**found)


def _unknown(name: str, known: list[str]) -> str:
    return json_schema.unknown(name, dict.fromkeys(known), "parameter")


def _too_large(value: Any) -> str | None:
    size = len(json_schema.dump(value).encode(errors="surrogatepass"))
    if size <= INLINE_LIMIT:
        return None
    return (
        f"has {size} bytes as JSON; the limit is {INLINE_LIMIT}: pass a file or an artifact instead "
        '(upload the bytes to /v1/artifacts/{sha256}, then give {"artifact": {"sha256": …, "size": …}})'
    )


# ------------------------------------------------------------------------------------------------------------- options


def _label_problems(labels: Mapping[str, str]) -> list[Problem]:
    return [
        (
            f"labels.{name[:100]}",
            f"must have a name of 1 to {LABEL_NAME_LIMIT} characters and a value of up to {LABEL_VALUE_LIMIT}",
        )
        for name, value in labels.items()
        if not name or len(name) > LABEL_NAME_LIMIT or len(value) > LABEL_VALUE_LIMIT
    ]


def _refresh_problems(pipeline: Pipeline, options: Options) -> list[Problem]:
    known = dict.fromkeys([*(node.key for node in pipeline.nodes), *pipeline.steps])
    problems: list[Problem] = []
    if unknown := [name for name in options.refresh if name not in known]:
        shown = ", ".join([*known][:_STEPS_SHOWN]) + (" …" if len(known) > _STEPS_SHOWN else "")
        problems.append(("refresh", f"there is no step {unknown[0][:100]!r} (steps: {shown})"))
    elif options.refresh and options.cache is CacheMode.OFF:
        problems.append(("refresh", "cannot be combined with cache 'off', which stores no result: omit one of them"))
    return problems
