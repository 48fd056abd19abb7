"""Check that a compiled pipeline is valid: names, references, ranges, no cycle.

In: the IR, from the compiler or from a client. Out: nothing, or a `DefinitionError` with the user's file and line of
the first problem. The scheduler runs what passes here without checks of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from penstock_core import ids
from penstock_core.errors import DefinitionError, InvalidIdError
from penstock_core.pipeline import conditions, tagged, values
from penstock_core.pipeline.ir import IR_VERSION, MAX_ITEMS, Kind, Node, Phase, Pipeline, StepSpec, dependencies
from penstock_core.secrets import references
from penstock_core.secrets.references import InvalidReferenceError

MAX_NODES = 50_000
MAX_RETRIES = 10_000
MAX_SECONDS = 10 * 365 * 86_400.0
MAX_WINDOW = 10_000
MAX_STEP_NODES = 64

_INPUTS = {
    Kind.ASK: {"question", "choices", "default"},
    Kind.EVENT: {"type", "key"},
    Kind.SLEEP: {"seconds", "until"},
}
"""The inputs of steps that wait."""


def check(pipeline: Pipeline) -> None:
    """Check that a pipeline is valid: names, references, inputs, outputs, no cycle.

    Raises:
        DefinitionError: with the user's file and line of the first problem.
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
    _check_bounds(pipeline, pipeline)
    environments = Counter(one.name for one in pipeline.environments)
    for spec in pipeline.steps.values():
        _check_spec(spec)
        _check_bounds(pipeline, spec)
        if spec.environment is not None and environments[spec.environment] != 1:
            raise DefinitionError(
                f"step {spec.name!r} names the environment {spec.environment!r}, which the pipeline defines "
                f"{'more than once' if environments[spec.environment] else 'nowhere'}",
                spec.file,
                spec.line,
            )
    for node in pipeline.nodes:
        _check_node(pipeline, node, nodes, params)
    for name, binding in pipeline.outputs.items():
        what = f"output {name!r} of pipeline {pipeline.name!r}"
        _check_binding(pipeline, binding, nodes, params, what, None)
        late = next((one.node for one in values.sources(binding) if nodes[one.node].phase is not Phase.MAIN), None)
        if late is not None:
            raise DefinitionError(
                f"{what} reads step {late!r}, which runs after the main phase: outputs are read before",
                pipeline.file,
                pipeline.line,
            )
    _check_cycle(pipeline, nodes)
    if pipeline.nodes and all(node.phase is not Phase.MAIN for node in pipeline.nodes):
        first = pipeline.nodes[0]
        raise DefinitionError(
            f"pipeline {pipeline.name!r} has only on_failure and on_exit steps", first.file, first.line
        )


def _check_id(check: Callable[[str, str], str], name: str, what: str, where: Pipeline | StepSpec | Node) -> None:
    try:
        check(name, what)
    except InvalidIdError as error:
        raise DefinitionError(str(error), where.file, where.line) from error


def _check_spec(spec: StepSpec) -> None:
    _check_id(ids.check_name, spec.pool, "pool", spec)
    if spec.concurrency is not None:
        _check_id(ids.check_name, spec.concurrency, "limit", spec)
    try:
        references.check_texts(spec.secrets)
    except InvalidReferenceError as error:
        raise DefinitionError(f"secrets of step {spec.name!r}: {error}", spec.file, spec.line) from error
    if twice := sorted(spec.env.keys() & {references.variable(text) for text in spec.secrets}):
        raise DefinitionError(f"step {spec.name!r} sets {twice[0]} both by env and by a secret", spec.file, spec.line)
    if spec.nodes > 1 and spec.batch is not None:
        raise DefinitionError(f"step {spec.name!r} has both nodes and batch", spec.file, spec.line)
    if spec.kind is Kind.RUN:
        _check_id(ids.check_name, spec.target, "pipeline", spec)
    elif spec.kind is not Kind.FUNCTION:
        odd = sorted({port.name for port in spec.inputs} - _INPUTS[spec.kind])
        if odd:
            raise DefinitionError(
                f"step {spec.name!r} of kind {spec.kind} has no input {odd[0]!r}", spec.file, spec.line
            )


def _check_bounds(pipeline: Pipeline, owner: Pipeline | StepSpec) -> None:
    bounds: tuple[tuple[str, float | None, float, float], ...]
    if isinstance(owner, Pipeline):
        what = f"pipeline {owner.name!r}"
        bounds = (
            ("deadline", owner.deadline, 0.001, MAX_SECONDS),
            ("most active runs", owner.max_active, 1, 100_000),
        )
    else:
        what, retry = f"step {owner.name!r}", owner.retry
        bounds = (
            ("retries", retry.retries, 0, MAX_RETRIES),
            ("retry delay", retry.delay, 0, MAX_SECONDS),
            ("longest retry delay", retry.max_delay, 0, MAX_SECONDS),
            ("backoff", retry.backoff, 1, 1_000),
            ("jitter", retry.jitter, 0, 1),
            ("timeout", owner.timeout, 0.001, MAX_SECONDS),
            ("queue timeout", owner.queue_timeout, 0.001, MAX_SECONDS),
            ("cache time", owner.cache_ttl, 0.001, MAX_SECONDS),
            ("memory growth", owner.resources.memory_growth, 1, 100),
            ("nodes", owner.nodes, 1, MAX_STEP_NODES),
            ("slots of its limit", owner.concurrency_max, 1, 1_000_000),
        )
    for name, number, lowest, highest in bounds:
        if number is not None and not lowest <= number <= highest:
            raise DefinitionError(
                f"{what} has {name} {number}; it must be from {lowest} to {highest}", owner.file, owner.line
            )


