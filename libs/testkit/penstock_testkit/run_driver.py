"""Drive a run fact by fact, and return what is decided after each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from penstock_core.facts import (
    AttemptFinished,
    CancelRequested,
    ClockReached,
    ErrorInfo,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import MapSpec, Node, Pipeline, Port, Retry, StepSpec
from penstock_core.pipeline.values import Inline
from penstock_core.run import machine
from penstock_core.run.effects import Effect
from penstock_core.run.machine import RunState

R = "r1"
RUN = RunRequested(run_id=R, project="p", pipeline="flow", version=3, inputs={"url": Inline("u")}, priority=5)
CANCEL = CancelRequested(run_id=R, by="ada", reason="wrong data")
OK, FAILED, LOST = Outcome.SUCCEEDED, Outcome.FAILED, Outcome.LOST


def pipeline(*nodes: Node, retry: Retry | None = None, **outputs: values.Binding) -> Pipeline:
    """A pipeline of nodes; each step is defined by its use."""
    steps = {
        node.step: StepSpec(
            name=node.step,
            entrypoint=f"m:{node.step}",
            inputs=tuple(Port(name=name) for name in node.inputs),
            outputs=(Port(name="result"),),
            retry=retry or Retry(),
            pool="gpu" if node.step == "train" else "default",
            priority=2,
            timeout=9.0,
            env={"A": "1"},
            secrets=("key",),
        )
        for node in nodes
    }
    return Pipeline(name="flow", params=(Port(name="url"),), steps=steps, nodes=nodes, outputs=outputs)


def with_options(made: Pipeline, step: str, **options: Any) -> Pipeline:
    """Return the pipeline with changed options of a step."""
    return replace(made, steps={**made.steps, step: replace(made.steps[step], **options)})


def node(key: str, *after: str, **inputs: values.Binding) -> Node:
    """Return a call of the step that its key begins with."""
    return Node(key=key, step=key.partition("-")[0], inputs=inputs, after=after)


def mapped_node(made: Node, *over: str, **options: Any) -> Node:
    """Return the node, mapped over the inputs `over`."""
    return replace(made, mapped=MapSpec(over=over, **options))


def end(key: str, outcome: Outcome = OK, attempt: int = 1, result: Any = None, at: float = 100.0) -> AttemptFinished:
    """The end of an attempt."""
    bad = outcome not in (OK, Outcome.CACHED)
    return AttemptFinished(
        run_id=R,
        key=key,
        attempt=attempt,
        outcome=outcome,
        outputs={} if bad else {"result": Inline(f"{key}!" if result is None else result)},
        error=ErrorInfo(type="ValueError", message="no rows") if bad else None,
        finished_at=at,
    )


def granted(key: str, attempt: int = 1) -> SlotGranted:
    """Return the fact that an attempt acquired its slots."""
    return SlotGranted(run_id=R, key=key, attempt=attempt)


def clock(at: float) -> ClockReached:
    """Return the fact that the clock reached a time."""
    return ClockReached(run_id=R, at=at)


def cancel(key: str) -> StepCancelRequested:
    """Return the cancel of one step or item."""
    return StepCancelRequested(run_id=R, key=key, by="ada", reason="wrong data")


class RunDriver:
    """A run that folds given facts; its decisions count as written at once."""

    def __init__(self, pipeline: Pipeline, *facts: Fact) -> None:
        self.state: RunState = machine.RunState(R, machine.Plan(pipeline))
        self(*facts)

    def __call__(self, *facts: Fact) -> list[str]:
        """Fold facts and all resulting decisions; return the subjects of the decisions."""
        return [fact.tail for fact in self.facts(*facts)]

    def facts(self, *facts: Fact) -> list[Fact]:
        """Fold facts and all resulting decisions; return the decisions."""
        for fact in facts:
            self.state = machine.evolve(self.state, fact)
        said: list[Fact] = []
        while decided := machine.decide(self.state):
            said += decided
            for fact in decided:
                self.state = machine.evolve(self.state, fact)
        return said

    def effects(self) -> list[Effect]:
        """Return the effects since the last call."""
        effects = list(self.state.outbox)
        self.state.outbox.clear()
        return effects

    @property
    def statuses(self) -> dict[str, str]:
        """Return the status of each step."""
        return {key: str(step.status) for key, step in self.state.steps.items()}

    @property
    def finished(self) -> RunFinished:
        """The fact that the run finished."""
        assert self.state.finished is not None, self.statuses
        return self.state.finished
