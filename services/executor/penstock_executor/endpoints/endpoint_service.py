"""Serves the deployments with mode `low_latency` on one executor: keeps their warm workers, and runs calls on them.

In: the log of deployments, published versions, calls of gateways. Out: replies, recorded runs, and announcements of
what is served. When a deployment or the latest version of its pipeline changes, the workers of the new generation start
while the old ones go on; these are stopped once the new ones are ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson
import pydantic
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.process import AttemptEnvironment, ProcessExecutor, WarmOrder
from penstock_contracts import subjects
from penstock_contracts.commands import Version
from penstock_contracts.warm_calls import Refusal, ServedEndpoints
from penstock_core import requests
from penstock_core.deployments import low_latency
from penstock_core.deployments.definition import Definition, Mode
from penstock_core.deployments.state import Deployment
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, AttemptStarted
from penstock_core.pipeline.ir import Pipeline, Resources
from penstock_core.pipeline.values import Stored, Value
from penstock_core.shipping.messages import Message
from penstock_executor.background_tasks import BackgroundTasks
from penstock_executor.endpoints.run_recorder import RunRecorder
from penstock_executor.endpoints.warm_worker import Call, WarmWorker
from penstock_executor.endpoints.worker_pool import Generation, WorkerPool

Json = dict[str, Any]

_ANNOUNCE = 1.0
"""Seconds between announcements, and between looks at deployments and versions."""

_EXIT = 2.0
"""Seconds that workers without a call may take to exit when the executor stops."""

_VALUES: pydantic.TypeAdapter[dict[str, Value]] = pydantic.TypeAdapter(dict[str, Value])

Name = tuple[str, str]
"""Project and name of a deployment."""

Key = tuple[int, int]
"""Revision of a deployment and version of its pipeline."""


class Sources(Protocol):
    """What the service needs to know of deployments, and of the machine."""

    async def versions(self, project: str, definition: Definition) -> list[tuple[Version, bool]]:
        """Return the versions that a deployment runs now, each with whether it is its own.

        The others get a share of the requests.
        """
        ...

    async def pinned(self, project: str, definition: Definition, version: Version) -> dict[str, Value]:
        """Return the inputs of a deployment, with registered models resolved."""
        ...

    async def prepare(self, attempt: AttemptRequested) -> AttemptEnvironment:
        """Prepare what the process of a worker needs on this machine."""
        ...

    async def fetch(self, wanted: list[Value]) -> None:
        """Download artifacts to this machine."""
        ...

    async def store(self, made: list[Value]) -> None:
        """Store artifacts that a worker has made."""
        ...


@dataclass(slots=True, eq=False)
class _Endpoint:
    """The generations of a deployment, oldest first; the last one is wanted, unless all are closing."""

    pools: list[WorkerPool]


class EndpointService:
    """See the module. `adapter` makes the process adapter when the first worker is needed."""

    def __init__(
        self,
        bus: Bus,
        log: FilteringBoundLogger,
        name: str,
        pool: str,
        deployments: DeploymentLog,
        sources: Sources,
        adapter: Callable[[EndpointService], ProcessExecutor],
    ) -> None:
        self._bus = bus
        self._log = log
        self._name = name
        self._pool = pool
        self._deployments = deployments
        self._sources = sources
        self._make_adapter = adapter
        self._adapter: ProcessExecutor | None = None
        self._recorder = RunRecorder(bus, f"penstock/executor/{name}", log.warning)
        self._background = BackgroundTasks(log.warning)
        self._endpoints: dict[Name, _Endpoint] = {}
        self._problems: dict[Name, str] = {}
        self._workers: dict[str, tuple[WorkerPool, WarmWorker]] = {}
        self._orders: dict[str, WarmOrder] = {}
        self._streams: dict[str, tuple[WorkerPool, int]] = {}
        self._numbers = itertools.count(1)
        self._calls = itertools.count(1)
        self._wake = asyncio.Event()
        self._stopping = False

    async def start(self) -> None:
        """Subscribe to calls and to changes of deployments and versions."""
        await self._bus.subscribe(subjects.calls(self._name), self._received)
        for subject in ("deployments.>", "builds.>"):
            await self._bus.subscribe(subject, self._nudge)

    async def run(self) -> None:
        """Follow the deployments until cancelled."""
        while True:
            try:
                await self._reconcile()
            except (UnavailableError, BusError) as error:
                self._log.warning("deployments could not be read; retrying", error=str(error))
            except Exception:  # a bug must not stop the other endpoints
                self._log.exception("the endpoints could not be updated; retrying")
            await self._announce()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _ANNOUNCE)
            self._wake.clear()

    async def stop(self, drain: float) -> None:
        """Finish the calls in flight within `drain` seconds, record all runs, and end the workers."""
        self._stopping = True
        await self._announce()
        for pool in self._pools():
            pool.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain):
                await asyncio.gather(*(pool.quiet.wait() for pool in self._pools()))
        for pool in self._pools():
            pool.stop_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT):
                await asyncio.gather(*(pool.gone.wait() for pool in self._pools()))
        for pool in self._pools():
            pool.abort()
        if self._adapter is not None:
            await self._adapter.close()
        await self._background.wait(5.0)
        await self._recorder.close()

    def about(self) -> Json:
        """Status details."""
        return {"workers": len(self._workers)}

    # ---------------------------------------------------------------------------------------------------- deployments

    async def _nudge(self, _: Msg) -> None:
        self._wake.set()

    async def _reconcile(self) -> None:
        deployments = await self._deployments.all()
        for name in dict.fromkeys([*deployments, *self._endpoints]):
            try:
                problem = await self._update(name, deployments.get(name))
            except (UnavailableError, BusError):
                raise
            except Exception as error:  # it must not stop the other endpoints
                problem = f"{type(error).__name__}: {error}"
            if problem and self._problems.get(name) != problem:
                self._log.warning("an endpoint could not be updated; retrying", deployment=name[1], error=problem)
            self._problems[name] = problem
        self._problems = {name: problem for name, problem in self._problems.items() if problem}

    async def _update(self, name: Name, deployment: Deployment | None) -> str:
        """Have the generations that a deployment needs now, and stop the others; return what is wrong with it.

        If it raises, all generations are kept.
        """
        now = deployment.current if deployment is not None else None
        definition = now.definition if now is not None and not now.paused else None
        wanted: dict[Key, bool] = {}
        problems: list[str] = []
        if now is not None and definition is not None and definition.mode is Mode.LOW_LATENCY:
            for version, own in await self._sources.versions(name[0], definition):
                if not self._serves(version.pipeline):
                    continue
                # A version that was published after the deployment was not checked before.
                found = low_latency.problems(version.pipeline)
                problems += [f"version {version.version} cannot run: {path} {message}" for path, message in found]
                if not found:
                    wanted[now.revision, version.version] = own
                    await self._want(name, now.revision, definition, version)
        if (endpoint := self._endpoints.get(name)) is not None:
            self._retire(endpoint, wanted)
            if not endpoint.pools:
                del self._endpoints[name]
        return "; ".join(problems)

    def _serves(self, pipeline: Pipeline) -> bool:
        return self._pool == "*" or requests.pools(pipeline) <= {self._pool}

    async def _want(self, name: Name, revision: int, definition: Definition, version: Version) -> None:
        """Have a generation, whose workers start now; those before it go on until it is ready."""
        endpoint = self._endpoints.setdefault(name, _Endpoint([]))
        key, trigger = (revision, version.version), definition.endpoint
        if trigger is None or self._stopping or any(one.generation.key == key for one in endpoint.pools):
            return
        generation = Generation(
            project=name[0],
            deployment=name[1],
            revision=revision,
            version=version.version,
            pipeline=version.pipeline,
            trigger=trigger,
            inputs=await self._sources.pinned(name[0], definition, version),
        )
        pool = WorkerPool(generation, self)
        pool.warm = any(one.ready for one in endpoint.pools)
        endpoint.pools.append(pool)
        self._log.info("endpoint", deployment=name[1], revision=revision, version=version.version)
        pool.scale()

    def _retire(self, endpoint: _Endpoint, wanted: Mapping[Key, bool]) -> None:
        """Close the generations that are not wanted once those that are can serve; stop workers that are idle.

        Args:
            endpoint: the endpoint.
            wanted: the generations that it needs, each with whether it is of the deployment's own version.
        """
        serving = [pool for pool in endpoint.pools if pool.generation.key in wanted]
        replaced = all(pool.ready for pool in serving)
        own = [pool for pool in serving if wanted[pool.generation.key]]
        for pool in serving:  # a version that becomes only a canary answers until its successor is ready
            pool.own = pool in own or (pool.own and not any(one.ready for one in own))
        for pool in endpoint.pools:
            if pool not in serving and (replaced or not pool.ready):
                if pool.closing:  # closed since the last announcement: gateways know, so no further call comes
                    pool.stop_when_idle()
                pool.close()
            pool.stop_idle()
        endpoint.pools = [pool for pool in endpoint.pools if not (pool.closing and pool.empty and not pool.load)]

    def _pools(self) -> list[WorkerPool]:
        return [pool for endpoint in self._endpoints.values() for pool in endpoint.pools]

    async def _announce(self) -> None:
        served = [pool.served() for pool in self._pools() if not pool.closing and not self._stopping]
        body = ServedEndpoints(executor=self._name, endpoints=served).model_dump_json().encode()
        try:
            await self._bus.send(subjects.served_endpoints(self._name), body)
        except (UnavailableError, BusError) as error:
            self._log.warning("endpoints not announced; retrying", error=str(error))

    # ---------------------------------------------------------------------------------------------------------- calls

    async def _received(self, message: Msg) -> None:
        def items(body: Json) -> None:
            self._background.spawn(self._reply(message.reply, body))

        def reply(body: Json) -> None:
            self._streams.pop(message.reply, None)
            self._background.spawn(self._reply(message.reply, body))

        try:
            call = orjson.loads(message.data)
            if "run" not in call:
                self._control(call)
                return
            run = call["run"]
            name, key = (str(run["project"]), str(call["deployment"])), (call["revision"], call["version"])
        except (ValueError, TypeError, KeyError) as error:
            self._log.warning("invalid call of an endpoint", error=repr(error))
            return
        endpoint = self._endpoints.get(name)
        pool = next((one for one in endpoint.pools if one.generation.key == key), None) if endpoint else None
        if pool is None or self._stopping:
            reply({"refused": Refusal.GONE.value, "detail": ""})
        elif self._recorder.full:
            reply({"refused": Refusal.BUSY.value, "detail": "runs wait to be recorded"})
        else:
            number, takes = next(self._calls), items if call.get("stream") else None
            if takes is not None:
                self._streams[message.reply] = pool, number
            if b'"artifact"' in message.data:
                self._background.spawn(self._submit_fetched(message.reply, pool, run, number, reply, takes))
            else:
                pool.submit(run, number, reply, takes)

    def _control(self, message: Json) -> None:
        """Handle what a gateway says about a stream that it reads."""
        match message:
            case {"cancel": str(stream)} if found := self._streams.pop(stream, None):
                found[0].cancel(found[1])
            case {"received": [str(stream), int(sent)]} if found := self._streams.get(stream):
                found[0].confirm(found[1], sent)
            case _:
                pass  # of a stream that has ended

    async def _submit_fetched(
        self,
        stream: str,
        pool: WorkerPool,
        run: Json,
        number: int,
        reply: Callable[[Json], None],
        items: Callable[[Json], None] | None,
    ) -> None:
        """Submit a call after its artifacts are on this machine."""
        try:
            await self._sources.fetch([*_VALUES.validate_python(run["inputs"]).values()])
        except (PenstockError, OSError, pydantic.ValidationError) as error:
            reply({"end": {"outcome": "failed", "error": f"the inputs cannot be loaded: {error}", "outputs": {}}})
            return
        if self._stopping or pool not in self._pools():  # it may have ended meanwhile
            reply({"refused": Refusal.GONE.value, "detail": ""})
        elif items is None or stream in self._streams:  # else the client has disconnected
            pool.submit(run, number, reply, items)

    async def _reply(self, subject: str, body: Json) -> None:
        outputs = (body.get("end") or {}).get("outputs")
        data = orjson.dumps(body)
        try:
            if outputs and b'"artifact"' in data:
                await self._sources.store([*_VALUES.validate_python(outputs).values()])
            await self._bus.send(subject, data)
        except (PenstockError, OSError, pydantic.ValidationError) as error:
            failed = {"outcome": "failed", "error": f"the answer cannot be sent: {error}", "outputs": {}}
            await self._bus.send(subject, orjson.dumps({"end": failed}))

    # -------------------------------------------------------------------------------------------------- of the pools

    def new_name(self) -> str:
        """See `PoolHost`."""
        return f"warm-{next(self._numbers)}"

    async def launch(self, worker: WarmWorker, generation: Generation) -> None:
        """See `PoolHost`."""
        if self._adapter is None:
            self._adapter = self._make_adapter(self)
        pool = next(one for one in self._pools() if one.generation is generation)
        channel = await worker.open()
        self._orders[worker.name] = WarmOrder(pipeline=generation.pipeline, inputs=generation.inputs, channel=channel)
        self._workers[worker.name] = (pool, worker)
        try:
            await self._adapter.submit(_attempt(worker.name, generation))
        except BaseException:
            self._workers.pop(worker.name, None)
            channel.close()
            raise
        finally:
            self._orders.pop(worker.name, None)

    def kill(self, worker: WarmWorker) -> None:
        """See `PoolHost`."""
        if self._adapter is not None:
            self._background.spawn(self._adapter.cancel(worker.name, "worker", 1, worker.error or "no longer needed"))

    def changed(self, pool: WorkerPool) -> None:
        """See `PoolHost`."""
        self._wake.set()
        if pool.error and not pool.closing:
            deployment = pool.generation.deployment
            self._log.warning("workers of an endpoint cannot start", deployment=deployment, error=pool.error)

    def record(self, call: Call, facts: list[tuple[str, Json]] | None) -> None:
        """See `PoolHost`."""
        self._recorder.add(call.run, call.end or {}, facts)

    def spawn(self, work: Awaitable[None]) -> None:
        """See `PoolHost`."""
        self._background.spawn(work)

    # ------------------------------------------------------------------------------------------------ of the adapter

    async def prepare(self, attempt: AttemptRequested) -> AttemptEnvironment:
        """Prepare the environment of a worker."""
        where = await self._sources.prepare(attempt)
        return replace(where, checkpoint=None, serve=self._orders[attempt.run_id])

    def started(self, fact: AttemptStarted) -> None:
        """Do nothing: a worker says when it is ready."""

    def finished(self, fact: AttemptFinished) -> None:
        """Handle the end of a worker's process."""
        pool, worker = self._workers.pop(fact.run_id, (None, None))
        if pool is not None and worker is not None:
            self._background.spawn(_end(pool, worker, fact.error.message if fact.error is not None else "it ended"))

    def publish(self, message: Message) -> None:
        """Write what a worker prints to the log of the executor."""
        pool, _ = self._workers.get(message.attempt[0], (None, None))
        for entry in orjson.loads(message.body).get("entries", []):
            if pool is not None and isinstance(entry, dict) and "text" in entry:
                self._log.info("output of an endpoint", deployment=pool.generation.deployment, text=entry["text"])

    def commit(self, fact: ArtifactCommitted) -> None:
        """Do nothing: workers announce no artifacts."""


async def _end(pool: WorkerPool, worker: WarmWorker, why: str) -> None:
    await worker.received_all()
    pool.ended(worker, why)


def _attempt(name: str, generation: Generation) -> AttemptRequested:
    """The attempt as which the adapter runs a worker."""
    pipeline = generation.pipeline
    memory = [spec.resources.memory for spec in pipeline.steps.values()]
    return AttemptRequested(
        run_id=name,
        key="worker",
        attempt=1,
        pool="default",
        project=generation.project,
        pipeline=pipeline.name,
        version=generation.version,
        entrypoint=next(iter(pipeline.steps.values())).entrypoint,
        environment=next(iter(pipeline.steps.values())).environment or "",
        inputs={one: value for one, value in generation.inputs.items() if isinstance(value, Stored)},
        env={name: value for spec in pipeline.steps.values() for name, value in spec.env.items()},
        resources=Resources(memory=None if None in memory else max(one for one in memory if one is not None)),
    )
