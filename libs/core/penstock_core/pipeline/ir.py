"""The intermediate representation (IR) of a pipeline, which `compile` writes and every service reads.

An IR is immutable, has a version in `ir`, and contains everything the scheduler needs: it never imports user code.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.pipeline import conditions, values
from penstock_core.pipeline.conditions import Condition

IR_VERSION = 1
DEFAULT_WINDOW = 256
MAX_ITEMS = 1_000_000
"""Most items of one mapped step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A typed input or output. `type` is the annotation as the user wrote it; `schema` a JSON Schema, if any."""

    name: str
    type: str = "Any"
    required: bool = True
    default: Any = None
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When another attempt follows a failed one.

    Attributes:
        retries: further attempts after failures of the user's code.
        delay: seconds before the first of them.
        backoff: factor between delays; 1 keeps the delay fixed.
        max_delay: longest delay in seconds.
        jitter: part of a delay, 0 to 1, that varies by the attempt's id.
        on: names of exception types that are retried (with their subclasses); empty: all.
    """

    retries: int = 0
    delay: float = 0.0
    backoff: float = 1.0
    max_delay: float = 3600.0
    jitter: float = 0.0
    on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one attempt needs: `cpu` in cores, `memory` in bytes, `gpu` in devices. None leaves it unlimited.

    `memory_growth` multiplies the memory for the attempt that follows one that ran out of it.
    """

    cpu: float | None = None
    memory: int | None = None
    gpu: int = 0
    memory_growth: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How calls of a step are combined by warm workers: up to `max`, waiting `wait` seconds for further ones."""

    max: int
    wait: float = 0.0


class Kind(StrEnum):
    """What a step does: call the user's function, or wait without a process.

    | kind | inputs | result |
    |---|---|---|
    | `ask` | `question`, `choices`, `default` (None: a timeout fails the step) | the choice |
    | `event` | `type`, `key` | the event's data |
    | `sleep` | `seconds`, or `until` as Unix seconds | none |
    | `run` | the inputs of the pipeline `target` | its output, or a dictionary of its several outputs |
    """

    FUNCTION = "function"
    ASK = "ask"
    EVENT = "event"
    SLEEP = "sleep"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A step's definition. `entrypoint` is `module:function` in the source bundle; times are in seconds.

    Attributes:
        timeout: of one attempt; for a step that waits, of the wait.
        queue_timeout: longest time from when an attempt is due until it starts.
        concurrency: name of a limit of which each attempt takes a slot.
        concurrency_max: slots of that limit as this step defines it; None: as configured.
        cache: whether results are cached, for `cache_ttl` seconds; `cache_salt` is the user's part of the key and
            `code` that of the source, see `penstock.authoring.step_code`.
        seed: what random generators start from, together with the key of the step; None: from entropy.
        batch: its function takes several calls at once; None: one.
        nodes: how many processes run an attempt together, each with `resources`.
        fresh_pod: whether a pod runs one attempt of it and nothing else.
        stream: its function yields items, and its output is their list.
        dynamic_code: `file:line: reason` if the source does not show which code the step runs; else empty.
        environment: name of the pipeline's environment that it runs in; None: that which compiled the pipeline.
        target: pipeline of the child run of a step of kind `run`, in version `target_version` (None: the latest).
    """

    name: str
    entrypoint: str
    kind: Kind = Kind.FUNCTION
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    retry: Retry = field(default_factory=Retry)
    timeout: float | None = None
    queue_timeout: float | None = None
    resources: Resources = field(default_factory=Resources)
    pool: str = "default"
    priority: int = 0
    cache: bool = False
    cache_ttl: float | None = None
    cache_salt: str = ""
    concurrency: str | None = None
    concurrency_max: int | None = None
    target: str = ""
    target_version: int | None = None
    environment: str | None = None
    secrets: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str])
    seed: int | None = None
    batch: Batch | None = None
    nodes: int = 1
    fresh_pod: bool = False
    stream: bool = False
    code: str = ""
    dynamic_code: str = ""
    file: str | None = None
    line: int | None = None


class Rule(StrEnum):
    """When a node runs, by how its upstream nodes finished. Inputs from nodes without a result are None.

    `any_failed` waits for all of them, and runs if at least one failed, or did not run because another failed.
    """

    ALL_SUCCEEDED = "all_succeeded"
    ALL_DONE = "all_done"
    ANY_FAILED = "any_failed"


class Phase(StrEnum):
    """The phase of a run in which a node runs: the main phase, or after it."""

    MAIN = "main"
    ON_FAILURE = "on_failure"
    ON_EXIT = "on_exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """How a node runs once for each of many items.

    Attributes:
        over: the inputs that are lists; each item gets one element of each.
        mode: `zip` combines the elements side by side, `grid` in all combinations, the last input changing fastest.
        window: how many items run at the same time.
        min_success: how many items must succeed, as a number, or as a fraction up to 1; None: all.
    """

    over: tuple[str, ...]
    mode: Literal["zip", "grid"] = "zip"
    window: int = DEFAULT_WINDOW
    min_success: int | float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A call of a step in a pipeline.

    Attributes:
        after: upstream nodes without an input from them.
        when: a condition on results of other nodes, which are upstream nodes too; if false, the node is skipped.
        rule: which outcomes of its upstream nodes let it run.
        phase: the phase of the run in which it runs.
        mapped: for a node that runs once for each item of a list.
    """

    key: str
    step: str
    inputs: dict[str, values.Binding] = field(default_factory=dict[str, values.Binding])
    after: tuple[str, ...] = ()
    when: Condition | None = None
    rule: Rule = Rule.ALL_SUCCEEDED
    phase: Phase = Phase.MAIN
    mapped: MapSpec | None = None
    file: str | None = None
    line: int | None = None


