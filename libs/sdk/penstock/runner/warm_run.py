"""One run in a warm worker: the platform's own state machine, all steps in this process.

In: a `RunRequested`. Out: its outputs, and the facts of the run as a scheduler and an executor would have written them.
Nothing that the user's code raises leaves this module.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock import codec, hints, serialize
from penstock.hints import batches, streams, value_check
from penstock.runner import attempt, seeds
from penstock.runner.recorder import LastValues
from penstock.runner.warm_channel import Items, StreamCancelledError
from penstock.runner.warm_values import LoadedArtifacts, WarmValues, artifacts_of
from penstock.serialize.live_objects import NOTHING
from penstock.step_context import contexts
from penstock.step_context.contexts import Context, MemorySink
from penstock.step_context.events import SentEvent
from penstock.step_context.models import ModelRegistration
from penstock_core import plain_data
from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    ErrorInfo,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
)
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.streams import streamed_node
from penstock_core.pipeline.values import Param, Stored, Value
from penstock_core.run.machine import Plan, RunState, decide, evolve

MAX_DELAY = 0.05
"""Longest delay before a retry, in seconds: a request waits for it."""

POOL = "low-latency"
"""Pool of the recorded attempts."""

KEPT = 8 * 1024 * 1024
"""Bytes of the items of a stream up to which their list is recorded as the output of the run."""

Json = dict[str, Any]


class Program:
    """The loaded pipeline: its plan, the functions of its steps, and the artifacts that were used last."""

    def __init__(self, pipeline: Pipeline, artifacts: LoadedArtifacts, executor: str) -> None:
        self.plan = Plan(pipeline)
        self.artifacts = artifacts
        self.executor = executor
        self.streamed = streamed_node(pipeline)
        self.steps = {name: attempt.resolve(spec.entrypoint) for name, spec in pipeline.steps.items()}

    def batch(self, key: str) -> int:
        """Return how many attempts of a step, or item, can be one call of its function; 0 if it takes one only."""
        batch = self.plan.specs[self._node(key)].batch
        return batch.max if batch is not None else 0

    def _node(self, key: str) -> str:
        return key if key in self.plan.nodes else key.rpartition("[")[0]

    def run_all(self, runs: Sequence[WarmRun]) -> None:
        """Run several runs to their ends; attempts of steps with the option `batch` are called together."""
        together = [Attempt(run, request) for run in runs for request in run.advance()]
        while together:
            groups: dict[str, list[Attempt]] = {}
            for one in together:
                groups.setdefault(self.plan.specs[self._node(one.request.key)].name, []).append(one)
            for group in groups.values():
                most = self.batch(group[0].request.key)
                for start in range(0, len(group), most):
                    self.perform(group[start : start + most])
            again = dict.fromkeys(one.run for one in together)
            together = [Attempt(run, request) for run in again for request in run.advance()]

    def perform(self, attempts: Sequence[Attempt]) -> None:
        """Call the function of a step for attempts; those with other values of shared inputs are called separately."""
        step = self.steps[self.plan.specs[self._node(attempts[0].request.key)].name]
        lists: frozenset[str] = getattr(step, "batched", frozenset())
        calls: list[tuple[list[Attempt], list[dict[str, Any]], Any]] = []
        for one in attempts:
            try:
                given = one.run.inputs(one.request, step)
            except BaseException as error:
                one.run.close(one.request, _Raised(error), step, _Sink(one.request.key, self.artifacts), time.time())
                continue
            shared = {name: value for name, value in given.items() if name not in lists}
            same = next((call for call in calls if lists and _equal(call[2], shared)), None)
            if same is None:
                calls.append(([one], [given], shared))
            else:
                same[0].append(one)
                same[1].append(given)
        for group, several, _ in calls:
            self._call(step, lists, group, several)

    def _call(self, step: Any, lists: frozenset[str], group: list[Attempt], several: list[dict[str, Any]]) -> None:
        first = group[0].request
        sink = _Sink(first.key, self.artifacts)
        if first.not_before is not None:
            time.sleep(max(0.0, min(first.not_before - time.time(), MAX_DELAY)))
        contexts.set_context(
            Context(
                run_id=first.run_id,
                step=first.key,
                attempt=first.attempt,
                pipeline=first.pipeline,
                project=first.project,
                sink=sink,
                seed=first.seed,
            )
        )
        started = time.time()
        results: list[Any]
        try:
            if first.seed is not None:
                seeds.refresh(contexts.context().seed)
            function = getattr(step, "function", step)
            found = function(**batches.arguments(several, lists)) if lists else function(**several[0])
            if inspect.iscoroutine(found):
                found = asyncio.run(found)
            if getattr(step, "is_stream", False):
                found = group[0].run.collect(first, found, step)
            results = batches.results(found, len(group), f"step {first.key!r}") if lists else [found]
        except BaseException as error:
            if len(group) > 1:  # so that an input which the function refuses harms no other request
                for one, given in zip(group, several, strict=True):
                    self._call(step, lists, [one], [given])
                return
            results = [_Raised(error)]
        finally:
            contexts.set_context(None)
        for one, result in zip(group, results, strict=True):
            one.run.close(one.request, result, step, sink, started)

    def preload(self, inputs: Mapping[str, Value]) -> None:
        """Load the artifacts among the inputs that all requests share."""
        for node in self.plan.pipeline.nodes:
            hints = _hints(self.steps[node.step])
            for name, binding in node.inputs.items():
                value = inputs.get(binding.param) if isinstance(binding, Param) else None
                if isinstance(value, Stored):
                    where = f"input {name!r} of step {node.key!r}"
                    self.artifacts.load(value, hints.get(name, Any), where, shared=True)
        self.artifacts.remove_files()


class WarmRun:
    """A run from its request to its end."""

    def __init__(self, program: Program, requested: RunRequested, items: Items | None = None) -> None:
        """A run whose request has arrived; `items` sends the items of a stream to the client, if it wants them."""
        self._program = program
        self._items = items
        self._dropped = False
        self._requested = requested
        self._state = RunState(requested.run_id, program.plan)
        self._facts: list[Fact] = []
        self._results: dict[tuple[str, str], Value] = {}
        self._values = WarmValues(lambda key, output: self._results.get((key, output), NOTHING), program.artifacts)
        self._outputs: dict[str, Json] = {}
        self._fold(requested)

    def advance(self) -> list[AttemptRequested]:
        """Run the steps that can run; return the attempts that may be combined with those of other runs."""
        waiting: list[AttemptRequested] = []
        together: list[AttemptRequested] = []
        while self._state.finished is None:
            decided = decide(self._state)
            for fact in decided:
                self._fold(self._finished(fact) if isinstance(fact, RunFinished) else fact)
                if isinstance(fact, AttemptRequested):
                    (together if self._program.batch(fact.key) else waiting).append(fact)
            if not decided:
                if not waiting:
                    return together
                self._program.perform([Attempt(self, waiting.pop(0))])
        return []

    @property
    def end(self) -> Json:
        """The end of the run, once it has finished."""
        end = self._state.finished
        assert end is not None  # noqa: S101 - asked when it has finished
        return {"outcome": str(end.outcome), "error": end.error, "outputs": self._outputs}

    @property
    def has_artifacts(self) -> bool:
        """Whether an output is an artifact, which is kept for as long as the run."""
        return any(map(artifacts_of, self._outputs.values()))

    def facts(self) -> list[tuple[str, Json]]:
        """Return the facts of the run except its request, each as the end of its subject and its body."""
        found: list[tuple[str, Json]] = []
        for fact in self._facts[1:]:
            body = plain_data.fields(fact)
            tail = fact.tail
            match fact:
                case AttemptRequested():
                    body |= {"inputs": self._values.recorded(fact.inputs), "pool": POOL}
                    tail = f"step.{fact.key}.{fact.attempt}.requested.{POOL}"
                case AttemptFinished(key=key):
                    dropped = self._dropped and key == self._program.streamed
                    body["outputs"] = {} if dropped else self._values.recorded(fact.outputs)
                case RunFinished():
                    body["outputs"] = self._outputs
                case _:
                    pass
            found.append((tail, body))
        return found

    def _fold(self, fact: Fact) -> None:
        self._facts.append(fact)
        self._state = evolve(self._state, fact)
        self._state.outbox.clear()

    def _finished(self, end: RunFinished) -> RunFinished:
        """Save the outputs of the run; one that cannot be saved fails it."""
        outcome, error = end.outcome, end.error
        try:
            self._outputs = (
                {}
                if self._dropped
                else {
                    name: self._values.saved(value, f"output {name!r} of the pipeline")
                    for name, value in end.outputs.items()
                }
            )
        except Exception as problem:
            outcome, error, self._outputs = Outcome.FAILED, f"{type(problem).__name__}: {problem}", {}
        return RunFinished(run_id=end.run_id, outcome=outcome, error=error, finished_at=time.time())

    def inputs(self, request: AttemptRequested, step: Any) -> dict[str, Any]:
        """Return the arguments of an attempt."""
        hints = _hints(step)
        return {
            name: self._values.input(value, hints.get(name, Any), f"input {name!r} of step {request.key!r}")
            for name, value in request.inputs.items()
        }

    def collect(self, request: AttemptRequested, found: Any, step: Any) -> list[Any]:
        """Return all items that the function of a step yields; those of the output are sent as they come.

        Items beyond `KEPT` bytes are sent, and the list is not kept, unless another step needs it.

        Raises:
            TypeError: an item is not as declared, or not JSON.
            ValueError: an item is too large.
            StreamCancelledError: the client has disconnected.
        """
        what = f"step {request.key!r}"
        if self._items is None or request.key != self._program.streamed:
            several = streams.all_of(found, what)
            return asyncio.run(several) if inspect.iscoroutine(several) else several
        items, kept = self._items, list[Any]()
        hint, needed = hints.item(step.outputs["result"]), bool(self._program.plan.dependents[request.key])

        def take(item: Any) -> None:
            where = f"item {items.count} of {what}"
            if (problem := value_check.problem(item, hint)) is not None:
                raise TypeError(f"{where} is declared as {hints.show(hint)}, but {problem}")
            try:
                items.send(codec.encode(item, hint, paths=False))
            except codec.NotJsonError as error:
                raise TypeError(f"{where} is no JSON data, which items of a stream must be: {error}") from error
            self._dropped = self._dropped or (items.sent > KEPT and not needed)
            kept.append(item) if not self._dropped else kept.clear()

        _each(found, what, take)
        return kept

    def close(self, request: AttemptRequested, result: Any, step: Any, sink: _Sink, started: float) -> None:
        """Fold the end of an attempt; `result` is what the function returned, or the exception that it raised."""
        outputs: dict[str, Value] = {}
        outcome, error = Outcome.SUCCEEDED, None
        try:
            if isinstance(result, _Raised):
                raise result.error
            several = step.split(result) if hasattr(step, "split") else {"result": result}
            types: Mapping[str, Any] = getattr(step, "outputs", {})
            outputs = {name: self._values.made(one, types.get(name, Any)) for name, one in several.items()}
            self._results.update({(request.key, name): value for name, value in outputs.items()})
        except StreamCancelledError as cancelled:
            outcome, error = Outcome.CANCELLED, ErrorInfo(type="Cancelled", message=str(cancelled))
        except BaseException as problem:
            outcome = Outcome.FAILED
            error = plain_data.read(ErrorInfo, attempt.describe(problem, None, request.entrypoint))
        finite = sink.finite()
        if self._dropped and self._items is not None and request.key == self._program.streamed:
            sink.tags["stream"] = f"not kept: {self._items.count} items, {self._items.sent} bytes"
        self._fold(
            AttemptFinished(
                run_id=request.run_id,
                key=request.key,
                attempt=request.attempt,
                outcome=outcome,
                outputs=outputs,
                error=error,
                metrics=finite,
                non_finite={name: str(value) for name, value in sink.metrics.items() if name not in finite},
                params=dict(sink.params),
                tags=dict(sink.tags),
                artifacts=dict(sink.stored),
                executor=self._program.executor,
                started_at=started,
                finished_at=time.time(),
            )
        )


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a step in a run."""

    run: WarmRun
    request: AttemptRequested


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a function raised."""

    error: BaseException


class _Sink(MemorySink):
    """Keeps the last values for the end of the attempt; artifacts are stored at once."""

    def __init__(self, key: str, artifacts: LoadedArtifacts) -> None:
        super().__init__()
        self._key = key
        self._loaded = artifacts
        self.stored: dict[str, Any] = LastValues()

    def artifact(self, name: str, value: object) -> None:
        """Store an object."""
        where = f"artifact {name!r} of step {self._key!r}"
        saved = serialize.save(value, Any, self._loaded.store, where=where, unsafe=self._loaded.unsafe)
        self.stored[name] = saved

    def model(self, wanted: ModelRegistration) -> None:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"register_model({wanted.model!r}): an endpoint with mode='low_latency' registers no models")

    def event(self, sent: SentEvent) -> None:
        """Refuse.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"send_event({sent.type!r}): an endpoint with mode='low_latency' sends no events")

    def finite(self) -> dict[str, float]:
        """Return the metrics that JSON can represent."""
        return {name: value for name, value in self.metrics.items() if value - value == 0}


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two calls have the same shared inputs: the same objects, or equal plain values."""
    return one.keys() == other.keys() and all(
        value is other[name] or (type(value) in (int, float, str, bool, type(None)) and value == other[name])
        for name, value in one.items()
    )


def _hints(step: Any) -> Mapping[str, Any]:
    return getattr(step, "hints", {})


def _each(found: Any, what: str, take: Callable[[Any], None]) -> None:
    """Call `take` with each item that a function yields; if it raises, the function is ended at its `yield`.

    Raises:
        TypeError: what the function returned cannot be iterated over.
    """
    several = streams.items(found, what)
    if isinstance(several, AsyncIterator):
        asyncio.run(_each_async(several, take))
        return
    try:
        for item in several:
            take(item)
    finally:
        if inspect.isgenerator(several):
            several.close()


async def _each_async(several: AsyncIterator[Any], take: Callable[[Any], None]) -> None:
    try:
        async for item in several:
            take(item)
    finally:
        if inspect.isasyncgen(several):
            await several.aclose()
