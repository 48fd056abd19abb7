"""The intermediate representation of a pipeline: what `compile` writes and every service reads.

An IR is immutable, has a version in `ir`, and holds everything the scheduler needs: it never imports user code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock_core import ids, values
from penstock_core.errors import DefinitionError, InvalidId

IR_VERSION = 1
MAX_NODES = 50_000
MAX_RETRIES = 10_000
MAX_SECONDS = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A typed input or output. `type` is the hint as the user wrote it, for people; `schema` a JSON Schema, if any."""

    name: str
    type: str = "Any"
    required: bool = True
    default: Any = None
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a failed attempt is followed by another.

    Attributes:
        retries: further attempts after a failure of the user's code.
        delay: seconds before the first of them.
        backoff: factor from one delay to the next; 1 keeps it fixed.
        max_delay: longest delay in seconds.
        jitter: part of a delay, 0 to 1, that is spread by the attempt's id.
        on: names of exception types that are retried (with their bases); empty means all.
    """

    retries: int = 0
    delay: float = 0.0
    backoff: float = 1.0
    max_delay: float = 3600.0
    jitter: float = 0.0
    on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one attempt needs: `cpu` in cores, `memory` in bytes, `gpu` in devices. None leaves it unlimited."""

    cpu: float | None = None
    memory: int | None = None
    gpu: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A step's definition. `entrypoint` is `module:function` inside the source bundle; times are in seconds."""

    name: str
    entrypoint: str
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    retry: Retry = field(default_factory=Retry)
    timeout: float | None = None
    queue_timeout: float | None = None
    resources: Resources = field(default_factory=Resources)
    pool: str = "default"
    priority: int = 0
    cache: bool = False
    concurrency: str | None = None
    environment: str | None = None
    secrets: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict[str, str])
    code: str = ""
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A call of a step in a pipeline. `after` names nodes that must have succeeded without giving an input."""

    key: str
    step: str
    inputs: dict[str, values.Binding] = field(default_factory=dict[str, values.Binding])
    after: tuple[str, ...] = ()
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A compiled pipeline: parameters, step definitions, nodes in an order that runs, and outputs."""

    ir: int = IR_VERSION
    name: str
    description: str = ""
    params: tuple[Port, ...] = ()
    steps: dict[str, StepSpec] = field(default_factory=dict[str, StepSpec])
    nodes: tuple[Node, ...] = ()
    outputs: dict[str, values.Binding] = field(default_factory=dict[str, values.Binding])
    file: str | None = None
    line: int | None = None


def dependencies(node: Node) -> list[str]:
    """The keys of the nodes that `node` waits for, each once, in order."""
    found = [source.node for binding in node.inputs.values() for source in values.sources(binding)]
    return list(dict.fromkeys([*found, *node.after]))


def check(pipeline: Pipeline) -> None:
    """Check that a pipeline is whole: names, references, inputs, outputs, and no cycle.

    Raises:
        DefinitionError: with the user's file and line of the first thing that is wrong.
    """
    if pipeline.ir != IR_VERSION:
        raise DefinitionError(
            f"the pipeline was compiled for IR version {pipeline.ir}; this platform reads {IR_VERSION}",
            pipeline.file,
            pipeline.line,
        )
    if len(pipeline.nodes) > MAX_NODES:
        raise DefinitionError(
            f"pipeline {pipeline.name!r} has {len(pipeline.nodes)} steps; the limit is {MAX_NODES}",
            pipeline.file,
            pipeline.line,
        )
    _check_id(ids.check_name, pipeline.name, "pipeline name", pipeline)
    params = {port.name for port in pipeline.params}
    nodes = {node.key: node for node in pipeline.nodes}
    if len(nodes) != len(pipeline.nodes):
        twice = next(key for key, n in Counter(node.key for node in pipeline.nodes).items() if n > 1)
        raise DefinitionError(f"step key {twice!r} is used twice", nodes[twice].file, nodes[twice].line)
    for spec in pipeline.steps.values():
        _check_spec(spec)
    for node in pipeline.nodes:
        _check_node(pipeline, node, nodes, params)
    for name, binding in pipeline.outputs.items():
        _check_binding(pipeline, binding, nodes, params, f"output {name!r} of pipeline {pipeline.name!r}", None)
    _check_cycle(pipeline, nodes)


