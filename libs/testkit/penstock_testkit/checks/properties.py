"""Properties of `evolve` and `decide` as functions, for arbitrary facts or for the log of a real run.

Each property takes the machine as an argument, so that mutants can be tested, and raises `InvariantError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock_core.facts import (
    SUCCESSFUL,
    AttemptFinished,
    CancelRequested,
    ClockReached,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
)
from penstock_core.pipeline.ir import Phase, Pipeline, dependencies
from penstock_core.pipeline.values import Inline
from penstock_core.run.machine import RunState
from penstock_core.run.retry import MAX_LOSSES
from penstock_testkit.checks.log_index import InvariantError, node_of
from penstock_testkit.checks.state_machine import Machine, agreed, differences, dump
from penstock_testkit.generators import Choose


def total_and_idempotent(machine: Machine, pipeline: Pipeline, run_id: str, facts: Sequence[Fact]) -> None:
    """Any fact folds in any state without an error, and folding is idempotent."""
    plan = machine.plan(pipeline)
    state = machine.new(run_id, plan)
    for fact in facts:
        state = machine.evolve(state, fact)
        once = dump(state)
        state = machine.evolve(state, fact)
        _same(once, dump(state), f"{fact.tail} again")
        machine.decide(state)


def decide_is_deterministic(machine: Machine, pipeline: Pipeline, run_id: str, facts: Sequence[Fact]) -> None:
    """`decide` changes nothing and is the same for every fold of the same facts, in the same order."""
    plan = machine.plan(pipeline)
    one, other = machine.new(run_id, plan), machine.new(run_id, plan)
    for fact in facts:
        one, other = machine.evolve(one, fact), machine.evolve(other, fact)
        before = dump(one)
        decided = [machine.decide(one), machine.decide(one), machine.decide(other)]
        if decided[0] != decided[1] or decided[0] != decided[2]:
            raise InvariantError(f"after {fact.tail} these are decided: {decided}")
        _same(before, dump(one), f"decide after {fact.tail}")


def redelivery_is_idempotent(machine: Machine, pipeline: Pipeline, run_id: str, facts: Sequence[Fact]) -> None:
    """Any folded fact of a log may be redelivered at any later time."""
    plan = machine.plan(pipeline)
    state = machine.new(run_id, plan)
    for number, fact in enumerate(facts, 1):
        state = machine.evolve(state, fact)
        once = dump(state)
        for earlier in facts[:number]:
            if earlier.append_once:
                state = machine.evolve(state, earlier)
        _same(once, dump(state), f"all before, once more after {fact.tail}")


def order_is_irrelevant(
    machine: Machine, pipeline: Pipeline, run_id: str, facts: Sequence[Fact], choose: Choose
) -> None:
    """A log folds to the same state in every causal order; ends may come before their requests."""
    plan = machine.plan(pipeline)
    shuffled = _another_order(pipeline, facts, choose)
    one, other = machine.fold(run_id, plan, facts), machine.fold(run_id, plan, shuffled)
    cancelled = any(isinstance(fact, CancelRequested) for fact in facts)
    _same(agreed(one, cancelled=cancelled), agreed(other, cancelled=cancelled), "another order")
    if machine.decide(one) or machine.decide(other):
        raise InvariantError("a finished run has something to decide")


def cancel_at_any_time(machine: Machine, pipeline: Pipeline, run_id: str, facts: Sequence[Fact]) -> None:
    """A cancel ends a run at once, even if an unaware replica decides at the same moment."""
    plan = machine.plan(pipeline)
    cancel = CancelRequested(run_id=run_id)
    facts = [fact for fact in facts if fact.append_once and not isinstance(fact, CancelRequested | RunFinished)]
    if any(isinstance(fact, ClockReached) for fact in facts) and pipeline.deadline is not None:
        return  # its deadline may have ended it earlier
    asked = next((n for n, fact in enumerate(facts, 1) if isinstance(fact, RunRequested)), len(facts))
    for number in range(asked, len(facts) + 1):
        known = facts[:number]
        stale = machine.decide(machine.fold(run_id, plan, known))
        aware = machine.decide(machine.fold(run_id, plan, [*known, cancel]))
        for first, second in ((stale, aware), (aware, stale), (stale, list[Fact]())):
            log: dict[str, Fact] = {}
            for fact in (*known, cancel, *first, *second):
                log.setdefault(fact.tail, fact)
            cold = ended(machine, machine.fold(run_id, plan, log.values()), dict(log))
            if all(log.get(fact.tail) is fact for fact in aware):
                warm = machine.fold(run_id, plan, [*known, cancel, *aware])
                warm = ended(machine, warm, dict(log))
                _same(*_as_cancelled(cold, warm), f"a cancel after {number} facts")


def _as_cancelled(one: RunState, other: RunState) -> tuple[dict[str, object], dict[str, object]]:
    """Return what two views of a cancelled run must agree on.

    For a concurrent skip and cancel the first one counts, and the exit handlers depend on it.
    """
    nodes = one.plan.nodes
    late = {key for key, node in nodes.items() if node.phase is not Phase.MAIN}
    crossed = any(one.steps[key].status is not other.steps[key].status for key in nodes.keys() - late)

    def visible(state: RunState) -> dict[str, object]:
        steps = agreed(state, cancelled=True)["steps"]
        return {key: step for key, step in steps.items() if not crossed or node_of(nodes, key) not in late}

    return visible(one), visible(other)


_ROUNDS = 1_000
"""Rounds of decisions after which a cancelled run must have finished: an exit handler may have many items."""


def ended(machine: Machine, state: RunState, log: dict[str, Fact] | None = None) -> RunState:
    """Return the state after all decisions on a cancelled run; only its exit handlers finish normally.

    Raises:
        Violation: the run continues, or repeats a decision in `log`.
    """
    log = {} if log is None else log
    for _ in range(_ROUNDS):
        if state.finished is not None:
            break
        for fact in machine.decide(state):
            if fact.tail in log:
                raise InvariantError(f"{fact.tail} is in the log, and is decided again")
            log[fact.tail] = fact
            state = machine.evolve(state, fact)
        for fact in _answers(state, log, Outcome.SUCCEEDED):
            if state.plan.nodes[node_of(state.plan.nodes, fact.key)].phase is not Phase.MAIN:
                log[fact.tail] = fact
                state = machine.evolve(state, fact)
    if state.finished is None or machine.decide(state):
        raise InvariantError(f"the cancelled run goes on: {dump(state)}")
    return state


def _answers(state: RunState, log: dict[str, Fact], outcome: Outcome) -> list[AttemptFinished | SlotGranted]:
    """Return the next external facts: slots for queued attempts, ends of attempts in flight."""
    made: list[AttemptFinished | SlotGranted] = []
    for owner in state.steps.values():
        for step in (owner, *(owner.mapped.items.values() if owner.mapped is not None else ())):
            place: dict[str, Any] = {"run_id": state.run_id, "key": step.key, "attempt": step.attempt}
            if step.mapped is None and str(step.status) == "queued_for_limit" and step.granted != step.attempt:
                made.append(SlotGranted(**place))
            elif step.mapped is None and str(step.status) in ("queued", "running", "suspended"):
                made.append(AttemptFinished(**place, outcome=outcome))
    return [fact for fact in made if fact.tail not in log]


def losses_are_bounded(machine: Machine, pipeline: Pipeline) -> None:
    """A run whose attempts are all lost finishes, without using its retries."""
    state = machine.new("lost", machine.plan(pipeline))
    request = RunRequested(run_id="lost", project="p", pipeline=pipeline.name, version=1, inputs={"list": Inline([1])})
    for fact in (request, RunAdmitted(run_id="lost")):
        state = machine.evolve(state, fact)
    for _ in range(5_000):
        if state.finished is not None:
            break
        for fact in (*machine.decide(state), *_answers(state, {}, Outcome.LOST)):
            state = machine.evolve(state, fact)
    if state.finished is None:
        raise InvariantError(f"a run that only loses attempts does not end: {dump(state)}")
    for owner in state.steps.values():
        for step in (owner, *(owner.mapped.items.values() if owner.mapped is not None else ())):
            if step.failures or step.losses not in (0, MAX_LOSSES + 1):
                raise InvariantError(f"step {step.key} counts {step.failures} failures and {step.losses} losses")


def _same(one: dict[str, object], other: dict[str, object], what: str) -> None:
    if difference := differences(one, other):
        raise InvariantError(f"{what}: {difference}")


def _another_order(pipeline: Pipeline, facts: Sequence[Fact], choose: Choose) -> list[Fact]:
    """Return a random order of the facts in which every fact follows its causes."""
    left = {fact.tail: fact for fact in facts if fact.append_once}
    causes = {tail: _causes(pipeline, fact, left) & left.keys() for tail, fact in left.items()}
    ordered: list[Fact] = []
    while left:
        free = [tail for tail in left if not causes[tail] & left.keys()]
        ordered.append(left.pop(free[choose(len(free))]))
    return ordered


def _causes(pipeline: Pipeline, fact: Fact, log: dict[str, Fact]) -> set[str]:
    """Return the indexes of the facts that caused this one or that determine its meaning."""
    nodes = {node.key: node for node in pipeline.nodes}
    tails = list(log)
    earlier = tails[: tails.index(fact.tail)]
    # Cancels, the clock and the end are barriers: facts stay before or after them.
    parting = (CancelRequested, StepCancelRequested, ClockReached, RunFinished, RunRequested)
    if isinstance(fact, parting):
        return set(earlier) - ({"cancel"} if isinstance(fact, RunFinished) else set())
    causes = {tail for tail in earlier if isinstance(log[tail], parting)}
    key = getattr(fact, "key", None)
    if key is None:
        return causes
    node = nodes[node_of(nodes, key)]
    own = {tail for tail in earlier if node_of(nodes, getattr(log[tail], "key", "")) == node.key}
    if isinstance(fact, AttemptFinished) and fact.outcome in SUCCESSFUL:
        # An end may precede its request, but not the causes of the request.
        last = f"step.{key}.{fact.attempt - 1}."
        return causes | {tail for tail in own if tail.startswith(last)} | ({f"step.{node.key}.expanded"} & own)
    needs = set(nodes) if node.phase is not Phase.MAIN else set(dependencies(node))
    return causes | own | {tail for tail in earlier if node_of(nodes, getattr(log[tail], "key", "")) in needs}
