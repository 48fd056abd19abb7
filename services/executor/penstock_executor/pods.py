"""Answers the runners in pods: gives out orders and locations, and takes what they report.

In: requests on `pods.{pool}.>`, see `penstock_core.pod_protocol`. Every executor of the pool receives them; only the
one that is responsible for the attempt answers. Nothing that a pod sends is trusted: NATS lets it use the subjects of
its own attempt only, bodies are validated, a pod claims only what was assigned to it, and an attempt reads only objects
that its inputs refer to. Output, metrics and progress are stored from here, not by the runner: with access to their
streams, a header of a message could delete all others, or make the stream drop those of other attempts as duplicates.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
import pydantic
from nats.aio.msg import Msg
from pydantic import BaseModel, ConfigDict, Field

from penstock_adapters.argo.executor import ArgoExecutor
from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import fact_codec, subjects
from penstock_contracts.commands import Complete, IssueCredential, IssuedCredential, Locate
from penstock_core import pod_protocol
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, Outcome
from penstock_core.pipeline import values
from penstock_core.pipeline.values import Value
from penstock_core.secrets.given import GivenSecrets
from penstock_core.shipping.messages import AttemptKey
from penstock_executor import attempt_facts
from penstock_executor.background_tasks import BackgroundTasks
from penstock_executor.pod_platform import PodSupplies
from penstock_executor.service import ExecutorService

_REPORTED = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST)
_AFTER_THE_END = {
    pod_protocol.CLAIM: b'{"refused":"it has ended"}',
    pod_protocol.FINISH: b"{}",
    pod_protocol.PUBLISH: b"{}",
}
"""Answers about attempts whose end is in the log."""

_MOST_ORDERS = 10_000
_OFFER = 1.0
"""Seconds that a worker has to take an attempt."""


class CredentialError(PenstockError):
    """There is no credential of NATS for a runner."""


class _Announcement(BaseModel):
    model_config = ConfigDict(extra="ignore")

    uid: str = Field(pattern=r"^[A-Za-z0-9-]{1,100}$")
    work_class: str = Field(alias="class", max_length=100)
    idle: bool


class _Claim(BaseModel):
    model_config = ConfigDict(extra="ignore")

    runner: str = Field(min_length=1, max_length=400)
    host: str = Field(default="", max_length=300)


class _Output(BaseModel):
    """What a message of an attempt says about itself, for the kinds that have a number."""

    model_config = ConfigDict(extra="ignore")

    run_id: str
    key: str
    attempt: int
    first: int = Field(default=0, ge=0)


Supply = Callable[[AttemptRequested], Awaitable[PodSupplies]]
Give = Callable[[AttemptRequested], Awaitable[GivenSecrets]]


class PodRequests:
    """The answers of one executor.

    Args:
        bus: the connection.
        pool: pool of the executor.
        service: the attempts of the executor.
        executor: its Workflows.
        supply: collects what a pod needs.
        give: resolves the secrets of an attempt.
        unsafe: whether a project's steps may use formats whose loading can run code.
        grace: seconds between SIGTERM and SIGKILL of a step's process.
        lease: seconds for which a pod's sign of life counts.
        warn: writes to the log of the service.
    """

    def __init__(
        self,
        bus: Bus,
        pool: str,
        service: ExecutorService,
        executor: ArgoExecutor,
        supply: Supply,
        give: Give,
        unsafe: Callable[[str], bool],
        grace: float,
        lease: float,
        warn: Callable[..., None],
    ) -> None:
        self._bus = bus
        self._pool = pool
        self._service = service
        self._executor = executor
        self._supply = supply
        self._give = give
        self._unsafe = unsafe
        self._grace = grace
        self._lease = lease
        self._warn = warn
        self._background = BackgroundTasks(warn)
        self._readable: dict[AttemptKey, frozenset[str]] = {}
        self._verbs: dict[str, Callable[[AttemptRequested, Msg], Awaitable[bytes]]] = {
            pod_protocol.PUBLISH: self._publish,
            pod_protocol.LOCATE: self._locate,
            pod_protocol.COMPLETE: self._complete,
            pod_protocol.COMMIT: self._commit,
            pod_protocol.BEAT: self._beat,
            pod_protocol.FINISH: self._finish,
        }

    async def start(self) -> None:
        """Subscribe to the requests."""
        self._executor.offer = self._offer
        self._executor.credential = self._worker_credential
        await self._bus.subscribe(f"pods.{self._pool}.>", self._receive)

    async def _receive(self, message: Msg) -> None:
        match message.subject.split("."):
            case [_, _, pod_protocol.CLAIM, worker, run_id, key, number] if number.isdecimal():
                self._dispatch(message, pod_protocol.CLAIM, (run_id, key, int(number)), partial(self._claim, worker))
            case [_, _, run_id, key, number, verb] if number.isdecimal() and verb in self._verbs:
                self._dispatch(message, verb, (run_id, key, int(number)), self._verbs[verb])
            case [_, _, pod_protocol.WORKER, worker]:
                try:
                    one = _Announcement.model_validate_json(message.data)
                except pydantic.ValidationError:
                    return
                self._executor.announced(one.uid, worker, one.work_class, idle=one.idle)
            case _:
                return

    def _dispatch(
        self,
        message: Msg,
        verb: str,
        attempt: AttemptKey,
        handle: Callable[[AttemptRequested, Msg], Awaitable[bytes]],
    ) -> None:
        request = self._service.submitted(attempt)
        if request is not None:  # otherwise another executor answers, or this one later
            self._background.spawn(self._respond(message, verb, request, handle))
        elif verb in _AFTER_THE_END and pod_protocol.TRY in (message.headers or {}):
            self._background.spawn(self._respond_after_end(message, verb, attempt))

    async def _respond_after_end(self, message: Msg, verb: str, attempt: AttemptKey) -> None:
        """Answer a runner that did not get the answer to its report: no executor has the attempt any more."""
        try:
            if await self._service.has_ended(attempt):
                await self._bus.send(message.reply, _AFTER_THE_END[verb])
        except (UnavailableError, BusError):
            return  # it asks again

    async def _offer(self, worker: str, uid: str, attempt: AttemptKey) -> bool:
        """Offer an attempt to a worker; returns whether it takes it."""
        run_id, key, number = attempt
        body = _json({"run_id": run_id, "key": key, "attempt": number})
        try:
            answer = await self._bus.request(pod_protocol.offers(worker, uid), body, timeout=_OFFER)
        except (UnavailableError, BusError):
            return False
        return _object(answer.data).get("taken") is True

    async def _respond(
        self,
        message: Msg,
        verb: str,
        request: AttemptRequested,
        handle: Callable[[AttemptRequested, Msg], Awaitable[bytes]],
    ) -> None:
        try:
            body = await handle(request, message)
        except UnavailableError as error:
            body = _json({"error": str(error), "unavailable": True})
        except pydantic.ValidationError as error:
            body = _json({"error": f"the request {verb} is invalid: {error.errors()[0]['msg']}"})
        except PenstockError as error:
            body = _json({"error": str(error)})
        try:
            await self._bus.send(message.reply, body)
        except (UnavailableError, BusError) as error:
            self._warn("a pod was not answered", verb=verb, run=request.run_id, step=request.key, error=str(error))

    # --------------------------------------------------------------------------------------------------- requests

    async def _claim(self, worker: str, request: AttemptRequested, message: Msg) -> bytes:
        claim = _Claim.model_validate_json(message.data)
        attempt = _key(request)
        if claim.runner.rpartition(".")[0] != worker or not self._executor.is_assigned(attempt, worker):
            return _json({"refused": "it is not assigned to this pod"})
        try:
            supplies, credential, secrets = await asyncio.gather(
                self._supply(request), self._credential(request), self._give(request)
            )
        except UnavailableError:
            raise
        except PenstockError as error:  # it can never run
            await self._service.report(attempt_facts.bad_end(request, Outcome.FAILED, type(error).__name__, str(error)))
            return _json({"refused": str(error)})
        if refusal := self._executor.refusal(attempt):
            return _json({"refused": refusal})
        owner, refused = await self._service.claim(attempt, claim.runner, claim.host)
        if refused:
            self._executor.refused(attempt, refused, owner)
            return _json({"refused": refused})
        self._executor.claimed(attempt, claim.runner)
        self._remember(attempt, supplies.objects)
        checkpoint: list[Value] = [supplies.checkpoint] if supplies.checkpoint is not None else []
        references = [one for value in (*request.inputs.values(), *checkpoint) for one in values.references(value)]
        order = {
            "credential": credential,
            "source": supplies.source,
            "environment": supplies.environment.model_dump() if supplies.environment is not None else None,
            "objects": sorted({(one.sha256, one.media_type) for one in references}),
            "checkpoint": supplies.checkpoint,
            "limit": supplies.limit,
            "unsafe": self._unsafe(request.project),
            "grace": self._grace,
            "worker": self._executor.worker(request),
            "lease": self._lease if request.limited else None,
            "secrets": dict(secrets.values),
        }
        return orjson.dumps(order)[:-1] + b',"attempt":' + fact_codec.encode(request) + b"}"

    async def _credential(self, request: AttemptRequested) -> str:
        lifetime = self._executor.lifetime(request)
        run_id, key, number = _key(request)
        return await self._issue(
            IssueCredential(pool=self._pool, run_id=run_id, key=key, attempt=number, lifetime=lifetime)
        )

    async def _worker_credential(self, worker: str, lifetime: float) -> str:
        return await self._issue(IssueCredential(pool=self._pool, worker=worker, lifetime=lifetime))

    async def _issue(self, wanted: IssueCredential) -> str:
        """Return a credential of NATS for a runner.

        Raises:
            CredentialError: the gateways refuse it.
            UnavailableError: no gateway answers.
        """
        answer = await self._bus.request(subjects.GATEWAY_CREDENTIAL, wanted.model_dump_json().encode())
        issued = IssuedCredential.model_validate_json(answer.data)
        if issued.error is not None:
            raise UnavailableError(issued.error) if issued.unavailable else CredentialError(issued.error)
        return issued.token

    async def _publish(self, request: AttemptRequested, message: Msg) -> bytes:
        """Store a part of the output or of the metrics, or the progress."""
        about = _Output.model_validate_json(message.data)
        if (about.run_id, about.key, about.attempt) != _key(request):
            return _json({"error": "the message is about another attempt"})
        name = ".".join(map(str, _key(request)))
        match (message.headers or {}).get(pod_protocol.KIND):
            case "logs" | "metrics" as kind:
                subject, headers = f"{kind}.{name}", {"Nats-Msg-Id": f"{name}.{about.first}"}
            case "progress":
                subject, headers = f"logs.{name}.progress", {"Nats-Rollup": "sub"}
            case _:
                return _json({"error": "the message has no known kind"})
        await self._bus.publish(subject, message.data, headers)
        return b"{}"

    async def _locate(self, request: AttemptRequested, message: Msg) -> bytes:
        wanted = Locate.model_validate_json(message.data)
        if not wanted.write and wanted.sha256 not in await self._objects(request):
            return _json({"error": f"the attempt does not use artifact {wanted.sha256}"})
        return (await self._bus.request(subjects.ARTIFACTS_LOCATE, wanted.model_dump_json().encode())).data

    async def _complete(self, request: AttemptRequested, message: Msg) -> bytes:
        done = Complete.model_validate_json(message.data)
        return (await self._bus.request(subjects.ARTIFACTS_COMPLETE, done.model_dump_json().encode())).data

    async def _commit(self, request: AttemptRequested, message: Msg) -> bytes:
        name = str(_object(message.data).get("name"))
        fact = fact_codec.decode(subjects.committed(*_key(request), name), message.data)
        if not isinstance(fact, ArtifactCommitted):
            return _json({"error": "the announcement of the artifact is invalid"})
        self._service.commit(fact)
        return b"{}"

    async def _beat(self, request: AttemptRequested, message: Msg) -> bytes:
        self._executor.heard(_key(request))
        return _json({"lease": self._lease})

    async def _finish(self, request: AttemptRequested, message: Msg) -> bytes:
        fact = fact_codec.decode(subjects.finished(*_key(request)), message.data)
        if not isinstance(fact, AttemptFinished) or fact.outcome not in _REPORTED:
            why = fact.why if isinstance(fact, fact_codec.UnreadableFact) else "a step cannot end like this"
            fact = attempt_facts.bad_end(
                request, Outcome.FAILED, "BadResult", f"the result of the step is invalid: {why}"
            )
        await self._service.report(self._executor.amended(fact))
        self._readable.pop(_key(request), None)
        return b"{}"

    # ---------------------------------------------------------------------------------------------------- objects

    async def _objects(self, request: AttemptRequested) -> frozenset[str]:
        """The digests that an attempt may read; collected again after another executor had the attempt."""
        attempt = _key(request)
        if attempt not in self._readable:
            self._remember(attempt, (await self._supply(request)).objects)
        return self._readable[attempt]

    def _remember(self, attempt: AttemptKey, objects: frozenset[str]) -> None:
        self._readable[attempt] = objects
        while len(self._readable) > _MOST_ORDERS:
            del self._readable[next(iter(self._readable))]


def _key(request: AttemptRequested) -> AttemptKey:
    return request.run_id, request.key, request.attempt


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _json(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body)
