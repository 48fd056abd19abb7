"""A platform on which runs are recorded, and actions on running runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import nats

from penstock import Client
from penstock_adapters.nats.buckets.waits import Waits, came
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.deployments.events import Event
from penstock_core.facts import AttemptFinished, Fact, Outcome, RunRequested, StepCancelRequested
from penstock_core.pipeline.values import Inline
from penstock_testkit.servers.cluster import Cluster


class Recorder:
    """A platform, and actions on its runs."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = Client(url=cluster.url, token=cluster.token)

    def ask(self, name: str, scenario: Scenario) -> str:
        """Request the run of a scenario; the run id is derived from the name."""
        run = self.client.run(
            scenario.pipeline or name,
            inputs=scenario.inputs,
            idempotency_key=name,
            labels={"scenario": name},
            priority=scenario.priority,
        )
        return run.run_id

    def await_event(self, run_id: str, kind: str, key: str, attempt: int = 1) -> None:
        """Return when a fact is in the log."""
        for event in self.client.runs.events(run_id):
            if event.kind == kind and event.key == key and event.data.get("attempt", 1) == attempt:
                return
        raise AssertionError(f"run {run_id} ended without {kind} of {key}")

    def append(self, *facts: Fact) -> None:
        """Append facts to a log, as a service would."""

        async def append() -> None:
            connection = await nats.connect(self.cluster.nats.url)
            await NatsRunLog(Bus(connection), "recorder").append(list(facts))
            await connection.close()

        asyncio.run(append())

    def publish(self, event: Event) -> None:
        """Deliver an event to the steps that wait for it."""

        async def publish() -> None:
            connection = await nats.connect(self.cluster.nats.url)
            bus = Bus(connection)
            await EventStream(bus).publish(event)
            ends = [came(wait, event, event.received_at) for wait, _ in await Waits(bus).waiting([event])]
            await NatsRunLog(bus, "recorder").append(ends)
            await connection.close()

        asyncio.run(publish())

    def garble(self, run_id: str, tail: str) -> None:
        """Append an unreadable message to the log."""

        async def publish() -> None:
            connection = await nats.connect(self.cluster.nats.url)
            await Bus(connection).publish(subjects.run(run_id, tail), b"\xff")
            await connection.close()

        asyncio.run(publish())


def labels_ready(key: str, id: str, data: Any, at: float) -> Event:
    """An event that steps wait for."""
    return Event(
        project="default", type="com.acme.labels.ready", source="recorder", id=id, extensions={"key": key}, data=data,
        received_at=at,
    )  # fmt: skip


Drive = Callable[[Recorder, str, "Scenario"], str]


def plain(recorder: Recorder, name: str, scenario: Scenario) -> str:
    return recorder.ask(name, scenario)


