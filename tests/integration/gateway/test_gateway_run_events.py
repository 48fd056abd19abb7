"""The end of every run is published as an event, once, whatever happens to the gateway."""

from __future__ import annotations

import asyncio
import time

import pytest
from gateway_platform import Http, Platform, started

from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import subjects
from penstock_core import trace_context
from penstock_core.deployments.events import Event
from penstock_core.errors import UnavailableError
from penstock_core.facts import Outcome, RunFinished
from penstock_core.pipeline.values import Inline
from penstock_core.run_events import SOURCE
from penstock_gateway.runs.announcer import RunAnnouncer

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def published(platform: Platform, run_id: str) -> list[Event]:
    events = await EventStream(platform.bus).since("default", RunFinished.ce_type, 0.0)
    return [event for event in events if (event.source, event.id) == (SOURCE, run_id)]


async def event_of(platform: Platform, run_id: str) -> Event:
    deadline = time.monotonic() + 60
    while not (found := await published(platform, run_id)):
        assert time.monotonic() < deadline, "no event"
        await asyncio.sleep(0.02)
    return found[0]


async def test_the_end_of_a_run_is_an_event_with_its_outputs_and_metrics(platform: Platform) -> None:
    run_id = await platform.request(trigger={"deployment": "nightly", "hops": "2"}, labels={"team": "risk"})
    await platform.run_step(run_id, "double", metrics={"accuracy": 0.9})
    await platform.finish(run_id, outputs={"result": Inline(2)})
    event = await event_of(platform, run_id)
    span = trace_context.of_run(run_id).traceparent()
    assert event.subject == "chain"
    assert event.extensions == {"keys": f"chain,{run_id}", "hops": "2", "traceparent": span}
    assert event.data | {"duration": 0} == {
        "run_id": run_id, "pipeline": "chain", "version": 1, "state": "succeeded", "error": None,
        "deployment": "nightly", "labels": {"team": "risk"}, "requested_by": "", "duration": 0,
        "outputs": {"result": 2}, "metrics": {"accuracy": 0.9},
    }  # fmt: skip


async def test_a_run_that_failed_and_one_of_an_unknown_version(platform: Platform) -> None:
    for more in ({}, {"version": 77}):
        run_id = await platform.request(**more)
        await platform.finish(run_id, Outcome.FAILED, error="step double failed")
        event = await event_of(platform, run_id)
        assert (event.data["state"], event.data["error"]) == ("failed", "step double failed")


async def test_an_end_that_was_published_but_not_acknowledged_is_published_once(platform: Platform) -> None:
    await platform.gateway.feature(RunAnnouncer).close()

    class Dies(EventStream):
        async def publish(self, event: Event) -> tuple[int, bool]:
            await super().publish(event)
            raise UnavailableError("the gateway dies here")

    dying = RunAnnouncer(platform.context, platform.log, Versions(platform.bus), Dies(platform.bus))
    await dying.start()
    run_id = await platform.request()
    await platform.finish(run_id)
    await event_of(platform, run_id)
    await dying.close()
    after = RunAnnouncer(platform.context, platform.log, Versions(platform.bus), EventStream(platform.bus))
    await after.start()
    later = await platform.request()
    await platform.finish(later)
    await event_of(platform, later)
    await after.close()
    assert len(await published(platform, run_id)) == 1
    await platform.gateway.feature(RunAnnouncer).start()


async def test_an_end_that_is_older_than_events_is_not_published_again(platform: Platform) -> None:
    ancient, recent = await platform.request(), await platform.request()
    await platform.finish(ancient, finished_at=time.time() - 40 * 86400)
    await platform.finish(recent)
    await event_of(platform, recent)
    deadline = time.monotonic() + 60
    consumer = f"CONSUMER.INFO.{subjects.RUNS}.{subjects.RUN_EVENTS_CONSUMER}"
    while (info := await platform.bus.api(consumer))["num_pending"] or info["num_ack_pending"]:
        assert time.monotonic() < deadline, "deliveries are left"
        await asyncio.sleep(0.02)
    assert await published(platform, ancient) == []


async def test_a_metric_that_crosses_a_threshold_starts_a_run(platform: Platform, http: Http) -> None:
    filter = "data.pipeline == 'chain' && has(data.metrics.accuracy) && data.metrics.accuracy < 0.5"
    trigger = {"kind": "event", "name": "on", "types": [RunFinished.ce_type], "filter": filter, "inputs": {"n": "1"}}
    answer = await http("PUT", "/v1/deployments/repair", {"definition": {"pipeline": "chain", "triggers": [trigger]}})
    assert answer.status == 200, answer.body
    ended: list[str] = []
    for metrics in ({}, {"accuracy": 0.9}, {"accuracy": 0.4}):
        run_id = await platform.request()
        await platform.run_step(run_id, "double", metrics=metrics)
        await platform.finish(run_id)
        await event_of(platform, run_id)
        ended.append(run_id)
    [run] = await started(platform, "repair")
    assert run.trigger["event_id"] == ended[2]
    letters = (await http("GET", "/v1/dead-letters")).json()["dead_letters"]
    assert not [one for one in letters if one["deployment"] == "repair"], "a run without the metric is no error"