def _check_id(check: Callable[[str, str], str], name: str, what: str, where: Pipeline | StepSpec | Node) -> None:
    try:
        check(name, what)
    except InvalidId as error:
        raise DefinitionError(str(error), where.file, where.line) from error


def _check_spec(spec: StepSpec) -> None:
    _check_id(ids.check_name, spec.pool, "pool", spec)
    retry = spec.retry
    for what, number, lowest, highest in (
        ("retries", retry.retries, 0, MAX_RETRIES),
        ("retry delay", retry.delay, 0, MAX_SECONDS),
        ("longest retry delay", retry.max_delay, 0, MAX_SECONDS),
        ("backoff", retry.backoff, 1, 1_000),
        ("jitter", retry.jitter, 0, 1),
        ("timeout", 1.0 if spec.timeout is None else spec.timeout, 0.001, MAX_SECONDS),
    ):
        if not lowest <= number <= highest:
            raise DefinitionError(
                f"step {spec.name!r} has {what} {number}; it must be from {lowest} to {highest}", spec.file, spec.line
            )


def _check_node(pipeline: Pipeline, node: Node, nodes: dict[str, Node], params: set[str]) -> None:
    _check_id(ids.check_step_key, node.key, "step key", node)
    spec = pipeline.steps.get(node.step)
    if spec is None:
        raise DefinitionError(f"step {node.key!r} calls unknown step definition {node.step!r}", node.file, node.line)
    known = {port.name for port in spec.inputs}
    for name, binding in node.inputs.items():
        if name not in known:
            expected = ", ".join(sorted(known)) or "none"
            raise DefinitionError(
                f"step {node.key!r} has no input {name!r} (its inputs: {expected})", node.file, node.line
            )
        _check_binding(pipeline, binding, nodes, params, f"input {name!r} of step {node.key!r}", node)
    for port in spec.inputs:
        if port.required and port.name not in node.inputs:
            raise DefinitionError(
                f"step {node.key!r} misses its input {port.name!r} ({port.type})", node.file, node.line
            )
    for key in node.after:
        if key not in nodes:
            raise DefinitionError(f"step {node.key!r} runs after unknown step {key!r}", node.file, node.line)


def _check_binding(
    pipeline: Pipeline, binding: values.Binding, nodes: dict[str, Node], params: set[str], what: str, node: Node | None
) -> None:
    where = (node.file, node.line) if node else (pipeline.file, pipeline.line)
    for source in values.sources(binding):
        upstream = nodes.get(source.node)
        spec = pipeline.steps.get(upstream.step) if upstream else None
        if spec is None:
            raise DefinitionError(f"{what} reads unknown step {source.node!r}", *where)
        if source.output not in {port.name for port in spec.outputs}:
            has = ", ".join(port.name for port in spec.outputs)
            raise DefinitionError(
                f"{what} reads unknown output {source.output!r} of step {source.node!r} (it has: {has})", *where
            )
    for name in values.params(binding):
        if name not in params:
            raise DefinitionError(f"{what} reads unknown parameter {name!r}", *where)


def _check_cycle(pipeline: Pipeline, nodes: dict[str, Node]) -> None:
    """Kahn's algorithm; what is left over holds a cycle, which is then walked for the message."""
    waiting = {key: set(dependencies(node)) for key, node in nodes.items()}
    dependents: dict[str, list[str]] = {key: [] for key in nodes}
    for key, upstream in waiting.items():
        for other in upstream:
            dependents[other].append(key)
    free = [key for key, upstream in waiting.items() if not upstream]
    while free:
        done = free.pop()
        del waiting[done]
        for key in dependents[done]:
            waiting[key].discard(done)
            if not waiting[key]:
                free.append(key)
    if waiting:
        path = dict.fromkeys([min(waiting)])
        while (following := min(waiting[next(reversed(path))])) not in path:
            path[following] = None
        cycle = [*list(path)[list(path).index(following) :], following]
        node = nodes[following]
        raise DefinitionError(f"steps wait for each other in a circle: {' <- '.join(cycle)}", node.file, node.line)