def _check_node(pipeline: Pipeline, node: Node, nodes: dict[str, Node], params: set[str]) -> None:
    _check_id(ids.check_step_key, node.key, "step key", node)
    if node.key.endswith("]"):
        raise DefinitionError(f"step key {node.key!r} is that of an item of a mapped step", node.file, node.line)
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
            raise DefinitionError(f"step {node.key!r} requires input {port.name!r} ({port.type})", node.file, node.line)
    for key in node.after:
        if key not in nodes:
            raise DefinitionError(f"step {node.key!r} runs after unknown step {key!r}", node.file, node.line)
    for binding in conditions.bindings(node.when) if node.when is not None else ():
        _check_binding(pipeline, binding, nodes, params, f"the condition of step {node.key!r}", node)
    _check_phase(node, nodes)
    if node.mapped is not None:
        _check_fan(node)


def _check_phase(node: Node, nodes: dict[str, Node]) -> None:
    """Check that no node of the main phase waits for a closing step."""
    if node.phase is Phase.MAIN:
        late = next((key for key in dependencies(node) if key in nodes and nodes[key].phase is not Phase.MAIN), None)
        if late is not None:
            raise DefinitionError(
                f"step {node.key!r} waits for step {late!r}, which runs after all others", node.file, node.line
            )


def _check_fan(node: Node) -> None:
    assert node.mapped is not None  # noqa: S101 - asked by the caller
    mapped, where = node.mapped, (node.file, node.line)
    if not mapped.over or len(set(mapped.over)) != len(mapped.over):
        raise DefinitionError(f"step {node.key!r} is mapped over no input, or over one twice", *where)
    for name in mapped.over:
        if name not in node.inputs:
            raise DefinitionError(f"step {node.key!r} is mapped over {name!r}, which is not one of its inputs", *where)
    if not 1 <= mapped.window <= MAX_WINDOW:
        raise DefinitionError(
            f"step {node.key!r} has window {mapped.window}; it must be from 1 to {MAX_WINDOW}", *where
        )
    least = mapped.min_success
    if least is not None and not (0 <= least <= MAX_ITEMS):
        raise DefinitionError(
            f"step {node.key!r} has min_success {least}; it must be a number of items, or a fraction from 0 to 1",
            *where,
        )
    literal = _lengths(node)
    if mapped.mode == "zip" and len(set(literal.values())) > 1:
        lengths = ", ".join(f"{name!r} has {length}" for name, length in literal.items())
        raise DefinitionError(f"step {node.key!r} is mapped over lists of different lengths: {lengths}", *where)


def _lengths(node: Node) -> dict[str, int]:
    """Return the lengths of the lists that are known at compile time."""
    assert node.mapped is not None  # noqa: S101 - asked by the caller
    found: dict[str, int] = {}
    for name in node.mapped.over:
        match node.inputs[name]:
            case values.Inline(data) if (entries := tagged.sequence(data)) is not None:
                found[name] = len(entries)
            case values.BoundItems(items):
                found[name] = len(items)
            case values.Inline(other):
                raise DefinitionError(
                    f"step {node.key!r} is mapped over input {name!r}, which is given a {tagged.kind(other)}, "
                    "not a list",
                    node.file,
                    node.line,
                )
            case _:
                continue
    return found


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
                f"{what} reads unknown output {source.output!r} of step {source.node!r} (outputs: {has})", *where
            )
    for name in values.params(binding):
        if name not in params:
            raise DefinitionError(f"{what} reads unknown parameter {name!r}", *where)
    if _chooses_from_nothing(binding):
        raise DefinitionError(f"{what} is one_of() without options", *where)
    if (node is None or node.phase is Phase.MAIN) and _reads_ending(binding):
        raise DefinitionError(
            f"{what} reads the outcome of the run, which only on_failure and on_exit steps can", *where
        )


def _reads_ending(binding: values.Binding) -> bool:
    return isinstance(binding, values.Ending) or any(_reads_ending(part) for part in values.parts(binding))


def _chooses_from_nothing(binding: values.Binding) -> bool:
    return binding == values.OneOf(()) or any(_chooses_from_nothing(part) for part in values.parts(binding))


def _check_cycle(pipeline: Pipeline, nodes: dict[str, Node]) -> None:
    """Find a cycle: Kahn's algorithm leaves its nodes, which are then walked for the message."""
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
        raise DefinitionError(f"steps wait for each other in a cycle: {' <- '.join(cycle)}", node.file, node.line)