def cancel_running(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.started", "sleeps")
    recorder.client.runs.cancel(run_id, "wrong data")
    return run_id


def cancel_retrying(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.requested", "waits_long", attempt=2)
    recorder.client.runs.cancel(run_id)
    return run_id


def cancel_when(kind: str, *keys: str) -> Drive:
    """Cancel the run once each of these steps has such a fact."""

    def drive(recorder: Recorder, name: str, scenario: Scenario) -> str:
        run_id = recorder.ask(name, scenario)
        for key in keys:
            recorder.await_event(run_id, kind, key)
        recorder.client.runs.cancel(run_id, "enough")
        return run_id

    return drive


def cancel_item(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    for key in ("slow[0]", "slow[2]"):
        recorder.await_event(run_id, "attempt.started", key)
    reason = {"by": "ada", "reason": "this one only", "requested_at": time.time()}
    recorder.append(StepCancelRequested(run_id=run_id, key="slow[2]", **reason))
    recorder.await_event(run_id, "attempt.finished", "slow[2]")
    recorder.client.runs.cancel(run_id, "enough")
    return run_id


def answered(answer: str) -> Drive:
    """Answer the question of the run, as the gateway does."""

    def drive(recorder: Recorder, name: str, scenario: Scenario) -> str:
        run_id = recorder.ask(name, scenario)
        recorder.await_event(run_id, "attempt.suspended", "ask")
        end = AttemptFinished(
            run_id=run_id,
            key="ask",
            attempt=1,
            outcome=Outcome.SUCCEEDED,
            outputs={"result": Inline(answer)},
            params={"answered_by": "ada"},
            executor="answer",
            finished_at=time.time(),
        )
        recorder.append(end)
        return run_id

    return drive


def event_comes(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.suspended", "wait_for_event")
    url = {"url": "s3://labels/wine"}
    recorder.publish(labels_ready("wine", "e-1", url, time.time()))
    return run_id


def event_before(recorder: Recorder, name: str, scenario: Scenario) -> str:
    """The event comes after the request, and before the step waits for it."""
    recorder.cluster.kill("scheduler")
    run_id = recorder.ask(name, scenario)
    url = {"url": "s3://labels/beer"}
    recorder.publish(labels_ready("beer", "e-2", url, time.time() + 1))
    recorder.cluster.restart("scheduler")
    return run_id


def with_deadline(seconds: float) -> Drive:
    """Request the run as another service would, with a deadline."""

    def drive(recorder: Recorder, name: str, scenario: Scenario) -> str:
        pipeline, now = scenario.pipeline or name, time.time()
        run_id = ids.run_id_from_key("default", pipeline, name)
        request = RunRequested(
            run_id=run_id,
            project="default",
            pipeline=pipeline,
            version=1,
            requested_at=now,
            deadline=now + seconds,
        )
        recorder.append(request)
        return run_id

    return drive


def second(recorder: Recorder, name: str, scenario: Scenario) -> str:
    """Run it to its end once before."""
    recorder.client.runs.wait(recorder.ask(f"{name}-before", scenario), timeout=60)
    return recorder.ask(name, scenario)


def beside_another(recorder: Recorder, name: str, scenario: Scenario) -> str:
    """Request the run while another run of the same pipeline is in progress."""
    other = recorder.ask(f"{name}-beside", scenario)
    recorder.await_event(other, "attempt.started", "slow")
    run_id = recorder.ask(name, scenario)
    recorder.client.runs.wait(run_id, timeout=60)
    recorder.client.runs.cancel(other)
    return run_id


def lost_with_checkpoint(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    for event in recorder.client.runs.events(run_id):
        if event.kind == "attempt.artifact" and event.data["name"] == "checkpoint":
            break
    recorder.cluster.kill("executor")
    recorder.cluster.restart("executor")
    return run_id


def lost(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.started", "sleeps")
    recorder.cluster.kill("executor")
    recorder.cluster.restart("executor")
    return run_id


def unreadable_end(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.started", "sleeps")
    recorder.garble(run_id, "step.sleeps.1.finished")
    return run_id


def while_nobody_decides(act: Callable[[Recorder, str], None]) -> Drive:
    def drive(recorder: Recorder, name: str, scenario: Scenario) -> str:
        recorder.cluster.kill("scheduler")
        run_id = recorder.ask(name, scenario)
        act(recorder, run_id)
        recorder.cluster.restart("scheduler")
        return run_id

    return drive


def cron(recorder: Recorder, name: str, scenario: Scenario) -> str:
    pipeline = scenario.pipeline or name
    trigger = {"kind": "cron", "name": "every-second", "every": 1}
    definition = {"pipeline": pipeline, "triggers": [trigger], "inputs": dict(scenario.inputs)}
    recorder.client.deployments.apply("every-second", definition)
    deadline = time.monotonic() + 20
    while True:
        ticks = [run for run in recorder.client.runs.list(pipeline, limit=100) if run.trigger.get("type") == "cron"]
        if ticks:
            recorder.client.deployments.delete("every-second")
            return ticks[-1].run_id
        assert time.monotonic() < deadline, "no tick came"
        time.sleep(0.05)


@dataclass(frozen=True)
class Scenario:
    """A run and its expected end: its outcome, and the steps by status with attempts if there are several.

    `pipeline` defaults to the scenario's name; `file` defines it, `also` are the pipelines it starts.
    """

    outcome: str
    steps: str
    pipeline: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    drive: Drive = plain
    file: str = "pipelines.py"
    also: tuple[str, ...] = ()
