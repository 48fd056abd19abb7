"""Calls of endpoints with mode `low_latency`: handed to the warm workers of an executor, which answers at once.

Executors announce what they serve. A call goes to the newest revision and version that has a ready worker, on the
executor with the fewest calls of this gateway per worker. A call that an executor has not begun is sent to another one;
one that was begun and lost is answered with 503, because steps may have had effects.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock_contracts.commands import Version
from penstock_contracts.warm_calls import CallEnd, CallReply, Refusal, ServedEndpoint
from penstock_core import ids, requests
from penstock_core.deployments.definition import Definition, TrafficShare
from penstock_core.errors import InvalidInputsError, PenstockError, UnavailableError
from penstock_core.facts import Outcome, RunFinished, RunRequested
from penstock_core.pipeline.values import Stored
from penstock_core.registry.facts import ModelRegistered
from penstock_core.requests import Inputs, Options, Target
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.endpoints import input_rules, stored_inputs
from penstock_gateway.endpoints.warm_executors import WarmExecutor, WarmExecutors
from penstock_gateway.errors import ConflictError, RequestTimeoutError, RunFailedError, TooManyRequestsError
from penstock_gateway.http.sse import HEARTBEAT
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.versions.pipeline_versions import PipelineVersions

_BUSY_RETRY = 1.0
_FRESH = 0.5
_MODELS = 1_000

_MIRRORED = 100
"""Requests that shadow versions run at the same time."""

Revisions = Mapping[int, Definition]
"""The definitions of a deployment by revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmCall:
    """A call that was answered, by a version of the pipeline."""

    run_id: str
    version: int
    end: RunFinished


Option = tuple[WarmExecutor, ServedEndpoint]
"""Where a call can go."""


