"""Calls of endpoints with mode `low_latency`: handed to the warm workers of an executor, which answers at once.

Executors announce what they serve. A call goes to the newest revision and version that has a ready worker, on the
executor with the fewest calls of this gateway per worker. A call that an executor has not begun is sent to another one;
one that was begun and lost is answered with 503, because steps may have had effects.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pydantic
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.bus import Bus
from penstock_contracts import fact_codec, subjects
from penstock_contracts.commands import Version
from penstock_contracts.warm_calls import CallEnd, CallReply, Refusal, ServedEndpoint, ServedEndpoints
from penstock_core import ids, requests
from penstock_core.deployments.definition import Definition, TrafficShare
from penstock_core.errors import InvalidInputsError, PenstockError, UnavailableError
from penstock_core.facts import Outcome, RunFinished, RunRequested
from penstock_core.pipeline.values import Stored
from penstock_core.registry.facts import ModelRegistered
from penstock_core.requests import Inputs, Options, Target
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.endpoints import input_rules, stored_inputs
from penstock_gateway.errors import RequestTimeoutError, TooManyRequestsError
from penstock_gateway.message_size import check_message_size
from penstock_gateway.project import PROJECT
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.versions.pipeline_versions import PipelineVersions

_SILENCE = 10.0
"""Seconds without an announcement after which an executor counts as gone."""

_BUSY_RETRY = 1.0
_FRESH = 0.5
_MODELS = 1_000

_MIRRORED = 100
"""Requests that shadow versions run at the same time."""

Revisions = Mapping[int, Definition]
"""The definitions of a deployment by revision."""


@dataclass(slots=True, eq=False)
class _Executor:
    """An executor as it announced itself last, and the calls that it has of this gateway."""

    name: str
    at: float = 0.0
    served: list[ServedEndpoint] = field(default_factory=list[ServedEndpoint])
    calls: dict[str, asyncio.Future[CallReply]] = field(default_factory=dict[str, asyncio.Future[CallReply]])


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmCall:
    """A call that was answered, by a version of the pipeline."""

    run_id: str
    version: int
    end: RunFinished


Option = tuple[_Executor, ServedEndpoint]
"""Where a call can go."""


class WarmCalls:
    """See the module."""

    def __init__(
        self, bus: Bus, versions: PipelineVersions, models: Registry, artifacts: Artifacts, log: FilteringBoundLogger
    ) -> None:
        self._bus = bus
        self._versions = versions
        self._models = models
        self._artifacts = artifacts
        self._log = log
        self._inbox = f"_INBOX.calls.{secrets.token_hex(8)}"
        self._executors: dict[str, _Executor] = {}
        self._changed = asyncio.Event()
        self._mirrored: set[asyncio.Task[None]] = set()
        self._models_at: dict[str, tuple[ModelRegistered | PenstockError, float]] = {}
        self._present: set[str] = set()
        self._running: defaultdict[str, int] = defaultdict(int)
        self._numbers = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen to executors."""
        await self._bus.subscribe(subjects.SERVED_ENDPOINTS, self._announced)
        await self._bus.subscribe(f"{self._inbox}.*.*", self._replied)
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stop. Calls that were not answered are refused."""
        if self._task is not None:
            self._task.cancel()
        for name in [*self._executors]:
            self._lose(name, "the gateway stops")

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
            if not self._options(name, revisions):
                raise UnavailableError(f"No executor serves endpoint {name!r}: its log says why") from error
            raise RequestTimeoutError(f"Endpoint {name!r} did not answer within {seconds:g} s") from error
        finally:
            self._running[name] -= 1

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
        run_id = ids.recorded_run_id(time.time_ns() // 1_000_000, os.urandom(10))
        while True:
            while not (options := self._options(name, revisions, role)):
                if role == "shadow":
                    raise UnavailableError(f"no executor serves the shadow version of endpoint {name!r}")
                await self._changed.wait()
            executor, served = _choose(options, revisions, role)
            definition = revisions[served.revision]
            ran = role if served.version == definition.other_versions.get(role) else ""
            run = await self._request(run_id, served, definition, inputs, by, ran)
            reply = await self._send(executor, served, run)
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

    # ------------------------------------------------------------------------------------------------------ executors

    def _options(self, name: str, revisions: Revisions, role: str = "") -> list[Option]:
        found = [
            (executor, served)
            for executor in self._executors.values()
            for served in executor.served
            if served.deployment == name and served.project == PROJECT and served.revision in revisions
        ]
        return _allowed(found, revisions, role)

    async def _announced(self, message: Msg) -> None:
        try:
            found = ServedEndpoints.model_validate_json(message.data)
        except pydantic.ValidationError as error:
            self._log.warning("invalid announcement of an executor", error=str(error))
            return
        executor = self._executors.setdefault(found.executor, _Executor(found.executor))
        executor.at, executor.served = time.monotonic(), found.endpoints
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self) -> None:
        """Refuse the calls of executors that are silent."""
        while True:
            await asyncio.sleep(_SILENCE / 5)
            for name, executor in [*self._executors.items()]:
                if time.monotonic() - executor.at > _SILENCE:
                    self._lose(name, "its executor does not respond")

    def _lose(self, name: str, why: str) -> None:
        for future in self._executors.pop(name).calls.values():
            if not future.done():
                future.set_result(CallReply(refused=Refusal.CRASHED, detail=why))

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
        target = Target(project=PROJECT, pipeline=version.pipeline, version=version.version)
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

    async def _send(self, executor: _Executor, served: ServedEndpoint, run: RunRequested) -> CallReply:
        body = b'{"deployment":"%b","revision":%d,"version":%d,"run":%b}' % (
            served.deployment.encode(),
            served.revision,
            served.version,
            fact_codec.encode(run),
        )
        check_message_size(self._bus, len(body), "pass large inputs as files or artifacts")
        number = str(next(self._numbers))
        reply = f"{self._inbox}.{subjects.lease(executor.name)}.{number}"
        future: asyncio.Future[CallReply] = asyncio.get_running_loop().create_future()
        executor.calls[number] = future
        try:
            await self._bus.client.publish(subjects.calls(executor.name), body, reply=reply)
            return await future
        finally:
            executor.calls.pop(number, None)

    async def _replied(self, message: Msg) -> None:
        _, _, _, holder, number = message.subject.split(".")
        executor = self._executors.get(subjects.lease_holder(holder))
        future = executor.calls.get(number) if executor is not None else None
        if future is None or future.done():
            return
        try:
            future.set_result(CallReply.model_validate_json(message.data))
        except pydantic.ValidationError as error:
            future.set_result(CallReply(refused=Refusal.CRASHED, detail=f"it sent an invalid reply: {error}"))


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
