"""An index of the log of a run: step and attempt states derived from facts and pipeline, without the state machine.

Unreadable messages appear as their placeholders. Where a function takes `before`, only the facts before that index
count. Values are compared as plain data: lists, dictionaries, what is inline; artifacts stay what they are.
"""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from penstock_core.facts import (
    SUCCESSFUL,
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    CancelRequested,
    ClockReached,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
    StepExpanded,
    StepReused,
    StepSkipped,
    StepSuspended,
)
from penstock_core.pipeline import conditions, values
from penstock_core.pipeline.ir import Node, Phase, Pipeline, Rule, dependencies
from penstock_core.pipeline.values import Binding, Value
from penstock_core.run.retry import MAX_LOSSES
from penstock_testkit.checks.plain_data import artifacts, joined, part


class InvariantError(AssertionError):
    """An invariant is violated."""


NEVER = 1 << 60


class Log:
    """The facts of one run in log order, with indexes. `begun` has the queued, suspended or requested attempts."""

    def __init__(self, pipeline: Pipeline, facts: Sequence[Fact]) -> None:
        self.pipeline = pipeline
        self.nodes = {node.key: node for node in pipeline.nodes}
        self.needs = {node.key: dependencies(node) for node in pipeline.nodes}
        self.facts = facts
        self.requests: dict[str, dict[int, int]] = defaultdict(dict)
        self.begun: dict[str, dict[int, int]] = defaultdict(dict)
        self.granted: dict[str, dict[int, int]] = defaultdict(dict)
        self.started: dict[str, dict[int, int]] = defaultdict(dict)
        self.suspended: dict[str, dict[int, StepSuspended]] = defaultdict(dict)
        self.ends: dict[str, dict[int, tuple[int, AttemptFinished]]] = defaultdict(dict)
        self.skips: dict[str, tuple[int, StepSkipped]] = {}
        self.expanded: dict[str, tuple[int, StepExpanded]] = {}
        self.reused: dict[str, tuple[int, StepReused]] = {}
        self.stops: dict[str, int] = {}
        self.clocks: list[tuple[int, float]] = []
        self.finished: list[tuple[int, RunFinished]] = []
        self.admitted: int | None = None
        self.cancel: int | None = None
        self.run: RunRequested | None = None
        self._items: dict[str, set[str]] = defaultdict(set)
        for index, fact in enumerate(facts):
            self._index(index, fact)

    def _index(self, index: int, fact: Fact) -> None:
        if isinstance(fact, AttemptRequested | AttemptQueued | StepSuspended):
            self.begun[fact.key].setdefault(fact.attempt, index)
        key = getattr(fact, "key", "")
        if key and node_of(self.nodes, key) != key and not isinstance(fact, StepCancelRequested):
            self._items[node_of(self.nodes, key)].add(key)
        self._index_attempt(index, fact)
        match fact:
            case StepSkipped():
                self.skips.setdefault(fact.key, (index, fact))
            case StepExpanded():
                self.expanded.setdefault(fact.key, (index, fact))
            case StepReused():
                self.reused.setdefault(fact.key, (index, fact))
            case StepCancelRequested():
                self.stops.setdefault(fact.key, index)
            case _:
                self._index_run(index, fact)

    def _index_attempt(self, index: int, fact: Fact) -> None:
        match fact:
            case AttemptRequested():
                self.requests[fact.key].setdefault(fact.attempt, index)
            case StepSuspended():
                self.suspended[fact.key].setdefault(fact.attempt, fact)
            case AttemptFinished():
                self.ends[fact.key].setdefault(fact.attempt, (index, fact))
            case SlotGranted():
                self.granted[fact.key].setdefault(fact.attempt, index)
            case AttemptStarted():
                self.started[fact.key].setdefault(fact.attempt, index)
            case _:
                pass

    def _index_run(self, index: int, fact: Fact) -> None:
        match fact:
            case RunFinished():
                self.finished.append((index, fact))
            case CancelRequested():
                self.cancel = index
            case ClockReached():
                self.clocks.append((index, fact.at))
            case RunAdmitted():
                self.admitted = index
            case RunRequested():
                self.run = fact
            case _:
                pass

    # -------------------------------------------------------------------------------------------- ends

    def clock(self, at: float) -> int:
        """Return the index of the first fact at time `at` or later."""
        return next((index for index, time in self.clocks if time >= at), NEVER)

    def deadline(self) -> int:
        """Return the index at which the run's deadline passes."""
        return self.clock(self.run.deadline) if self.run and self.run.deadline is not None else NEVER

    def stopped(self, key: str, before: int = NEVER) -> bool:
        """Whether the run, step or item was cancelled or past its deadline."""
        node = node_of(self.nodes, key)
        whole = self.nodes[node].phase is Phase.MAIN and min(self.deadline(), self.cancel_index()) < before
        return whole or any(self.stops.get(one, NEVER) < before for one in (key, node))

    def cancel_index(self) -> int:
        """Return the index of the run's cancel."""
        return NEVER if self.cancel is None else self.cancel

    def successful_end(self, key: str, before: int = NEVER) -> AttemptFinished | None:
        """Return the end that determines the results of a step or item."""
        for index, end in self.ends[key].values():
            if end.outcome in SUCCESSFUL and end.attempt in self.begun[key] and index < before:
                return end
        return None

    def good(self, key: str, before: int = NEVER) -> bool:
        """Whether a step or item succeeded."""
        if self.reused.get(key, (NEVER,))[0] < before:
            return True
        if not self.is_mapped(key):
            return self.successful_end(key, before) is not None
        count = self.count(key, before)
        if count is None:
            return False
        items = [f"{key}[{n}]" for n in range(count)]
        enough = sum(self.good(item, before) for item in items) >= self.must(key, count)
        return enough and all(self.final(item, before) for item in items) and not self._cut_short(key, items, before)

    def _cut_short(self, key: str, items: Sequence[str], before: int) -> bool:
        """Whether a mapped step with only finished items was stopped early and lost an item by it."""
        if not self.stopped(key, before):
            return False
        lost = [item for item in items if self.cancelled(item, before) and not self.good(item, before)]
        return bool(lost) and self.stopped(key, max(self._finished_index(item, before) for item in items) + 1)

    def cancelled(self, key: str, before: int = NEVER) -> bool:
        """Whether an attempt of a step or item ended as cancelled."""
        ends = self.ends[key].values()
        return any(end.outcome is Outcome.CANCELLED for index, end in ends if index < before)

    def _finished_index(self, key: str, before: int) -> int:
        """Return the index at which a finished step or item became finished."""
        places = [index for index, _ in self.ends[key].values()]
        places += [known[key][0] for known in (self.skips, self.reused) if key in known]
        return min(index for index in places if index < before and self.final(key, index + 1))

    def final(self, key: str, before: int = NEVER) -> bool:
        """Whether a step or item is in a terminal state."""
        if self.skips.get(key, (NEVER,))[0] < before or self.good(key, before):
            return True
        if self.is_mapped(key):
            return self._final_map(key, before)
        if self.cancelled(key, before):
            return True
        ends = {n: end for n, (index, end) in self.ends[key].items() if index < before}
        return bool(ends) and not self.is_retried(key, max(ends))

    def _final_map(self, key: str, before: int) -> bool:
        index, expanded = self.expanded.get(key, (NEVER, None))
        if index >= before or expanded is None or expanded.error is not None:
            return index < before
        known = [item for item in self.items(key) if self.touched(item, before)]
        if not all(self.final(item, before) for item in known):
            return False
        bad = sum(not self.good(item, before) for item in known)
        hopeless = bad > expanded.count - self.must(key, expanded.count)
        return hopeless or self.stopped(key, before) or len(known) >= expanded.count

    def touched(self, key: str, before: int) -> bool:
        """Whether any fact refers to an item."""
        places = [*self.begun[key].values(), *(index for index, _ in self.ends[key].values())]
        places += [known[key][0] for known in (self.skips, self.reused) if key in known]
        return any(index < before for index in places)

    def failed(self, key: str, before: int = NEVER) -> bool:
        """Whether a step or item finished without a result that the pipeline requires."""
        skip = self.skips.get(key)
        # Two replicas may write a fence and a skip; the first one counts.
        fences = [index for index, end in self.ends[key].values() if end.outcome is Outcome.CANCELLED]
        first = min([before, *fences, self.expanded[key][0] if key in self.expanded else before])
        optional = skip is not None and skip[0] < first and skip[1].expected
        return self.final(key, before) and not self.good(key, before) and not optional

    def is_retried(self, key: str, attempt: int) -> bool:
        """Whether the step's policy retries after the end of `attempt`."""
        retry = self.spec(key).retry
        past = [end for n, (_, end) in self.ends[key].items() if n <= attempt]
        last = self.ends[key][attempt][1]
        if last.outcome is Outcome.LOST:
            return sum(end.outcome is Outcome.LOST for end in past) <= MAX_LOSSES
        if last.outcome not in (Outcome.FAILED, Outcome.TIMED_OUT):
            return False
        kinds = {last.error.type, *last.error.bases} if last.error else set[str]()
        wanted = not retry.on or any(kind in retry.on for kind in kinds)
        failures = sum(end.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) for end in past)
        return wanted and failures <= retry.retries

    # ------------------------------------------------------------------------------------------- steps

    def spec(self, key: str) -> Any:
        """Return the specification of the step of a key."""
        return self.pipeline.steps[self.nodes[node_of(self.nodes, key)].step]

    def is_mapped(self, key: str) -> bool:
        """Whether a key belongs to a mapped step."""
        return key in self.nodes and self.nodes[key].mapped is not None

    def items(self, node: str) -> list[str]:
        """Return the items of a mapped step that occur in the log, within its count."""
        count = self.count(node) or 0
        return [item for item in self._items[node] if index_of(item) < count]

    def count(self, node: str, before: int = NEVER) -> int | None:
        """Return the number of items of a mapped step; None if it was not expanded."""
        index, expanded = self.expanded.get(node, (NEVER, None))
        return expanded.count if expanded is not None and index < before and expanded.error is None else None

    def must(self, node: str, count: int) -> int:
        """Return how many items must succeed."""
        mapped = self.nodes[node].mapped
        least = mapped.min_success if mapped is not None else None
        if least is None:
            return count
        return math.ceil(least * count - 1e-9) if isinstance(least, float) and least <= 1 else min(int(least), count)

    def may_run(self, node: Node, before: int = NEVER) -> bool:
        """Whether a node's rule and condition allow it to run, by the facts before `before`."""
        needs = self.needs[node.key]
        if node.phase is not Phase.MAIN:
            rest = [key for key, other in self.nodes.items() if other.phase is Phase.MAIN]
            late = [key for key in needs if self.nodes[key].phase is not Phase.MAIN]
            free = all(self.final(key, before) for key in [*rest, *late])
            free = free and (node.rule is not Rule.ALL_SUCCEEDED or self._has_late_inputs(node, before))
            if node.phase is Phase.ON_FAILURE:
                free = free and any(self.failed(key, before) for key in rest)
        elif node.rule is Rule.ALL_SUCCEEDED:
            asked = conditions.bindings(node.when) if node.when is not None else ()
            bindings: list[Binding] = [*node.inputs.values(), *asked, *map(values.Output, node.after)]
            free = all(self.final(key, before) for key in needs)
            free = free and all(self.there(binding, before) for binding in bindings)
        else:
            free = all(self.final(key, before) for key in needs)
        if node.rule is Rule.ANY_FAILED:
            free = free and any(self.failed(key, before) for key in needs)
        return free and (node.when is None or self.holds(node.when) is True)

    def _has_late_inputs(self, node: Node, before: int) -> bool:
        late = {key for key, other in self.nodes.items() if other.phase is not Phase.MAIN}
        asked = conditions.bindings(node.when) if node.when is not None else ()
        strict = {key for binding in (*node.inputs.values(), *asked) for key in _strict(binding)} | set(node.after)
        return all(self.good(key, before) for key in strict & late)

    def there(self, binding: Binding, before: int) -> bool:
        """Whether the sources of a binding have results; for one-of bindings, at least one source."""
        if isinstance(binding, values.Output):
            return self.good(binding.node, before)
        parts = [self.there(part, before) for part in values.parts(binding)]
        return any(parts) if isinstance(binding, values.OneOf) else all(parts)

    def holds(self, condition: conditions.Condition) -> bool | None:
        """Evaluate a condition; None if it cannot be evaluated."""
        match condition:
            case conditions.Compare(name, left, right):
                one, other = self.expected(left), self.expected(right)
                if artifacts(one) or artifacts(other):
                    return None
                try:
                    return bool(getattr(operator, name)(one, other))
                except TypeError:
                    return None
            case conditions.Truth(binding):
                value = self.expected(binding)
                return None if artifacts(value) else bool(value)
            case conditions.Not(inner):
                held = self.holds(inner)
                return None if held is None else not held
            case conditions.AllOf(several) | conditions.AnyOf(several):
                wanted = isinstance(condition, conditions.AllOf)
                for one in several:
                    held = self.holds(one)
                    if held is not wanted:
                        return held
                return wanted

    # ------------------------------------------------------------------------------------------ values

    def expected(self, binding: Binding) -> Any:
        """Resolve a binding with the results of successful ends; `MISSING` for absent elements."""
        match binding:
            case values.Output(node, output):
                return self.result(node, output)
            case values.Param(name):
                return self.followed(self.run.inputs.get(name)) if self.run else None
            case values.BoundItems(items):
                return [self.expected(item) for item in items]
            case values.BoundLists(lists):
                return joined([self.expected(one) for one in lists])
            case values.BoundFields(fields):
                return {name: self.expected(item) for name, item in fields.items()}
            case values.Pick(of, path):
                return part(self.expected(of), path)
            case values.OneOf(options):
                return self.expected(next((one for one in options if self.there(one, NEVER)), options[0]))
            case values.Ending():
                return binding
            case values.Inline(data):
                return data

    def result(self, key: str, output: str) -> Any:
        """Return the result of a step or item; for a mapped step the list, with None for missing items."""
        if key in self.reused:
            return self.followed(self.reused[key][1].outputs.get(output))
        if not self.is_mapped(key):
            end = self.successful_end(key)
            return self.followed(end.outputs.get(output)) if end else None
        count = self.count(key)
        if count is None or not self.good(key):
            return None
        return [self.result(f"{key}[{n}]", output) for n in range(count)]

    def followed(self, value: Value | None) -> Any:
        """Return a value as plain data, with its references into the log resolved."""
        match value:
            case None:
                return None
            case values.Inline(data):
                return data
            case values.ResultOf(ref):
                end = self.ends[ref.key].get(ref.attempt)
                return self.followed(end[1].outputs.get(ref.output)) if end else None
            case values.Collected(ref) if not ref.run_id:
                return [self.result(f"{ref.key}[{n}]", ref.output) for n in range(ref.count)]
            case values.Items(items):
                return [self.followed(item) for item in items]
            case values.Lists(lists):
                return joined([self.followed(one) for one in lists])
            case values.Fields(fields):
                return {name: self.followed(item) for name, item in fields.items()}
            case values.Element(of, path):
                return part(self.followed(of), path)
            case _:
                return value


def node_of(nodes: dict[str, Node], key: str) -> str:
    """Return the node key of a step or item key."""
    return key if key in nodes else key.rpartition("[")[0]


def index_of(key: str) -> int:
    """Return the index of an item key."""
    return int(key.rpartition("[")[2].rstrip("]"))


def _strict(binding: Binding) -> set[str]:
    if isinstance(binding, values.OneOf):
        return set()
    found = {binding.node} if isinstance(binding, values.Output) else set[str]()
    return found.union(*(_strict(one) for one in values.parts(binding)))