class WarmCalls:
    """Calls of the endpoints of one project. See the module."""

    def __init__(
        self, executors: WarmExecutors, versions: PipelineVersions, models: Registry, artifacts: Artifacts, project: str
    ) -> None:
        self._executors = executors
        self._versions = versions
        self._models = models
        self._artifacts = artifacts
        self._project = project
        self._mirrored: set[asyncio.Task[None]] = set()
        self._models_at: dict[str, tuple[ModelRegistered | PenstockError, float]] = {}
        self._present: set[str] = set()
        self._running: defaultdict[str, int] = defaultdict(int)

    def admit(self, name: str, queue: int) -> None:
        """Refuse a request if so many are unfinished.

        Raises:
            TooManyRequestsError: the limit is reached.
        """
        if self._running[name] >= queue:
            raise _busy(name, queue)

    async def version(self, name: str, revisions: Revisions) -> Version | None:
        """Return the version that would answer a request now; None if no executor has announced one."""
        options = self._options(name, revisions)
        if not options:
            return None
        served = _choose(options, revisions, "")[1]
        return await self._versions.get(revisions[served.revision].pipeline, served.version)

    @staticmethod
    def new_run_id() -> str:
        """Return the id of a new run."""
        return ids.recorded_run_id(time.time_ns() // 1_000_000, os.urandom(10))

    async def call(self, name: str, revisions: Revisions, inputs: dict[str, Any], seconds: float, by: str) -> WarmCall:
        """Run a request, and return its end.

        Args:
            name: of the deployment.
            revisions: its definitions by revision, with an endpoint.
            inputs: of the run, which override those of the deployment.
            seconds: the time limit, if it is less than that of the endpoint.
            by: the principal that makes the request.

        Raises:
            InvalidInputsError: the inputs do not fit the pipeline.
            TooManyRequestsError: the limit of unfinished requests is reached.
            UnavailableError: no executor serves the endpoint, or the worker died.
            RequestTimeoutError: the time limit has passed.
        """
        definition = revisions[max(revisions)]
        if definition.endpoint is not None:
            seconds = min(seconds, definition.endpoint.wait)
        self._running[name] += 1
        try:
            async with asyncio.timeout(seconds):
                if _selected(definition.shadow):
                    self._mirror(name, revisions, inputs, seconds, by)
                role = "canary" if _selected(definition.canary) else ""
                return await self._call(name, revisions, inputs, by, role)
        except TimeoutError as error:
            raise self._late(name, revisions, seconds) from error
        finally:
            self._running[name] -= 1

    async def stream(
        self, run_id: str, name: str, revisions: Revisions, inputs: dict[str, Any], seconds: float, by: str
    ) -> AsyncGenerator[list[Any] | WarmCall]:
        """Run a request as `call` does, and yield the items of its output as they come, then its end.

        An empty list means that nothing has come for some seconds. If the generator is closed, the call is cancelled.

        Raises:
            RunFailedError, ConflictError: the run has no output; beside the errors of `call`.
        """
        definition = revisions[max(revisions)]
        if definition.endpoint is not None:
            seconds = min(seconds, definition.endpoint.wait)
        deadline = asyncio.get_running_loop().time() + seconds
        self._running[name] += 1
        try:
            if _selected(definition.shadow):
                self._mirror(name, revisions, inputs, seconds, by)
            role = "canary" if _selected(definition.canary) else ""
            end: WarmCall | None = None
            while end is None:
                async with asyncio.timeout_at(deadline):
                    executor, served, run = await self._prepared(run_id, name, revisions, inputs, by, role)
                async with self._executors.stream(executor, served, run) as items:
                    async for part in items.parts(deadline, HEARTBEAT):
                        yield part
                end = self._end(run_id, executor, served, revisions, items.end or CallReply())
            check_end(end.end)
            yield end
        except TimeoutError as error:
            raise self._late(name, revisions, seconds) from error
        finally:
            self._running[name] -= 1

    def _late(self, name: str, revisions: Revisions, seconds: float) -> PenstockError:
        if not self._options(name, revisions):
            return UnavailableError(f"No executor serves endpoint {name!r}: its log says why")
        return RequestTimeoutError(f"Endpoint {name!r} did not answer within {seconds:g} s")

    def _mirror(self, name: str, revisions: Revisions, inputs: dict[str, Any], seconds: float, by: str) -> None:
        """Run a request by the shadow version, too. Its failure changes nothing; under load it is left out."""
        if len(self._mirrored) >= _MIRRORED:
            return

        async def run() -> None:
            with contextlib.suppress(PenstockError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._call(name, revisions, inputs, by, "shadow")

        task = asyncio.create_task(run())
        self._mirrored.add(task)
        task.add_done_callback(self._mirrored.discard)

    async def _call(self, name: str, revisions: Revisions, inputs: dict[str, Any], by: str, role: str) -> WarmCall:
        run_id = self.new_run_id()
        while True:
            executor, served, run = await self._prepared(run_id, name, revisions, inputs, by, role)
            reply = await self._executors.send(executor, served, run)
            if (end := self._end(run_id, executor, served, revisions, reply)) is not None:
                return end

    async def _prepared(
        self, run_id: str, name: str, revisions: Revisions, inputs: dict[str, Any], by: str, role: str
    ) -> tuple[WarmExecutor, ServedEndpoint, RunRequested]:
        """Return where a call goes, and its run; waits until an executor serves the endpoint."""
        while not (options := self._options(name, revisions, role)):
            if role == "shadow":
                raise UnavailableError(f"no executor serves the shadow version of endpoint {name!r}")
            await self._executors.changed.wait()
        executor, served = _choose(options, revisions, role)
        definition = revisions[served.revision]
        ran = role if served.version == definition.other_versions.get(role) else ""
        return executor, served, await self._request(run_id, served, definition, inputs, by, ran)

    def _end(
        self, run_id: str, executor: WarmExecutor, served: ServedEndpoint, revisions: Revisions, reply: CallReply
    ) -> WarmCall | None:
        """Return the end of a call from its reply; None if it is to be sent to another executor."""
        name = served.deployment
        match reply.refused:
            case None if reply.end is not None:
                return WarmCall(run_id=run_id, version=served.version, end=_finished(run_id, reply.end))
            case Refusal.BUSY:
                trigger = revisions[served.revision].endpoint
                raise _busy(name, trigger.queue if trigger is not None else self._running[name])
            case Refusal.CRASHED:
                raise UnavailableError(
                    f"The worker of endpoint {name!r} ended while it ran the request: {reply.detail} (run {run_id})"
                )
            case Refusal.LATE:
                raise TimeoutError
            case Refusal.BROKEN:
                raise UnavailableError(f"The workers of endpoint {name!r} cannot start: {reply.detail}")
            case _:  # not served there any more
                executor.served = [one for one in executor.served if one != served]
                return None

    # ------------------------------------------------------------------------------------------------------ executors

    def _options(self, name: str, revisions: Revisions, role: str = "") -> list[Option]:
        found = [
            (executor, served)
            for executor in self._executors.known.values()
            for served in executor.served
            if served.deployment == name and served.project == self._project and served.revision in revisions
        ]
        return _allowed(found, revisions, role)

    # ---------------------------------------------------------------------------------------------------------- calls

    async def _request(
        self,
        run_id: str,
        served: ServedEndpoint,
        definition: Definition,
        inputs: dict[str, Any],
        by: str,
        role: str,
    ) -> RunRequested:
        name, trigger = served.deployment, definition.endpoint
        version = await self._versions.get(definition.pipeline, served.version)
        input_rules.check(version.pipeline, inputs)
        given = {**definition.inputs, **inputs}
        options = Options(
            trigger={
                "type": "endpoint",
                "deployment": name,
                "trigger": trigger.name if trigger is not None else "",
                "revision": str(served.revision),
                **({"role": role} if role else {}),
            },
            requested_by=by,
            labels=definition.labels,
        )
        target = Target(project=self._project, pipeline=version.pipeline, version=version.version)
        try:
            models = await self._resolved(requests.model_references(version.pipeline.params, given))
            run = requests.build(run_id, target, Inputs(given=given, models=models), options, time.time())
        except InvalidInputsError as error:
            errors = [(path.removeprefix("inputs."), message) for path, message in error.errors]
            raise InvalidInputsError(f"Invalid request to endpoint {name!r}", errors) from error
        if any(
            isinstance(value, Stored) and value.artifact.sha256 not in self._present for value in run.inputs.values()
        ):
            await self._artifacts.check_inputs(run.inputs)
        await stored_inputs.check(self._artifacts, inputs, run.inputs)
        return run

    async def _resolved(self, names: dict[str, str]) -> dict[str, ModelRegistered | PenstockError]:
        """Resolve references to registered models as of at most `_FRESH` seconds ago."""
        if not names:
            return {}
        now = time.monotonic()
        if len(self._models_at) > _MODELS:
            self._models_at.clear()
        old = {
            param: text
            for param, text in names.items()
            if text not in self._models_at or now - self._models_at[text][1] > _FRESH
        }
        if old:
            for param, model in (await self._models.log.resolve(self._models.project, old)).items():
                self._models_at[old[param]] = (model, now)
                if isinstance(model, ModelRegistered):  # a registered model is never deleted
                    self._present.add(model.artifact.sha256)
        return {param: self._models_at[text][0] for param, text in names.items()}


def _allowed(options: Sequence[Option], revisions: Revisions, role: str) -> list[Option]:
    """Return where a call with a role may go: a canary or shadow version runs no other calls, ready or not."""

    def has_role(served: ServedEndpoint) -> bool:
        return revisions[served.revision].other_versions.get(role) == served.version

    if role == "shadow":
        return [one for one in options if has_role(one[1])]
    return [one for one in options if one[1].own or has_role(one[1])]


def _choose(options: Sequence[Option], revisions: Revisions, role: str) -> Option:
    """Return where a call goes: to the newest revision with a ready worker, there to the version for its role."""
    options = [one for one in options if one[1].ready] or options
    revision = max(served.revision for _, served in options)
    options = [one for one in options if one[1].revision == revision]
    found = [one for one in options if role and one[1].version == revisions[revision].other_versions.get(role)]
    found = found or options
    version = max(served.version for _, served in found)
    best = [one for one in found if one[1].version == version]
    return min(best, key=lambda one: len(one[0].calls) / max(1, one[1].ready))


def _selected(share: TrafficShare | None) -> bool:
    return share is not None and random.random() < share.weight  # noqa: S311 - a sample


def check_end(end: RunFinished) -> None:
    """Raise why a run has no output.

    Raises:
        RunFailedError: it failed.
        ConflictError: it was cancelled or skipped.
    """
    match end.outcome:
        case Outcome.SUCCEEDED:
            return
        case Outcome.FAILED:
            raise RunFailedError(f"Run {end.run_id} failed", end.error or "")
        case outcome:
            raise ConflictError(f"Run {end.run_id} was {outcome.value}", end.error or "it has no output")


def _finished(run_id: str, end: CallEnd) -> RunFinished:
    return RunFinished(
        run_id=run_id,
        outcome=Outcome(end.outcome),
        outputs=end.outputs,
        error=end.error,
        finished_at=time.time(),
    )


def _busy(name: str, queue: int) -> TooManyRequestsError:
    return TooManyRequestsError(
        f"Endpoint {name!r} has {queue} unfinished requests, which is its limit", retry_after=_BUSY_RETRY
    )
