"""The cost of folding and deciding depends on changes, not on the size of the run (in interpreter steps)."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    CancelRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
)
from penstock_core.pipeline.ir import MapSpec, Node, Pipeline, Port, Retry, StepSpec
from penstock_core.pipeline.values import BoundItems, Inline, Output
from penstock_core.run import decide, machine, transitions
from penstock_testkit.checks.mutants import AFTER, BEFORE, Mutant, alters

R = "r"
RUN = RunRequested(run_id=R, project="p", pipeline="f", version=1)
STEP = StepSpec(
    name="s",
    entrypoint="m:s",
    inputs=(Port(name="x", required=False),),
    outputs=(Port(name="result"),),
    retry=Retry(retries=1),
)


def pipeline(nodes: list[Node]) -> Pipeline:
    return Pipeline(name="f", steps={"s": STEP}, nodes=tuple(nodes))


def chain(length: int) -> Pipeline:
    first = Node(key="n0", step="s")
    return pipeline(
        [first, *(Node(key=f"n{n}", step="s", inputs={"x": Output(f"n{n - 1}")}) for n in range(1, length))]
    )


def mapped(width: int) -> Pipeline:
    """One step, `width` steps that read it, one that reads them all."""
    middle = [Node(key=f"n{n}", step="s", inputs={"x": Output("first")}) for n in range(width)]
    joined = BoundItems(tuple(Output(node.key) for node in middle))
    return pipeline([Node(key="first", step="s"), *middle, Node(key="last", step="s", inputs={"x": joined})])


def end(request: AttemptRequested, outcome: Outcome = Outcome.SUCCEEDED) -> AttemptFinished:
    error = None if outcome is Outcome.SUCCEEDED else ErrorInfo(type="ValueError", message="no")
    return AttemptFinished(
        run_id=R,
        key=request.key,
        attempt=request.attempt,
        outcome=outcome,
        outputs={"result": Inline(1)} if error is None else {},
        error=error,
    )


class Count:
    """Counts the interpreter's steps (bytecode instructions) and the processed facts."""

    def __init__(self, plan: machine.Plan) -> None:
        self._plan = plan
        self.worst = 0
        self.total = 0

    def __call__(self, work: Callable[[], list[Fact]], share: int = 1) -> list[Fact]:
        """Run `work` and count it; `share` is the number of changes it caused."""
        steps = 0

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal steps
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            steps += event == "opcode"
            return trace

        before = sys.gettrace()
        gc.disable()  # a collection would run, and count, the finalizers of objects that other tests left
        sys.settrace(trace)
        try:
            done = work()
        finally:
            sys.settrace(before)
            gc.enable()
        for fact in done:
            if isinstance(fact, RunFinished):
                share += len(self._plan.nodes)  # the end of a run looks at every step, once
            elif isinstance(fact, AttemptRequested):
                share += len(self._plan.dependencies[fact.key])  # a request names every input
        self.worst = max(self.worst, steps // max(share, 1))
        self.total += steps
        return done


def drive(made: Pipeline, finish: Callable[[AttemptRequested], AttemptFinished], *, cancel_at: int = -1) -> Count:
    """Run a pipeline to its end, one fact at a time, with a decision after each; counts each fold and decision."""
    state = machine.RunState(R, machine.Plan(made))
    count = Count(state.plan)
    inbox: list[Fact] = [RUN]
    driver = 0

    def deal_with(fact: Fact) -> list[Fact]:
        return machine.decide(machine.evolve(state, fact))

    def write(facts: list[Fact]) -> list[Fact]:
        for fact in facts:
            machine.evolve(state, fact)
        return machine.decide(state)

    while inbox:
        fact = inbox.pop()
        driver += 1
        changed = len(state.frontier) + len(state.plan.dependents.get(getattr(fact, "key", ""), ())) + 1
        changed += state.open if isinstance(fact, CancelRequested) else 0
        decided = count(lambda fact=fact: deal_with(fact), changed)
        while decided:
            inbox += [finish(item) for item in decided if isinstance(item, AttemptRequested)]
            decided = count(lambda decided=decided: write(decided), len(decided))
        if driver == cancel_at:
            inbox = [CancelRequested(run_id=R)]
    assert state.finished is not None
    return count


def fail_half(request: AttemptRequested) -> AttemptFinished:
    return end(
        request, Outcome.FAILED if request.attempt == 1 and request.key.endswith(("1", "3")) else Outcome.SUCCEEDED
    )


SHAPES: dict[str, Callable[[int], Count]] = {
    "a chain": lambda size: drive(chain(size), end),
    "a fan": lambda size: drive(mapped(size), end),
    "a chain with retries": lambda size: drive(chain(size), fail_half),
    "a fan with retries": lambda size: drive(mapped(size), fail_half),
    "a chain that fails at the start": lambda size: drive(chain(size), lambda r: end(r, Outcome.FAILED)),
    "a fan that fails everywhere": lambda size: drive(
        mapped(size), lambda r: end(r, Outcome.SUCCEEDED if r.key == "first" else Outcome.FAILED)
    ),
    "a chain that is cancelled": lambda size: drive(chain(size), end, cancel_at=size // 2),
    "a fan that is cancelled": lambda size: drive(mapped(size), end, cancel_at=size // 2),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_cost_of_a_fact_does_not_grow_with_the_run(shape: str) -> None:
    small, large = SHAPES[shape](40), SHAPES[shape](400)
    assert large.worst <= small.worst * 1.3 + 50, "one fact costs more in a larger run"
    assert large.total <= small.total * 10 * 1.15, "ten times the steps cost more than ten times as much"


@alters(decide.decide)
def deciding_looks_at_every_step(state):
    with BEFORE:
        state.open == 0
    with AFTER:
        all(step.waiting_on == 0 for step in state.steps.values())


@alters(transitions._end_step)
def an_end_looks_at_every_step(state):
    with BEFORE:
        state.open -= 1
    with AFTER:
        state.open -= sum(1 for step in state.steps.values()) * 0 + 1


@alters(transitions._end_item)
def an_end_looks_at_every_item(mapped):
    with BEFORE:
        mapped.done += 1
    with AFTER:
        mapped.done += sum(1 for _ in mapped.items) * 0 + 1


@pytest.mark.parametrize("mutant", [deciding_looks_at_every_step, an_end_looks_at_every_step], ids=lambda one: one.name)
def test_a_scan_of_all_steps_is_detected(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "machine", mutant.module())
    with pytest.raises(AssertionError, match=r"costs? more"):
        test_the_cost_of_a_fact_does_not_grow_with_the_run("a chain")


def calls(work: Callable[[], object]) -> int:
    """The number of function calls that some work makes."""
    made = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    gc.disable()  # a collection would run, and count, the finalizers of objects that other tests left
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return made


def mapped_node(items: int) -> Pipeline:
    """A step that is mapped over a list, in a window that does not grow with it, and one that reads all results."""
    each = Node(key="each", step="s", inputs={"x": Inline(list(range(items)))}, mapped=MapSpec(over=("x",), window=64))
    return pipeline([each, Node(key="last", step="s", inputs={"x": Output("each")})])


def whole(made: Pipeline, finish: Callable[[AttemptRequested], AttemptFinished] = end) -> None:
    state = machine.RunState(R, machine.Plan(made))
    ends: list[Fact] = [RUN]
    while ends:
        state = machine.evolve(state, ends.pop())
        while decided := machine.decide(state):
            for fact in decided:
                state = machine.evolve(state, fact)
                if isinstance(fact, AttemptRequested):
                    ends.append(finish(fact))
    assert state.finished is not None


@pytest.mark.parametrize("shape", [chain, mapped])
def test_calls_per_step_are_constant_up_to_thousands_of_steps(shape: Callable[[int], Pipeline]) -> None:
    small, large = shape(100), shape(4_000)
    each = calls(lambda: whole(small)) / len(small.nodes)
    assert calls(lambda: whole(large)) / len(large.nodes) <= each * 1.05 + 1


def fail_tenth(request: AttemptRequested) -> AttemptFinished:
    return end(request, Outcome.FAILED if request.attempt == 1 and request.key.endswith("7]") else Outcome.SUCCEEDED)


@pytest.mark.parametrize("finish", [end, fail_tenth], ids=["all succeed", "some are tried again"])
def test_calls_per_item_are_constant_up_to_five_thousand_items(
    finish: Callable[[AttemptRequested], AttemptFinished],
) -> None:
    each = calls(lambda: whole(mapped_node(500), finish)) / 500
    assert calls(lambda: whole(mapped_node(5_000), finish)) / 5_000 <= each * 1.05 + 1, "an item costs more among many"


def test_a_scan_of_all_items_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "machine", an_end_looks_at_every_item.module())
    each = calls(lambda: whole(mapped_node(100))) / 100
    assert calls(lambda: whole(mapped_node(400))) / 400 > each * 1.05 + 1
