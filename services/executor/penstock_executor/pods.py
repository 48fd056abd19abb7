"""Answers the runners in pods: gives out orders and locations, and takes what they report.

In: requests on `pods.{pool}.>`, see `penstock_core.pod_protocol`. Every executor of the pool receives them; only the
one that is responsible for the attempt answers. Nothing that a pod sends is trusted: bodies are validated, an attempt
can only report about itself, and reads only objects that its inputs refer to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pydantic
from nats.aio.msg import Msg
from pydantic import BaseModel, ConfigDict, Field

from penstock_adapters.argo.executor import ArgoExecutor
from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import fact_codec, subjects
from penstock_contracts.commands import Complete, Locate
from penstock_core import pod_protocol
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, Outcome
from penstock_core.pipeline import values
from penstock_core.pipeline.values import Value
from penstock_core.shipping.messages import AttemptKey
from penstock_executor import attempt_facts
from penstock_executor.background_tasks import BackgroundTasks
from penstock_executor.pod_platform import PodSupplies
from penstock_executor.service import ExecutorService

_REPORTED = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.LOST)
_MOST_ORDERS = 10_000


class _Claim(BaseModel):
    model_config = ConfigDict(extra="ignore")

    runner: str = Field(min_length=1, max_length=400)
    host: str = Field(default="", max_length=300)


Supply = Callable[[AttemptRequested], Awaitable[PodSupplies]]


class PodRequests:
    """The answers of one executor.

    Args:
        bus: the connection.
        pool: pool of the executor.
        service: the attempts of the executor.
        executor: its Workflows.
        supply: collects what a pod needs.
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
        self._unsafe = unsafe
        self._grace = grace
        self._lease = lease
        self._warn = warn
        self._background = BackgroundTasks(warn)
        self._readable: dict[AttemptKey, frozenset[str]] = {}
        self._verbs: dict[str, Callable[[AttemptRequested, bytes], Awaitable[bytes]]] = {
            pod_protocol.CLAIM: self._claim,
            pod_protocol.LOCATE: self._locate,
            pod_protocol.COMPLETE: self._complete,
            pod_protocol.COMMIT: self._commit,
            pod_protocol.BEAT: self._beat,
            pod_protocol.FINISH: self._finish,
        }

    async def start(self) -> None:
        """Subscribe to the requests."""
        await self._bus.subscribe(f"pods.{self._pool}.>", self._receive)

    async def _receive(self, message: Msg) -> None:
        match message.subject.split("."):
            case [_, _, run_id, key, number, verb] if number.isdecimal() and verb in self._verbs:
                request = self._service.submitted((run_id, key, int(number)))
                if request is not None:  # otherwise another executor answers, or this one later
                    self._background.spawn(self._respond(message, verb, request))
            case _:
                return

    async def _respond(self, message: Msg, verb: str, request: AttemptRequested) -> None:
        try:
            body = await self._verbs[verb](request, message.data)
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

    async def _claim(self, request: AttemptRequested, data: bytes) -> bytes:
        claim = _Claim.model_validate_json(data)
        attempt = _key(request)
        try:
            supplies = await self._supply(request)
        except UnavailableError:
            raise
        except PenstockError as error:  # it can never run
            await self._service.report(attempt_facts.bad_end(request, Outcome.FAILED, type(error).__name__, str(error)))
            return _json({"refused": str(error)})
        refused = self._executor.refusal(attempt) or await self._service.claim(attempt, claim.runner, claim.host)
        if refused:
            self._executor.refused(attempt, refused)
            return _json({"refused": refused})
        self._executor.claimed(attempt, claim.runner)
        self._remember(attempt, supplies.objects)
        checkpoint: list[Value] = [supplies.checkpoint] if supplies.checkpoint is not None else []
        references = [one for value in (*request.inputs.values(), *checkpoint) for one in values.references(value)]
        order = {
            "source": supplies.source,
            "environment": supplies.environment.model_dump() if supplies.environment is not None else None,
            "objects": sorted({(one.sha256, one.media_type) for one in references}),
            "checkpoint": supplies.checkpoint,
            "limit": supplies.limit,
            "unsafe": self._unsafe(request.project),
            "grace": self._grace,
            "lease": self._lease if request.limited else None,
        }
        return orjson.dumps(order)[:-1] + b',"attempt":' + fact_codec.encode(request) + b"}"

    async def _locate(self, request: AttemptRequested, data: bytes) -> bytes:
        wanted = Locate.model_validate_json(data)
        if not wanted.write and wanted.sha256 not in await self._objects(request):
            return _json({"error": f"the attempt does not use artifact {wanted.sha256}"})
        return (await self._bus.request(subjects.ARTIFACTS_LOCATE, wanted.model_dump_json().encode())).data

    async def _complete(self, request: AttemptRequested, data: bytes) -> bytes:
        done = Complete.model_validate_json(data)
        return (await self._bus.request(subjects.ARTIFACTS_COMPLETE, done.model_dump_json().encode())).data

    async def _commit(self, request: AttemptRequested, data: bytes) -> bytes:
        name = str(_object(data).get("name"))
        fact = fact_codec.decode(subjects.committed(*_key(request), name), data)
        if not isinstance(fact, ArtifactCommitted):
            return _json({"error": "the announcement of the artifact is invalid"})
        self._service.commit(fact)
        return b"{}"

    async def _beat(self, request: AttemptRequested, data: bytes) -> bytes:
        self._executor.heard(_key(request))
        return _json({"lease": self._lease})

    async def _finish(self, request: AttemptRequested, data: bytes) -> bytes:
        fact = fact_codec.decode(subjects.finished(*_key(request)), data)
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
