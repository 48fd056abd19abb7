"""Which results a resumed run reuses from an earlier run of the same pipeline, and why other steps run again.

In: the state of the finished earlier run, and what the new one is: its plan, the changed parameters, the steps to start
from. Out: a `Resumption` with the facts to append before the request of the new run.

A result is reused if the step has one in the earlier run and nothing that it was made of changed. A step downstream of
one that runs again is never reused, so a resumed run that succeeds has the outputs of a complete run with the same
inputs. Results that are not copied are references to the run that made them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from penstock_core.cache import cache_key
from penstock_core.facts import StepReused
from penstock_core.pipeline import conditions, values
from penstock_core.pipeline.ir import Kind, Node, Phase, StepSpec
from penstock_core.pipeline.values import Binding, Value
from penstock_core.run import value_resolution
from penstock_core.run.plan import Plan
from penstock_core.run.state import SUCCESSFUL_STATUSES, MappedState, RunState, Status, StepState, item_of

COPY_LIMIT = values.ITEM_LIMIT
"""Largest weight of a result that is copied. Larger ones are references, except those that the scheduler reads and the
outputs of the run. A list of results of items is copied up to `values.INLINE_LIMIT`.
"""

_ENDED = {
    Status.FAILED: "it failed in the earlier run",
    Status.CANCELLED: "it was cancelled in the earlier run",
    Status.SKIPPED: "it did not run in the earlier run",
}
_CODE = ("kind", "entrypoint", "code", "env", "secrets", "environment", "cache_salt", "target", "target_version")


@dataclass(frozen=True, slots=True)
class Changes:
    """How the new run differs from the earlier one.

    Attributes:
        params: parameters of the pipeline with another value.
        begin: steps that run again with everything downstream: keys, items, names of steps or of inlined pipelines.
        source: whether the source differs, so that code of unknown dependencies may differ.
        environments: names of environments whose packages differ; empty for that which compiled the pipeline.
        lost: digests of artifacts that are no longer in the store.
    """

    params: frozenset[str] = frozenset()
    begin: tuple[str, ...] = ()
    source: bool = False
    environments: frozenset[str] = frozenset()
    lost: Collection[str] = frozenset()


@dataclass(slots=True)
class Resumption:
    """What is reused and what runs again.

    Attributes:
        facts: the reused results, for the new run's log, in the order of the pipeline.
        steps: how many steps are reused completely.
        items: how many items are reused of mapped steps that run again.
        rerun_steps: why each of the other steps runs again, by key.
    """

    facts: list[StepReused] = field(default_factory=list[StepReused])
    steps: int = 0
    items: dict[str, int] = field(default_factory=dict[str, int])
    rerun_steps: dict[str, str] = field(default_factory=dict[str, str])


def unknown(plan: Plan, begin: Collection[str]) -> list[str]:
    """Return the names to start from that match no step of the pipeline."""
    return [name for name in begin if not any(_is_named(plan, key, name) for key in plan.nodes)]


def resume(old: RunState, plan: Plan, run_id: str, changes: Changes) -> Resumption:
    """Return what a new run of `plan` reuses from a finished run. Linear in the size of both."""
    facts: dict[str, list[StepReused]] = {}
    rerun_steps: dict[str, str] = {}
    found = Resumption()
    read, given = _read_by_scheduler(plan), _by_step(plan.pipeline.outputs.values())
    for key in _in_order(plan):
        step = old.steps.get(key)
        opened = read.get(key, frozenset())
        taker = _ResultReuse(old, run_id, opened, opened | given.get(key, frozenset()), changes.lost)
        differs = _differs(old, plan, key, changes, rerun_steps)
        why = differs or _begins(plan, key, changes) or taker.reuse_obstacle(step)
        if why is not None:
            rerun_steps[key] = why
        if step is None:
            continue
        if why is None and step.status in SUCCESSFUL_STATUSES:
            facts[key] = [taker.whole(step)]
            found.steps += 1
        elif differs is None and why is not None and not _begins(plan, key, changes, whole=True):
            facts[key] = taker.items(step, {item_of(name)[1] for name in changes.begin if item_of(name)[0] == key})
            if facts[key]:
                found.items[key] = len(facts[key])
    found.facts = [fact for key in plan.nodes for fact in facts.get(key, ())]
    found.rerun_steps = {key: rerun_steps[key] for key in plan.nodes if key in rerun_steps}
    return found


# ------------------------------------------------------------------------------------------------------------- reasons


def _begins(plan: Plan, key: str, changes: Changes, *, whole: bool = False) -> str | None:
    """Whether the user wants a step to run again, or, with `whole`, all of its items."""
    for name in changes.begin:
        if _is_named(plan, key, name) and not (whole and item_of(name)[0] == key):
            return f"the run starts from {name!r}"
    return None


def _differs(old: RunState, plan: Plan, key: str, changes: Changes, rerun_steps: Mapping[str, str]) -> str | None:
    """Return what changed of the things that a step's result is made of; None if nothing did."""
    node = plan.nodes[key]
    if node.phase is not Phase.MAIN:
        return "it runs at the end of every run"
    if key not in old.plan.nodes:
        return "the earlier run has no such step"
    changed = next((name for name in _params(node) if name in changes.params), None)
    if changed is not None:
        return f"its parameter {changed!r} changed"
    follows = next((other for other in plan.dependencies[key] if other in rerun_steps), None)
    if follows is not None:
        return f"its upstream step {follows!r} runs again"
    return _defined_otherwise(old.plan, plan, key, changes) or _reads_objects(old, plan, key, changes)


