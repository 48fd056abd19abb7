"""What an executor serves of the deployments with mode `low_latency`; the bus and the sources are fakes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import orjson
import structlog

from penstock_contracts import subjects
from penstock_core.deployments import state
from penstock_core.deployments.definition import Definition, EndpointTrigger, Mode, TrafficShare
from penstock_core.pipeline.ir import Pipeline, StepSpec
from penstock_executor.endpoints.endpoint_service import EndpointService
from penstock_executor.endpoints.warm_worker import WarmWorker

ACTOR = state.Actor(by="user:ada", at=1.0)
STEPS = {"one": StepSpec(name="one", entrypoint="m:one")}


class Bus:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        self.sent: list[tuple[str, Any]] = []

    async def subscribe(self, subject: str, handler: Any) -> None:
        self.handlers[subject] = handler

    async def send(self, subject: str, body: bytes) -> None:
        self.sent.append((subject, orjson.loads(body)))


class Deployments:
    """Implements what the service uses of a deployment log, and `Sources`."""

    def __init__(self) -> None:
        self.definitions: dict[str, Definition] = {}
        self.latest = 1
        self.failing: set[str] = set()
        self.fetching: asyncio.Event | None = None

    async def all(self) -> dict[tuple[str, str], state.Deployment]:
        found: dict[tuple[str, str], state.Deployment] = {}
        for name, definition in self.definitions.items():
            facts = state.apply(state.Deployment("default", name), definition, ACTOR)
            found["default", name] = state.fold("default", name, enumerate(facts, 1))
        return found

    async def versions(self, project: str, definition: Definition) -> list[tuple[Any, bool]]:
        if definition.pipeline in self.failing:
            raise ValueError("a defect")
        own = definition.version or self.latest
        numbers = dict.fromkeys([own, *definition.other_versions.values()])
        return [
            (SimpleNamespace(version=number, pipeline=Pipeline(name="p", steps=STEPS)), number == own)
            for number in numbers
        ]

    async def pinned(self, *args: Any) -> dict[str, Any]:
        return {}

    async def fetch(self, wanted: Any) -> None:
        if self.fetching is not None:
            await self.fetching.wait()


def definition(pipeline: str = "p", **more: Any) -> Definition:
    trigger = EndpointTrigger(name="endpoint", min_workers=0)
    return Definition(pipeline=pipeline, mode=Mode.LOW_LATENCY, triggers=(trigger,), **more)


async def started() -> tuple[Any, Bus, Deployments]:
    bus, deployments = Bus(), Deployments()
    fake, log = cast("Any", deployments), structlog.get_logger()
    service = EndpointService(cast("Any", bus), log, "e", "*", fake, fake, cast("Any", None))
    await service.start()
    return service, bus, deployments


def served(service: Any) -> list[tuple[str, int, bool]]:
    return [(one.generation.deployment, one.generation.version, one.own) for one in service._pools() if not one.closing]


def make_ready(service: Any, version: int) -> None:
    (pool,) = [one for one in service._pools() if one.generation.version == version]
    pool._workers.add(WarmWorker("w", pool, ready=True))


async def test_a_deployment_that_cannot_be_read_does_not_stop_the_others() -> None:
    service, _, deployments = await started()
    deployments.definitions = {name: definition(name) for name in ("a", "broken", "z")}
    await service._reconcile()
    deployments.failing = {"broken"}
    deployments.definitions["new"] = definition("new")
    del deployments.definitions["z"]
    await service._reconcile()
    assert [name for name, _, _ in served(service)] == ["a", "broken", "new"]
    assert service._problems == {("default", "broken"): "ValueError: a defect"}
    deployments.failing = set()
    await service._reconcile()
    assert service._problems == {}


async def test_a_version_that_becomes_a_canary_is_the_own_one_until_its_successor_is_ready() -> None:
    service, _, deployments = await started()
    deployments.definitions["d"] = definition(canary=TrafficShare(version=1, weight=0.1))
    await service._reconcile()
    assert served(service) == [("d", 1, True)]
    make_ready(service, 1)
    deployments.latest = 2
    await service._reconcile()
    assert served(service) == [("d", 1, True), ("d", 2, True)]
    make_ready(service, 2)
    await service._reconcile()
    assert served(service) == [("d", 1, False), ("d", 2, True)]


async def test_a_call_whose_workers_ended_while_its_artifacts_were_fetched_goes_elsewhere() -> None:
    service, bus, deployments = await started()
    deployments.definitions["d"] = definition()
    await service._reconcile()
    deployments.fetching = asyncio.Event()
    reference = {"sha256": "0" * 64, "size": 1, "format": "json", "media_type": "application/json"}
    run = {"project": "default", "run_id": "call-1", "inputs": {"n": {"artifact": reference}}}
    body = orjson.dumps({"deployment": "d", "revision": 1, "version": 1, "run": run})
    await bus.handlers[subjects.calls("e")](SimpleNamespace(data=body, reply="inbox"))
    deployments.definitions = {}
    await service._reconcile()
    await service._reconcile()
    assert service._pools() == []
    deployments.fetching.set()
    while not bus.sent:
        await asyncio.sleep(0)
    assert bus.sent == [("inbox", {"refused": "gone", "detail": ""})]
