"""To which version of a deployment a gateway sends a call; the bus is a fake."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from penstock_contracts import subjects
from penstock_contracts.warm_calls import ServedEndpoint, ServedEndpoints
from penstock_core.deployments.definition import Definition, EndpointTrigger, Mode, TrafficShare
from penstock_core.errors import UnavailableError
from penstock_core.pipeline.ir import Pipeline
from penstock_gateway.endpoints.warm_calls import WarmCalls
from penstock_gateway.endpoints.warm_executors import WarmExecutors

OWN, CANARY, SHADOW = 1, 2, 3


def definition(**more: Any) -> Definition:
    return Definition(pipeline="p", mode=Mode.LOW_LATENCY, triggers=(EndpointTrigger(name="endpoint"),), **more)


class Bus:
    """Answers each call at once, and keeps it."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []
        self.client = SimpleNamespace(max_payload=1 << 20, publish=self._call)

    async def subscribe(self, subject: str, handler: Any) -> None:
        self.handlers[subject] = handler

    async def announce(self, *served: tuple[int, int, int], own: int = OWN) -> None:
        """Announce revisions, versions and numbers of ready workers; `own` is the version of the deployment."""
        more: dict[str, Any] = {"project": "default", "deployment": "d", "load": 0}
        endpoints = [
            ServedEndpoint(revision=revision, version=version, own=version == own, ready=ready, **more)
            for revision, version, ready in served
        ]
        body = ServedEndpoints(executor="e", endpoints=endpoints).model_dump_json().encode()
        await self.handlers[subjects.SERVED_ENDPOINTS](SimpleNamespace(data=body))

    async def _call(self, subject: str, body: bytes, reply: str) -> None:
        self.calls.append(json.loads(body))
        [inbox] = [handler for subject, handler in self.handlers.items() if subject.startswith("_INBOX")]
        await inbox(SimpleNamespace(subject=reply, data=b'{"end": {"outcome": "succeeded"}}'))


class Versions:
    async def get(self, name: str, version: int) -> Any:
        return SimpleNamespace(pipeline=Pipeline(name=name), version=version)


async def started() -> tuple[WarmCalls, WarmExecutors, Bus]:
    bus = Bus()
    executors = WarmExecutors(cast("Any", bus), structlog.get_logger())
    calls = WarmCalls(executors, cast("Any", Versions()), cast("Any", None), cast("Any", None), "default")
    await executors.start()
    return calls, executors, bus


@pytest.mark.parametrize("share", ["canary", "shadow"])
async def test_a_version_with_a_share_does_not_replace_one_that_still_starts(share: str) -> None:
    other = CANARY if share == "canary" else SHADOW
    revisions = {4: definition(), 5: definition(**{share: TrafficShare(version=other, weight=1e-12)})}
    calls, executors, bus = await started()
    await bus.announce((4, OWN, 1), (5, OWN, 0), (5, other, 1))
    await calls.call("d", revisions, {}, 10.0, "user:ada")
    await bus.announce((5, OWN, 0), (5, other, 1))
    await calls.call("d", revisions, {}, 10.0, "user:ada")
    assert [(one["revision"], one["version"]) for one in bus.calls] == [(4, OWN), (5, OWN)]
    await executors.close()


async def test_a_call_that_the_canary_cannot_run_has_not_its_role() -> None:
    revisions = {5: definition(canary=TrafficShare(version=CANARY, weight=1.0))}
    calls, executors, bus = await started()
    await bus.announce((5, OWN, 1), (5, CANARY, 0))
    assert (await calls.call("d", revisions, {}, 10.0, "user:ada")).version == OWN
    await bus.announce((5, OWN, 1), (5, CANARY, 1))
    assert (await calls.call("d", revisions, {}, 10.0, "user:ada")).version == CANARY
    found = [(one["version"], one["run"]["trigger"].get("role", "")) for one in bus.calls]
    assert found == [(OWN, ""), (CANARY, "canary")]
    await executors.close()


async def test_a_canary_that_is_the_latest_version_runs_all_calls() -> None:
    revisions = {5: definition(canary=TrafficShare(version=CANARY, weight=1e-12))}
    calls, executors, bus = await started()
    await bus.announce((5, CANARY, 1), own=CANARY)
    await calls.call("d", revisions, {}, 10.0, "user:ada")
    assert [one["version"] for one in bus.calls] == [CANARY]
    await executors.close()


@pytest.mark.parametrize("share", ["canary", "shadow"])
async def test_a_version_with_a_share_answers_no_other_call_if_the_own_version_is_not_served(share: str) -> None:
    other = CANARY if share == "canary" else SHADOW
    revisions = {5: definition(**{share: TrafficShare(version=other, weight=1e-12)})}
    calls, executors, bus = await started()
    await bus.announce((5, other, 1))
    with pytest.raises(UnavailableError, match="No executor serves"):
        await calls.call("d", revisions, {}, 0.05, "user:ada")
    assert bus.calls == []
    await executors.close()