def _reads_objects(old: RunState, plan: Plan, key: str, changes: Changes) -> str | None:
    """Whether the source changed and an input has objects of its classes, whose code the step runs; see `cache_key`."""
    if not changes.source or plan.specs[key].kind is not Kind.FUNCTION:
        return None
    for binding in plan.nodes[key].inputs.values():
        given = old.requested.inputs if old.requested is not None else {}
        read = [given[name] for name in values.params(binding) if name in given]
        for source in values.sources(binding):
            step = old.steps.get(source.node)
            made = [] if step is None else [step, *(step.mapped.items.values() if step.mapped is not None else ())]
            read += [value for one in made for value in one.outputs.values()]
        if any(cache_key.has_project_types(value) for value in read):
            return "the source changed, and an input contains objects of project classes"
    return None


def _defined_otherwise(old: Plan, new: Plan, key: str, changes: Changes) -> str | None:
    was, now = old.specs[key], new.specs[key]
    if any(getattr(was, name) != getattr(now, name) for name in _CODE):
        return "its code or its environment changed"
    if now.kind is Kind.FUNCTION and (now.environment or "") in changes.environments:
        return "the packages of the environment changed"
    if now.kind is Kind.FUNCTION and changes.source and (now.dynamic_code or not now.code):
        return "the source changed, and which part of it the step uses is unknown"
    if _shape(was, old.nodes[key]) != _shape(now, new.nodes[key]):
        return "its inputs, its outputs or its condition changed"
    return None


def _shape(spec: StepSpec, node: Node) -> tuple[object, ...]:
    mapped = (node.mapped.over, node.mapped.mode, node.mapped.min_success) if node.mapped is not None else None
    ports = tuple(port.name for port in spec.outputs)
    return node.inputs, node.after, node.when, node.rule, node.phase, mapped, ports


def _is_named(plan: Plan, key: str, name: str) -> bool:
    node = plan.nodes[key]
    if name in (key, plan.specs[key].name) or key.startswith(f"{name}/"):
        return True
    return node.mapped is not None and item_of(name)[0] == key


def _params(node: Node) -> Iterator[str]:
    for binding in _bindings(node):
        yield from values.params(binding)


def _bindings(node: Node) -> Iterator[Binding]:
    yield from node.inputs.values()
    if node.when is not None:
        yield from conditions.bindings(node.when)


def _in_order(plan: Plan) -> Iterator[str]:
    """Return the keys in topological order: the pipeline may have them in any order."""
    waiting = {key: len(upstream) for key, upstream in plan.dependencies.items()}
    free = [key for key, count in waiting.items() if not count]
    for key in free:  # grows during the loop
        for other in plan.dependents[key]:
            waiting[other] -= 1
            if not waiting[other]:
                free.append(other)
    yield from free


# ------------------------------------------------------------------------------------------------------------- results


def _read_by_scheduler(plan: Plan) -> dict[str, frozenset[str]]:
    """Return, by step, the outputs that the scheduler reads: for conditions, mapped lists and waits."""
    asked: list[Binding] = []
    for key, node in plan.nodes.items():
        asked += conditions.bindings(node.when) if node.when is not None else ()
        over = node.mapped.over if node.mapped is not None else ()
        waits = plan.specs[key].kind is not Kind.FUNCTION
        for name, binding in node.inputs.items():
            # To map over a mapped step, its count is enough.
            counted = isinstance(binding, values.Output) and plan.nodes[binding.node].mapped is not None
            if (name in over and not counted) or (name not in over and waits):
                asked.append(binding)
    return _by_step(asked)