class Overlap(StrEnum):
    """What happens to a run that is requested while `max_active` runs of its pipeline are active.

    It waits (`queue`), is skipped (`skip`), replaces the oldest run, which is cancelled (`cancel_previous`), or waits
    unless another one waits already, and is skipped then (`buffer_one`).
    """

    QUEUE = "queue"
    SKIP = "skip"
    CANCEL_PREVIOUS = "cancel_previous"
    BUFFER_ONE = "buffer_one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A compiled pipeline: parameters, step definitions, nodes in topological order, and outputs.

    Attributes:
        deadline: seconds from the request of a run until it fails.
        max_active: runs of the pipeline that may be active at the same time.
        overlap: what happens to further runs.
        environments: what steps name as their environment.
    """

    ir: int = IR_VERSION
    name: str
    description: str = ""
    params: tuple[Port, ...] = ()
    steps: dict[str, StepSpec] = field(default_factory=dict[str, StepSpec])
    nodes: tuple[Node, ...] = ()
    outputs: dict[str, values.Binding] = field(default_factory=dict[str, values.Binding])
    deadline: float | None = None
    max_active: int | None = None
    overlap: Overlap = Overlap.QUEUE
    environments: tuple[EnvironmentDeclaration, ...] = ()
    file: str | None = None
    line: int | None = None


def default_fields(part: Pipeline | StepSpec | Node) -> set[str]:
    """Return the names of the fields that have their default, which need not be written: a later version has more."""
    return {
        one.name for one in dataclasses.fields(part) if one.name != "ir" and getattr(part, one.name) == _default(one)
    }


def without_defaults(pipeline: Pipeline) -> dict[str, Any]:
    """Return the fields of a pipeline to write: an older platform can read them, unless it lacks a feature."""
    fields = _given(pipeline)
    fields["steps"] = {name: _given(spec) for name, spec in pipeline.steps.items()}
    fields["nodes"] = [_given(node) for node in pipeline.nodes]
    return fields


def _given(part: Pipeline | StepSpec | Node) -> dict[str, Any]:
    omitted = default_fields(part)
    return {one.name: getattr(part, one.name) for one in dataclasses.fields(part) if one.name not in omitted}


def _default(one: dataclasses.Field[Any]) -> Any:
    return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()


def dependencies(node: Node) -> list[str]:
    """Return the keys of the upstream nodes of `node`, without duplicates, in order."""
    found = [source.node for binding in node.inputs.values() for source in values.sources(binding)]
    asked = [source.node for source in conditions.sources(node.when)] if node.when is not None else []
    return list(dict.fromkeys([*found, *asked, *node.after]))
