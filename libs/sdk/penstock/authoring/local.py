"""Runs a traced pipeline in this process: the platform's own state machine, with live objects in the place of values.

What is done next is decided by `penstock_core.run`, as on the platform, so mapped steps, conditions, rules, retries
and what runs at the end do the same here. Here there is one attempt at a time, in the order of the pipeline; no clock
(nothing waits, no time limit is applied); and answers and events come from the caller.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock import contexts, inputs
from penstock.authoring import answers
from penstock.authoring.answers import Answers
from penstock.authoring.live import NOTHING, Live
from penstock.authoring.steps import Step
from penstock.authoring.tracing import Graph
from penstock.authoring.waits import Waiting
from penstock.client_errors import RunFailed
from penstock.contexts import Context, using
from penstock_core.effects import Acquire, Admit
from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
    StepSuspended,
)
from penstock_core.run import Plan, RunState, decide, evolve
from penstock_core.values import Value

if TYPE_CHECKING:
    from penstock.authoring.drafts import Definition
    from penstock.authoring.pipelines import Pipeline

MAX_DELAY = 0.05
"""Longest wait in seconds before a retry: whoever runs locally waits in front of it."""

_RUN = "local"


def run(pipeline: Pipeline, graph: Graph, given: Mapping[str, Any], answered: Answers) -> Any:
    """Run a traced pipeline; see `Pipeline.local`."""
    found = inputs.live_inputs(pipeline, given)
    defaults = {name: one.default for name, one in pipeline.signature.inputs.items()}
    ended = _Run(pipeline, graph, answered).to_its_end({**defaults, **found})
    return graph.assemble(ended)


class _Run:
    def __init__(self, pipeline: Pipeline, graph: Graph, answered: Answers) -> None:
        self.pipeline = pipeline
        self.answered = answered
        compiled = pipeline.assemble(graph, lambda name, one: one.spec("local"))
        self.nodes: dict[str, Definition] = {node.key: graph.steps[node.step] for node in compiled.nodes}
        self.position = {node.key: number for number, node in enumerate(compiled.nodes)}
        self.state = RunState(_RUN, Plan(compiled))
        self.results: dict[tuple[str, str], Value] = {}
        self.live = Live(lambda key, output: self.results.get((key, output), NOTHING))
        self.raised: dict[str, Exception] = {}
        self.contexts: dict[str, Context] = {}
        self.waiting: list[tuple[int, int, int, AttemptRequested | StepSuspended]] = []

    def to_its_end(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Do all that the state machine asks for; gives the outputs, or raises what went wrong."""
        self.fold(
            RunRequested(
                run_id=_RUN,
                project="local",
                pipeline=self.pipeline.name,
                version=1,
                inputs={name: self.live.value(one) for name, one in given.items()},
                requested_at=time.time(),
            )
        )
        while self.state.finished is None:
            decided = decide(self.state)
            for fact in decided:
                self.fold(fact)
            if not decided and not self.waiting:
                raise AssertionError(f"pipeline {self.pipeline.name!r} waits for nothing and is not over")
            if self.waiting and not decided:
                self.fold(self.done(heapq.heappop(self.waiting)[-1]))
        return self.concluded(self.state.finished)

    def fold(self, fact: Fact) -> None:
        """Fold a fact, and do at once what costs nothing here."""
        self.state = evolve(self.state, fact)
        if isinstance(fact, AttemptRequested | StepSuspended):
            node, index = self.place(fact.key)
            heapq.heappush(self.waiting, (self.position[node], index, fact.attempt, fact))
        effects, self.state.outbox = self.state.outbox, {}
        for effect in effects:
            if isinstance(effect, Admit):
                self.fold(RunAdmitted(run_id=_RUN))
            elif isinstance(effect, Acquire):
                self.fold(SlotGranted(run_id=_RUN, key=effect.key, attempt=effect.attempt))

    def place(self, key: str) -> tuple[str, int]:
        """The node and the index of an item's key; index -1 for a step."""
        if key in self.nodes:
            return key, -1
        node, _, number = key.rpartition("[")
        return node, int(number[:-1])

    def done(self, fact: AttemptRequested | StepSuspended) -> AttemptFinished:
        """The end of an attempt, after it was made."""
        definition = self.nodes[self.place(fact.key)[0]]
        hints = {name: one.hint for name, one in definition.signature.inputs.items()}
        given = {name: self.live.load(value, hints[name]) for name, value in fact.inputs.items()}
        started = time.time()
        try:
            if isinstance(definition, Step):
                if isinstance(fact, AttemptRequested) and fact.not_before is not None:
                    time.sleep(max(0.0, min(fact.not_before - started, MAX_DELAY)))
                outputs = definition.split(self.called(definition, fact, given))
            else:
                assert isinstance(definition, Waiting)  # noqa: S101 - there is nothing else
                outputs = {"result": answers.answer(self.answered, fact.key, definition, given)}
        except answers.Unanswered:
            raise
        except Exception as error:
            self.raised[fact.key] = error
            return self.ended(fact, started, Outcome.FAILED, error=_describe(error))
        made = {name: self.live.value(one) for name, one in outputs.items()}
        self.results.update({(fact.key, name): value for name, value in made.items()})
        return self.ended(fact, started, Outcome.SUCCEEDED, outputs=made)

    def ended(
        self, fact: AttemptRequested | StepSuspended, started: float, outcome: Outcome, **more: Any
    ) -> AttemptFinished:
        return AttemptFinished(
            run_id=_RUN,
            key=fact.key,
            attempt=fact.attempt,
            outcome=outcome,
            executor=_RUN,
            started_at=started,
            finished_at=time.time(),
            **more,
        )

    def called(self, step: Step[..., Any], fact: AttemptRequested | StepSuspended, arguments: dict[str, Any]) -> Any:
        """What the step's function returns."""
        # It logs to where the caller's own context logs, so that tests find it in `context()` afterwards.
        sink = contexts.context().sink
        before = self.contexts.get(fact.key)
        context = before.again() if before else Context(step=fact.key, pipeline=self.pipeline.name, sink=sink)
        self.contexts[fact.key] = context
        with using(context):
            result = step.function(**arguments)
            return asyncio.run(_wait_for(result)) if inspect.isawaitable(result) else result

    def concluded(self, ended: RunFinished) -> dict[str, Any]:
        """The outputs of the run.

        Raises:
            Exception: what the step raised because of which the run failed, or `RunFailed` where none raised anything.
        """
        if ended.outcome is Outcome.SUCCEEDED:
            return {name: self.live.load(value, Any) for name, value in ended.outputs.items()}
        first = self.state.first_failure
        keys = [key for key in self.raised if first is not None and first in (key, self.place(key)[0])]
        if keys:
            error = self.raised[keys[0]]
            error.add_note(f"raised in step {keys[0]!r} of pipeline {self.pipeline.name!r}")
            raise error
        raise RunFailed(_RUN, ended.outcome.value, ended.error)


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _describe(error: BaseException) -> ErrorInfo:
    bases = tuple(cls.__name__ for cls in type(error).__mro__[1:])
    return ErrorInfo(type=type(error).__name__, message=str(error), bases=bases)