def _by_step(bindings: Iterable[Binding]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for binding in bindings:
        for source in values.sources(binding):
            found.setdefault(source.node, set()).add(source.output)
    return {key: frozenset(outputs) for key, outputs in found.items()}


@dataclass(frozen=True, slots=True)
class _ResultReuse:
    """Makes the facts about one step. `read` are the outputs that the scheduler reads, `copied` those and the run's."""

    old: RunState
    run_id: str
    read: frozenset[str]
    copied: frozenset[str]
    lost: Collection[str]

    def reuse_obstacle(self, step: StepState | None) -> str | None:
        """Return why a step has no result that can be reused completely; None if it has one, or does not run at all."""
        if step is None:
            return "the earlier run has no such step"
        if step.status is Status.SKIPPED and step.expected:
            return None  # its dependencies are unchanged, so it is skipped again
        if step.status not in SUCCESSFUL_STATUSES:
            return _ENDED.get(step.status, "it had not finished in the earlier run")
        if self._is_lost(step) or (step.mapped and any(self._is_lost(item) for item in step.mapped.items.values())):
            return "an artifact of its result is no longer in the store"
        if step.from_run and any(_is_named_only(step.outputs.get(name)) for name in self.read):
            return "the scheduler must read its result, which the earlier run has as a reference only"
        return None

    def whole(self, step: StepState) -> StepReused:
        """Return the fact about a step."""
        if step.mapped is None or step.mapped.source:
            return self._fact(step, None if step.mapped is None else step.mapped.count)
        names = [port.name for port in self.old.plan.specs[step.node].outputs]
        return StepReused(
            run_id=self.run_id,
            key=step.key,
            from_run=self.old.run_id,
            outputs={name: self._list(step, step.mapped, name) for name in names},
            count=step.mapped.count,
        )

    def items(self, step: StepState, but: Collection[int]) -> list[StepReused]:
        """Return the facts about the items of a mapped step that have results."""
        if step.mapped is None or step.mapped.source:
            return []
        good = [
            item
            for index, item in sorted(step.mapped.items.items())
            if index not in but and item.status in SUCCESSFUL_STATUSES
        ]
        return [self._fact(item, None) for item in good if not self._is_lost(item)]

    def _fact(self, step: StepState, count: int | None) -> StepReused:
        return StepReused(
            run_id=self.run_id,
            key=step.key,
            from_run=step.from_run or self.old.run_id,
            outputs=self._outputs(step),
            count=count,
            metrics=step.metrics,
            non_finite=step.non_finite,
            params=step.params,
            tags=step.tags,
            artifacts={name: values.with_run_id(value, self.old.run_id) for name, value in step.artifacts.items()},
        )

    def _list(self, step: StepState, mapped: MappedState, name: str) -> Value:
        limit = values.REQUEST_LIMIT if name in self.copied else values.INLINE_LIMIT
        if mapped.count <= value_resolution.COLLECTED_FROM and mapped.weight <= limit:
            items = (value_resolution.item_result(self.old, step, index, name) for index in range(mapped.count))
            return values.Items(tuple(values.with_run_id(item, self.old.run_id) for item in items))
        return values.Collected(
            values.CollectedRef(key=step.key, count=mapped.count, output=name, run_id=self.old.run_id)
        )

    def _outputs(self, step: StepState) -> dict[str, Value]:
        # Results of items are dropped from memory if there are many.
        names = dict.fromkeys([*step.outputs, *(port.name for port in self.old.plan.specs[step.node].outputs)])
        return {name: self._value(step, name) for name in names}

    def _value(self, step: StepState, name: str) -> Value:
        value = step.outputs.get(name)
        named = values.ResultOf(
            values.ResultRef(key=step.key, attempt=step.attempt, output=name, run_id=self.old.run_id)
        )
        if value is None:
            return named if step.attempt else values.Inline(None)
        large = values.weight(value) > COPY_LIMIT and not isinstance(value, values.Stored)
        if large and step.attempt and name not in self.copied:
            return named
        return values.with_run_id(value, self.old.run_id)

    def _is_lost(self, step: StepState) -> bool:
        return any(
            digest in self.lost
            for value in (*step.outputs.values(), *step.artifacts.values())
            for digest in values.artifacts(value)
        )


def _is_named_only(value: Value | None) -> bool:
    match value:
        case values.ResultOf() | values.Collected() | values.Element():
            return True
        case None:
            return False
        case _:
            return any(map(_is_named_only, values.components(value)))
