"""Calls of endpoints: a request becomes an event, whose decision starts a run, whose output is the answer.

The gateway checks the request and stores the event. The triggers service decides and requests the run, as for every
event. So a stored request has one run, also if this gateway is killed: the request can be repeated with its
idempotency key, and its run can be read at its status address.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import event_codec, subjects
from penstock_contracts.commands import Version
from penstock_contracts.event_codec import InvalidEventError
from penstock_core import ids
from penstock_core.deployments.decisions import EventDecided, Outcome
from penstock_core.deployments.definition import ENDPOINT_CALLED, Definition, EndpointTrigger, Mode, event_subject
from penstock_core.deployments.events import REQUEST_ID, Event, event_digest
from penstock_core.deployments.state import Deployment
from penstock_core.errors import InputError, InvalidInputsError
from penstock_core.facts import RunFinished, RunRequested
from penstock_core.frozen import frozen
from penstock_core.requests import Options
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.endpoints import input_rules, stored_inputs
from penstock_gateway.endpoints.call_tracker import CallTracker
from penstock_gateway.errors import ConflictError, NotFoundError, TooManyRequestsError, UnprocessableError
from penstock_gateway.rate_limit import TokenBucket
from penstock_gateway.runs.run_requests import RunRequests
from penstock_gateway.versions.pipeline_versions import PipelineVersions
from penstock_servicekit.owners import Owners

T = TypeVar("T")

FRESH = 0.5
"""Seconds for which a change of a deployment with mode `low_latency` may not be known yet."""

_RECORDING = 2.0
"""Seconds after which the run of a warm worker that is not recorded will not be."""

_REVISIONS = 20
"""Revisions of a deployment whose workers may still run."""

_BUSY_RETRY = 1.0
"""Seconds after which a request that found the queue full may be repeated."""


@frozen(kw_only=True)
class Endpoint:
    """An endpoint as it is now."""

    project: str
    name: str
    deployment: Deployment
    definition: Definition
    trigger: EndpointTrigger
    paused: bool
    owner: str

    def revisions(self) -> dict[int, Definition]:
        """Return the definitions that have an endpoint, by revision: workers of an earlier one may still serve it."""
        return {
            one.revision: one.definition
            for one in self.deployment.snapshots[-_REVISIONS:]
            if one.definition is not None and one.definition.endpoint is not None
        }

    @property
    def key(self) -> tuple[str, str]:
        """Project and name of the deployment."""
        return self.project, self.name

    @property
    def source(self) -> str:
        """The source of its events."""
        return f"penstock/endpoints/{self.name}"


@frozen(kw_only=True)
class Call:
    """A stored request to an endpoint. `end` is the end of its run, None while it has not finished."""

    project: str
    endpoint: str
    event: Event
    run_id: str = ""
    end: RunFinished | None = None

    @property
    def id(self) -> str:
        """Identifies the request."""
        return f"{self.event.sequence}-{self.event.digest}"

    @property
    def trigger(self) -> str:
        """The name of the endpoint's trigger when the request arrived."""
        return self.event.subject.partition("/")[2]

    @property
    def decision_subject(self) -> str:
        """The subject of the decision on it."""
        return f"decisions.{self.project}.{self.endpoint}.{self.event.digest}.{self.trigger}"


