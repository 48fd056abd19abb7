"""Run a traced pipeline in this process: the platform's own state machine, with live objects as values.

`penstock_core.run.machine` decides what runs next, as on the platform, so that mapped steps, conditions, trigger rules,
retries and steps at the end of a run behave the same. Attempts run one at a time, in the order of the pipeline; there
is no clock (no sleeps, no time-outs); and the caller passes answers and events.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock import inputs
from penstock.authoring.local_runs import local_answers
from penstock.authoring.local_runs.local_answers import LocalAnswers
from penstock.authoring.steps import Step
from penstock.authoring.trace.pipeline_tracer import Graph
from penstock.authoring.waits import WaitStep
from penstock.errors import MissingAnswerError, RunFailedError
from penstock.serialize.live_objects import NOTHING, LiveObjects
from penstock.step_context import contexts, seeding
from penstock.step_context.contexts import Context, use_context
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
from penstock_core.pipeline.values import Value
from penstock_core.run.effects import AcquireSlots, AdmitRun
from penstock_core.run.machine import Plan, RunState, decide, evolve

if TYPE_CHECKING:
    from penstock.authoring.trace.drafts import Definition, PipelineDefinition

MAX_DELAY = 0.05
"""Longest delay before a retry, in seconds: the caller waits for it."""

_RUN = "local"


def run(pipeline: PipelineDefinition, graph: Graph, given: Mapping[str, Any], local_answers: LocalAnswers) -> Any:
    """Run a traced pipeline; see `Pipeline.local`."""
    found = inputs.live_inputs(pipeline, given)
    defaults = {name: one.default for name, one in pipeline.signature.inputs.items()}
    ended = _Run(pipeline, graph, local_answers).run_to_end({**defaults, **found})
    return graph.assemble(ended)


class _Run:
    def __init__(self, pipeline: PipelineDefinition, graph: Graph, local_answers: LocalAnswers) -> None:
        self.pipeline = pipeline
        self.local_answers = local_answers
        compiled = pipeline.assemble(graph, lambda name, one: one.spec("local"))
        self.nodes: dict[str, Definition] = {node.key: graph.steps[node.step] for node in compiled.nodes}
        self.position = {node.key: number for number, node in enumerate(compiled.nodes)}
        self.state = RunState(_RUN, Plan(compiled))
        self.results: dict[tuple[str, str], Value] = {}
        self.live = LiveObjects(lambda key, output: self.results.get((key, output), NOTHING))
        self.raised: dict[str, Exception] = {}
        self.contexts: dict[str, Context] = {}
        self.waiting: list[tuple[int, int, int, AttemptRequested | StepSuspended]] = []

    def run_to_end(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Run until the state machine has finished; return the outputs, or raise the error."""
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
                raise AssertionError(
                    f"pipeline {self.pipeline.name!r} has not finished, and no step is ready or waiting"
                )
            if self.waiting and not decided:
                self.fold(self.perform(heapq.heappop(self.waiting)[-1]))
        return self.result_of(self.state.finished)

    def fold(self, fact: Fact) -> None:
        """Fold a fact, and do at once what costs nothing here."""
        self.state = evolve(self.state, fact)
        if isinstance(fact, AttemptRequested | StepSuspended):
            node, index = self.node_and_index(fact.key)
            heapq.heappush(self.waiting, (self.position[node], index, fact.attempt, fact))
        effects, self.state.outbox = self.state.outbox, {}
        for effect in effects:
            if isinstance(effect, AdmitRun):
                self.fold(RunAdmitted(run_id=_RUN))
            elif isinstance(effect, AcquireSlots):
                self.fold(SlotGranted(run_id=_RUN, key=effect.key, attempt=effect.attempt))

    def node_and_index(self, key: str) -> tuple[str, int]:
        """The node and the index of an item's key; index -1 for a step."""
        if key in self.nodes:
            return key, -1
        node, _, number = key.rpartition("[")
        return node, int(number[:-1])

    def perform(self, fact: AttemptRequested | StepSuspended) -> AttemptFinished:
        """The end of an attempt, after it was made."""
        definition = self.nodes[self.node_and_index(fact.key)[0]]
        hints = {name: one.hint for name, one in definition.signature.inputs.items()}
        given = {name: self.live.load(value, hints[name]) for name, value in fact.inputs.items()}
        started = time.time()
        try:
            if isinstance(definition, Step):
                if isinstance(fact, AttemptRequested) and fact.not_before is not None:
                    time.sleep(max(0.0, min(fact.not_before - started, MAX_DELAY)))
                outputs = definition.split(self.call_step(definition, fact, given))
            else:
                assert isinstance(definition, WaitStep)  # noqa: S101 - there is nothing else
                outputs = {"result": local_answers.answer(self.local_answers, fact.key, definition, given)}
        except MissingAnswerError:
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

    def call_step(self, step: Step[..., Any], fact: AttemptRequested | StepSuspended, arguments: dict[str, Any]) -> Any:
        """What the step's function returns."""
        # It logs to where the caller's own context logs, so that tests find it in `context()` afterwards.
        sink = contexts.context().sink
        before = self.contexts.get(fact.key)
        context = (
            before.next_attempt()
            if before
            else Context(
                step=fact.key,
                pipeline=self.pipeline.name,
                sink=sink,
                seed=fact.seed if isinstance(fact, AttemptRequested) else None,
            )
        )
        self.contexts[fact.key] = context
        with use_context(context):
            if context.fixed_seed is not None:
                seeding.seed_libraries(context.seed)
            result = step.call(step.called, arguments)
            return asyncio.run(_wait_for(result)) if inspect.isawaitable(result) else result

    def result_of(self, ended: RunFinished) -> dict[str, Any]:
        """The outputs of the run.

        Raises:
            Exception: what the step raised because of which the run failed, or `RunFailedError` where none raised
            anything.
        """
        if ended.outcome is Outcome.SUCCEEDED:
            return {name: self.live.load(value, Any) for name, value in ended.outputs.items()}
        first = self.state.first_failure
        keys = [key for key in self.raised if first is not None and first in (key, self.node_and_index(key)[0])]
        if keys:
            error = self.raised[keys[0]]
            error.add_note(f"raised in step {keys[0]!r} of pipeline {self.pipeline.name!r}")
            raise error
        raise RunFailedError(_RUN, ended.outcome.value, ended.error)


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _describe(error: BaseException) -> ErrorInfo:
    bases = tuple(cls.__name__ for cls in type(error).__mro__[1:])
    return ErrorInfo(type=type(error).__name__, message=str(error), bases=bases)