class Endpoints:
    """The endpoints of one project. See the module."""

    def __init__(
        self,
        deployments: DeploymentLog,
        versions: PipelineVersions,
        requests: RunRequests,
        events: EventStream,
        log: DecisionLog,
        runs: ArchivedLog,
        artifacts: Artifacts,
        tracker: CallTracker,
        closing: asyncio.Event,
        owners: Owners,
        project: str,
    ) -> None:
        self._project = project
        self._artifacts = artifacts
        self._deployments = deployments
        self._versions = versions
        self._requests = requests
        self._events = events
        self._log = log
        self._runs = runs
        self._tracker = tracker
        self._closing = closing
        self._owners = owners
        self._buckets: dict[str, TokenBucket] = {}
        self._recent: dict[str, float] = {}

    async def get(self, name: str) -> Endpoint:
        """Return an endpoint.

        Raises:
            NotFoundError: the deployment does not exist, or has no endpoint.
        """
        return self._endpoint(name, await self._deployments.get(self._project, name))

    def _endpoint(self, name: str, deployment: Deployment) -> Endpoint:
        current = deployment.current
        trigger = current.definition.endpoint if current is not None and current.definition is not None else None
        if current is None or current.definition is None or trigger is None:
            raise NotFoundError(
                f"There is no endpoint {self._project}/{name[:100]}",
                "deployments that have one are those with an Endpoint() among their triggers",
            )
        return Endpoint(
            project=self._project,
            name=name,
            deployment=deployment,
            definition=current.definition,
            trigger=trigger,
            paused=current.paused,
            owner=current.owner,
        )

    async def recent(self, name: str) -> Endpoint:
        """Return an endpoint as it was at most `FRESH` seconds ago, if it has mode `low_latency`, else as it is now.

        Changes by this gateway are known at once.

        Raises:
            NotFoundError: the deployment does not exist, or has no endpoint.
            UnprocessableError: the owner of a deployment with mode `low_latency` may not start runs any more.
        """
        if time.monotonic() - self._recent.get(name, 0.0) < FRESH:
            return self._endpoint(name, self._deployments.known(self._project, name))
        endpoint = await self.get(name)
        self._recent.pop(name, None)
        if endpoint.definition.mode is Mode.LOW_LATENCY:
            try:
                await self._owners.check(endpoint.owner, self._project)
            except InputError as error:
                raise UnprocessableError("The request was rejected", str(error)) from error
            self._recent[name] = time.monotonic()
        return endpoint

    async def version(self, endpoint: Endpoint) -> Version:
        """Return the version that an endpoint runs now.

        Raises:
            NotFoundError: it does not exist, or none is published.
        """
        return await self._versions.get(endpoint.definition.pipeline, endpoint.definition.version)

    async def call(self, endpoint: Endpoint, inputs: dict[str, Any], key: str | None, wait: float, by: str) -> Call:
        """Store a request, and wait for its run for up to `wait` seconds.

        Args:
            endpoint: the endpoint.
            inputs: of the run, which override those of the deployment.
            key: requests with the same idempotency key are one request.
            wait: seconds; 0 returns when the request is stored.
            by: the principal that makes the request.

        Raises:
            InvalidInputsError: the inputs do not fit the pipeline; fields are named by their paths in the body.
            TooManyRequestsError: the endpoint has too many unfinished requests; this one was not stored.
            ConflictError: the key was used for another request.
            UnprocessableError: the request is too large to be stored.
        """
        deadline = time.monotonic() + wait
        earlier = await self._earlier(endpoint, key, by) if key is not None else None
        if earlier is not None:
            self._check_equal(earlier.event, inputs)
            return await self._outcome(earlier, deadline)
        call = Call(project=self._project, endpoint=endpoint.name, event=self._event(endpoint, inputs, key, by))
        repeated = self._tracker.waits(endpoint.key, call.event.digest)
        if not repeated:
            await self._check_queue(endpoint)
        async with self._tracker.watch(call.decision_subject) as decided:
            call, duplicate = await self._store(endpoint, call, counts=not repeated)
            self._check_equal(call.event, inputs)
            if wait > 0 and not duplicate:
                await self._set(decided, deadline)
        return await self._outcome(call, deadline)

    async def _store(self, endpoint: Endpoint, call: Call, *, counts: bool) -> tuple[Call, bool]:
        """Store an admitted request; returns it as it is stored, and whether it was stored before.

        It `counts` from its admission on, so that concurrent requests cannot exceed the limit together; a repeated one
        is counted already.
        """
        digest = call.event.digest
        if counts:
            self._tracker.add(endpoint.key, digest)
        try:
            await self._check(endpoint, call.event.data)
            sequence, duplicate = await self._events.publish(call.event)
        except BaseException:
            if counts:
                self._tracker.drop(endpoint.key, digest)
            raise
        if not duplicate:
            stored = replace(call.event, sequence=sequence, received_at=time.time())
            return replace(call, event=stored), False
        if counts:
            self._tracker.drop(endpoint.key, digest)
        known = await self._events.get(sequence)
        if known is None:
            raise ConflictError("The request was stored before and has expired", "use another idempotency key")
        return replace(call, event=known), True

    async def recorded(self, endpoint: Endpoint, run_id: str, by: str) -> RunFinished:
        """Return the end of a request of the principal `by` that a warm worker ran; waits until it is recorded.

        Raises:
            NotFoundError: there is no such request, or its run is not recorded.
        """
        subjects_ = [subjects.run(run_id, tail) for tail in ("requested", "finished")] if ids.is_name(run_id) else []
        until = time.monotonic() + _RECORDING
        while subjects_:
            found = await self._runs.last(subjects_)
            requested, finished = (found[one].fact if one in found else None for one in subjects_)
            if isinstance(requested, RunRequested) and isinstance(finished, RunFinished):
                called = requested.project, requested.trigger.get("deployment")
                if called != endpoint.key or requested.requested_by != by:
                    break
                return finished
            if time.monotonic() > until:
                break
            await asyncio.sleep(_RECORDING / 10)
        raise NotFoundError(
            f"Endpoint {endpoint.name!r} has no recorded request {run_id[:100]!r}",
            "a request is found by the token that sent it, if its run is recorded",
        )

    async def status(self, endpoint: Endpoint, id: str, wait: float, by: str) -> Call:
        """Return a request of the principal `by`, and wait for its run for up to `wait` seconds.

        Raises:
            NotFoundError: there is no such request, or it has expired.
            ConflictError, UnprocessableError: as `call`, if the request could not become a run.
        """
        sequence, _, digest = id.partition("-")
        event = await self._events.get(int(sequence)) if sequence.isdecimal() and len(sequence) < 16 else None
        known = event is not None and event.digest == digest and event.type == ENDPOINT_CALLED
        known = known and event is not None and event.project == self._project
        mine = event is not None and event.extensions.get("principal") == by
        if event is None or not known or not mine or event.subject.partition("/")[0] != endpoint.name:
            raise NotFoundError(
                f"Endpoint {endpoint.name!r} has no request {id[:100]!r}",
                "a request is found for 30 days, by the token that sent it",
            )
        return await self._outcome(
            Call(project=self._project, endpoint=endpoint.name, event=event), time.monotonic() + wait
        )

    # ----------------------------------------------------------------------------------------------------------- checks

    async def admit_call(self, endpoint: Endpoint, key: str | None, by: str) -> None:
        """Refuse a request before its body is read: nothing of a refused request is stored.

        A repeated request, by its idempotency key, is not refused.

        Raises:
            ConflictError: the deployment is paused.
            TooManyRequestsError: the rate is exceeded, or the endpoint has too many unfinished requests.
        """
        if key is not None:
            digest = event_digest(self._project, endpoint.source, _event_id(key, by))
            if self._tracker.waits(endpoint.key, digest) or await self._earlier(endpoint, key, by) is not None:
                return
        self.admit(endpoint)
        await self._check_queue(endpoint)

    async def _earlier(self, endpoint: Endpoint, key: str, by: str) -> Call | None:
        """Return the stored request of the principal `by` with this key, if there was a decision on it."""
        digest = event_digest(self._project, endpoint.source, _event_id(key, by))
        found = await self._log.decided(self._project, digest, endpoint.name, endpoint.trigger.name)
        event = await self._events.get(found[0].event.sequence) if found else None
        return Call(project=self._project, endpoint=endpoint.name, event=event) if event is not None else None

    def _check_equal(self, event: Event, inputs: dict[str, Any]) -> None:
        if event.data != inputs:
            raise ConflictError(
                "The idempotency key was used for another request", "use a new key for a request with other inputs"
            )

    async def _check_queue(self, endpoint: Endpoint) -> None:
        if await self._tracker.full(endpoint.key, endpoint.trigger.name, endpoint.trigger.queue):
            raise TooManyRequestsError(
                f"Endpoint {endpoint.name!r} has {endpoint.trigger.queue} unfinished requests, which is its limit",
                retry_after=_BUSY_RETRY,
            )

    def admit(self, endpoint: Endpoint) -> None:
        """Refuse a request to a deployment that is paused, or beyond the rate.

        Raises:
            ConflictError: it is paused.
            TooManyRequestsError: the rate is exceeded.
        """
        if endpoint.paused:
            raise ConflictError(
                f"Deployment {endpoint.name!r} is paused",
                f"resume it with `penstock deployments resume {endpoint.name}`",
            )
        trigger, now = endpoint.trigger, time.monotonic()
        bucket = self._buckets.get(endpoint.name)
        if trigger.rate:
            if bucket is None or bucket.rate != trigger.rate:
                bucket = self._buckets[endpoint.name] = TokenBucket.full(trigger.rate, now)
            seconds = bucket.take(now)
            if seconds:
                raise TooManyRequestsError(
                    f"Endpoint {endpoint.name!r} accepts {trigger.rate:g} requests per second", retry_after=seconds
                )

    async def _check(self, endpoint: Endpoint, inputs: dict[str, Any]) -> None:
        """Check what a caller may give, what the triggers service will check, and that the artifacts exist."""
        version = await self.version(endpoint)
        input_rules.check(version.pipeline, inputs)
        given = {**endpoint.definition.inputs, **inputs}
        try:
            run = await self._requests.build("check", version, given, Options(trigger={}))
        except InvalidInputsError as error:
            errors = [(field.removeprefix("inputs."), message) for field, message in error.errors]
            raise InvalidInputsError(f"Invalid request to endpoint {endpoint.name!r}", errors) from error
        await stored_inputs.check(self._artifacts, inputs, run.inputs)

    def _event(self, endpoint: Endpoint, inputs: dict[str, Any], key: str | None, by: str) -> Event:
        attributes = {
            "type": ENDPOINT_CALLED,
            "source": endpoint.source,
            "id": _event_id(key, by) if key else secrets.token_hex(16),
            "subject": event_subject(endpoint.name, endpoint.trigger.name),
            "principal": by,
            **({REQUEST_ID: key} if key else {}),
        }
        try:
            return event_codec.event(self._project, attributes, inputs)
        except InvalidEventError as error:
            raise UnprocessableError("The request cannot be stored", str(error), errors=error.errors) from error

    # ---------------------------------------------------------------------------------------------------------- outcome

    async def _outcome(self, call: Call, deadline: float) -> Call:
        """Return the request with the run and its end, as far as they are known at the deadline.

        Raises:
            ConflictError: the deployment was paused or changed when the request arrived.
            UnprocessableError: the request was rejected.
        """
        decision = await self._await(call.decision_subject, lambda: self._decision(call), deadline)
        if decision is None:
            return call
        if decision.outcome is Outcome.REJECTED:
            raise UnprocessableError("The request was rejected", decision.error)
        run_id = decision.run_id
        end = await self._await(subjects.run(run_id, "finished"), lambda: self._end(run_id), deadline)
        return replace(call, run_id=run_id, end=end)

    async def _decision(self, call: Call) -> EventDecided | None:
        found = await self._log.decided(self._project, call.event.digest, call.endpoint, call.trigger)
        if found:
            return found[0]
        deployment = await self._deployments.get(self._project, call.endpoint)
        then = deployment.at(call.event.received_at)
        if then is not None and (then.paused or then.definition is None or then.definition.endpoint is None):
            raise ConflictError(
                f"Deployment {call.endpoint!r} was paused or changed when the request arrived", "no run was started"
            )
        return None

    async def _end(self, run_id: str) -> RunFinished | None:
        subject = subjects.run(run_id, "finished")
        record = (await self._runs.last([subject])).get(subject)
        return record.fact if record is not None and isinstance(record.fact, RunFinished) else None

    async def _await(self, subject: str, read: Callable[[], Awaitable[T | None]], deadline: float) -> T | None:
        """Return what `read` finds now, or once a message on the subject arrives; None at the deadline."""
        if deadline <= time.monotonic():
            return await read()
        async with self._tracker.watch(subject) as arrived:
            found = await read()
            if found is None and not self._closing.is_set():
                await self._set(arrived, deadline)
                found = await read()
            return found

    async def _set(self, arrived: asyncio.Event, deadline: float) -> None:
        """Wait until an event is set, the gateway stops, or the deadline."""
        tasks = [asyncio.create_task(one.wait()) for one in (arrived, self._closing)]
        try:
            await asyncio.wait(
                tasks, timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in tasks:
                task.cancel()


def _event_id(key: str, by: str) -> str:
    """Return the ID of the event of a request with an idempotency key, which belongs to the principal that sends it."""
    return hashlib.sha256(f"{by}\n{key}".encode()).hexdigest()[:32]
