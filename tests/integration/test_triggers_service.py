"""The triggers service on a real server: an event has one decision and one run per deployment, whatever happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
import pytest_asyncio

from penstock_adapters.nats.buckets import versions
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.projects import Projects
from penstock_adapters.nats.buckets.revocations import NatsRevocations
from penstock_adapters.nats.buckets.waits import Waits
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.dead_letters import DeadLetters
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.run_log import NatsRunLog, from_direct
from penstock_adapters.nats.server import EmbeddedServer
from penstock_adapters.nats.trigger_timers import TriggerTimer
from penstock_contracts import subjects
from penstock_contracts.commands import EnvironmentInfo, Parked, Publication, Publications, Version
from penstock_core.access import BlockedUser
from penstock_core.deployments import state
from penstock_core.deployments.decisions import EventDecided, Outcome
from penstock_core.deployments.definition import (
    CronTrigger,
    Definition,
    EventTrigger,
    Late,
    WebhookTrigger,
    Window,
    WindowKind,
)
from penstock_core.deployments.events import WEBHOOK, Event
from penstock_core.deployments.facts import DeploymentDeleted, DeploymentPaused, DeploymentResumed
from penstock_core.deployments.state import Actor
from penstock_core.deployments.webhooks import Provider
from penstock_core.errors import InputError, UnavailableError
from penstock_core.facts import AttemptFinished, RunFinished, RunRequested, StepSuspended
from penstock_core.facts import Outcome as RunOutcome
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline
from penstock_core.projects import ProjectRecord
from penstock_core.run_events import HOPS_LIMIT, RUN_LATE
from penstock_servicekit import app
from penstock_servicekit.settings import ServiceSettings
from penstock_triggers.app import build
from penstock_triggers.run_starter import RunStarter, Start
from penstock_triggers.settings import TriggersSettings
from penstock_triggers.waiting_steps import WaitingSteps

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
PARAMS = (
    ir.Port(name="url", required=False, default="", schema={"type": "string"}),
    ir.Port(name="rows", required=False, default=0, schema={"type": "integer"}),
    ir.Port(name="all", required=False, default=[]),
)


@dataclass
class Platform:
    """A server with the triggers service."""

    server: EmbeddedServer
    home: Path
    running: list[app.RunningServices]

    @property
    def bus(self) -> Bus:
        return self.running[0].bus

    async def deploy(
        self, name: str, *triggers: EventTrigger | WebhookTrigger, by: str = "user:ada", **more: Any
    ) -> None:
        definition = Definition(pipeline="training", triggers=triggers, **more)
        actor = Actor(by=by, at=time.time())
        await DeploymentLog(self.bus, "test").change(
            "default", name, lambda deployment: state.apply(deployment, definition, actor)
        )

    async def change(self, name: str, kind: Any) -> None:
        actor = Actor(by="user:ada", at=time.time())
        await DeploymentLog(self.bus, "test").change(
            "default", name, lambda deployment: state.change(deployment, kind, "", actor)
        )

    async def send(self, type: str, data: Any = None, id: str = "1", **more: Any) -> Event:
        event = Event(**({"project": "default", "type": type, "source": type, "id": id, "data": data} | more))
        sequence, _ = await EventStream(self.bus).publish(event)
        return replace(event, sequence=sequence)

    async def decisions(self, event: Event) -> list[EventDecided]:
        return await DecisionLog(self.bus, "test").decided("default", event.digest)

    async def runs(self, deployment: str) -> list[RunRequested]:
        """The runs that a deployment started, in the order of the log."""
        messages = await self.bus.read(subjects.RUNS, subjects.requested_runs())
        facts = [found.fact for message in messages if (found := from_direct(message)) is not None]
        runs = [fact for fact in facts if isinstance(fact, RunRequested)]
        return [run for run in runs if run.trigger.get("deployment") == deployment]

    async def started(self, deployment: str, count: int = 1) -> list[RunRequested]:
        return await until(lambda: self.runs(deployment), lambda found: len(found) >= count)

    async def settled(self) -> None:
        """Wait until every event and timer so far was acknowledged."""

        async def pending() -> int:
            left = 0
            for stream in (subjects.EVENTS, subjects.TIMERS):
                info = await self.bus.api(f"CONSUMER.INFO.{stream}.{subjects.TRIGGERS_CONSUMER}")
                left += info["num_pending"] + info["num_ack_pending"]
            return left

        await until(pending, lambda left: left == 0)


async def until(read: Callable[[], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + 60
    while not enough(found := await read()):
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def service(server: EmbeddedServer, home: Path) -> AsyncIterator[app.RunningServices]:
    settings = ServiceSettings(home=home, ack_wait=1.0)
    running = await app.compose(
        server.url, settings, {"triggers": lambda link: build(link, TriggersSettings(home=home))}
    )
    try:
        yield running
    finally:
        await app.stop(running, 5)


async def put_version(bus: Bus) -> None:
    pipeline = ir.Pipeline(name="training", params=PARAMS)
    version = Version(
        project="default",
        name="training",
        version=1,
        digest="1" * 64,
        source="2" * 64,
        environment=EnvironmentInfo(version="3.11", digest="0" * 64),
        pipeline=pipeline,
        registered_at=1.0,
    )
    bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
    await bucket.put(versions.key("default", "training", 1), versions.pack(version))
    published = Publications(latest=1, versions={1: Publication(at=0.0, by="ada")})
    await bucket.put(versions.published_key("default", "training"), published.model_dump_json().encode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    home = tmp_path_factory.mktemp("triggers")
    server = EmbeddedServer(home, fsync=False)
    await server.start()
    try:
        async with service(server, home) as running:
            await put_version(running.bus)
            yield Platform(server, home, [running])
    finally:
        await server.stop()


def on(type: str, **more: Any) -> EventTrigger:
    return EventTrigger(name="data", types=(type,), **more)


# ------------------------------------------------------------------------------------------------------- single events


async def test_an_event_starts_a_run_with_mapped_inputs(platform: Platform) -> None:
    trigger = on("com.acme.one", filter="data.rows > 1000", inputs={"url": "data.url", "rows": "data.rows"})
    await platform.deploy("one", trigger, labels={"team": "a"}, inputs={"all": [1]})
    event = await platform.send("com.acme.one", {"rows": 1001, "url": "s3://a"})
    [run] = await platform.started("one")
    assert (run.pipeline, run.version, run.labels, run.requested_by) == ("training", 1, {"team": "a"}, "trigger:one")
    assert run.inputs == {"url": Inline("s3://a"), "rows": Inline(1001), "all": Inline([1])}
    assert run.trigger == {
        "type": "event",
        "deployment": "one",
        "trigger": "data",
        "revision": "1",
        "event_type": "com.acme.one",
        "event_source": "com.acme.one",
        "event_id": "1",
        "hops": "0",
    }
    [decision] = await platform.decisions(event)
    assert (decision.outcome, decision.run_id, decision.revision) == (Outcome.STARTED, run.run_id, 1)
    await platform.send("com.acme.one", {"rows": 10, "url": "s3://a"}, id="2")
    await platform.settled()
    assert len(await platform.runs("one")) == 1


async def test_the_same_event_starts_one_run_whenever_it_comes_again(platform: Platform) -> None:
    await platform.deploy("again", on("com.acme.again"))
    event = await platform.send("com.acme.again", 1)
    await platform.started("again")
    # Without the header by which the broker drops duplicates, as a foreign client publishes.
    for attribute in ("ce-id", "CE-ID"):
        headers = {attribute: "1", "ce-source": "com.acme.again", "ce-type": "com.acme.again", "ce-specversion": "1.0"}
        await platform.bus.publish("events.default.com.acme.again", b"2", headers)
    structured = {"id": "1", "source": "com.acme.again", "type": "com.acme.again", "data": 3}
    await platform.bus.publish(
        "events.default.com.acme.again", orjson.dumps(structured), {"content-type": "application/cloudevents+json"}
    )
    await platform.settled()
    assert len(await platform.runs("again")) == 1
    assert len(await platform.decisions(event)) == 1
    await platform.deploy("again", on("com.acme.again"), description="changed")
    await platform.bus.publish("events.default.com.acme.again", b"4", headers)
    await platform.settled()
    assert len(await platform.runs("again")) == 1, "a changed deployment does not decide again"


async def test_events_from_before_a_deployment_or_a_revision_meet_what_was_in_force(platform: Platform) -> None:
    early = await platform.send("com.acme.early")
    await platform.settled()
    await platform.deploy("early", on("com.acme.early"))
    await platform.change("early", DeploymentPaused)
    paused = await platform.send("com.acme.early", id="2")
    await platform.settled()
    await platform.change("early", DeploymentResumed)
    await platform.send("com.acme.early", id="3")
    [run] = await platform.started("early")
    assert run.trigger["event_id"] == "3"
    await platform.change("early", DeploymentDeleted)
    deleted = await platform.send("com.acme.early", id="4")
    await platform.settled()
    assert len(await platform.runs("early")) == 1
    for event in (early, paused, deleted):
        assert await platform.decisions(event) == []


async def test_deployments_that_run_for_their_own_events_end_after_a_bounded_number_of_runs(platform: Platform) -> None:
    await platform.deploy("own", on("com.acme.own"))
    await platform.send("com.acme.own", id="1", extensions={"hops": HOPS_LIMIT - 2}, source="penstock/runs")
    [run] = await platform.started("own")
    assert run.trigger["hops"] == str(HOPS_LIMIT - 1)
    last = await platform.send("com.acme.own", id="2", extensions={"hops": HOPS_LIMIT - 1}, source="penstock/runs")
    [decision] = await until(lambda: platform.decisions(last), lambda found: len(found) == 1)
    assert decision.outcome is Outcome.REJECTED
    assert "started each other" in decision.error
    assert len(await platform.runs("own")) == 1


async def test_a_failing_expression_or_input_is_rejected_and_harms_no_other_deployment(platform: Platform) -> None:
    await platform.deploy("bad-filter", on("com.acme.bad", filter="data.rows > 5"))
    await platform.deploy("bad-mapping", on("com.acme.bad", inputs={"url": "data.url"}))
    await platform.deploy("bad-input", on("com.acme.bad", inputs={"url": "1"}))
    await platform.deploy("no-version", on("com.acme.bad"), version=9)
    await platform.deploy("good", on("com.acme.*"))
    event = await platform.send("com.acme.bad", {})
    await platform.started("good")
    found = await until(lambda: platform.decisions(event), lambda found: len(found) == 5)
    errors = {one.deployment: one.error for one in found if one.outcome is Outcome.REJECTED}
    assert errors["bad-filter"] == "filter: there is no field 'rows'"
    assert errors["bad-mapping"] == "inputs.url: there is no field 'url'"
    assert errors["bad-input"].endswith("inputs.url: expected str, got 1")
    assert "has no version 9" in errors["no-version"]
    await platform.change("good", DeploymentDeleted)


async def test_unreadable_events_are_parked(platform: Platform) -> None:
    await platform.bus.publish("events.default.com.acme.broken", b"{", {"ce-id": "1", "ce-source": "s"})
    await platform.bus.publish("events.default.com.acme.broken", b"{}", {"ce-source": "s"})

    async def unreadable() -> list[str]:
        messages = await platform.bus.read(subjects.PARKED, "parked.triggers")
        found = [Parked.model_validate_json(message.data) for message in messages]
        return [one.error for one in found if not one.deployment]

    errors = await until(unreadable, lambda found: len(found) >= 2)
    assert any("data is not JSON" in error for error in errors)
    assert "id is missing" in errors


async def test_not_before_starts_the_run_later(platform: Platform) -> None:
    await platform.deploy("later", on("com.acme.later", not_before="data.at"))
    at = time.time() + 1.5
    event = await platform.send("com.acme.later", {"at": datetime.fromtimestamp(at, UTC).isoformat()})
    [decision] = await until(lambda: platform.decisions(event), bool)
    assert decision.outcome is Outcome.SCHEDULED and decision.start_at == pytest.approx(at, abs=0.01)
    assert await platform.runs("later") == []
    [run] = await platform.started("later")
    assert run.run_id == decision.run_id and run.requested_at >= at
    past = await platform.send("com.acme.later", {"at": "2020-01-01T00:00:00Z"}, id="2")
    await platform.started("later", 2)
    assert [one.outcome for one in await platform.decisions(past)] == [Outcome.STARTED]


async def test_a_later_run_whose_inputs_do_not_fit_is_a_dead_letter(platform: Platform) -> None:
    await platform.deploy("unfit", on("com.acme.unfit", not_before="data.at", inputs={"rows": "data.rows"}))
    at = datetime.fromtimestamp(time.time() + 1.0, UTC).isoformat()
    event = await platform.send("com.acme.unfit", {"at": at, "rows": "many"})

    async def rejected() -> list[Parked]:
        messages = await platform.bus.read(subjects.PARKED, "parked.triggers")
        found = [Parked.model_validate_json(message.data) for message in messages]
        return [one for one in found if one.deployment == "unfit"]

    [letter] = await until(rejected, bool)
    assert letter.seq == event.sequence
    assert "rows" in letter.error
    assert await platform.runs("unfit") == []


async def test_a_decided_run_that_can_no_longer_start_is_a_dead_letter(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = RunStarter.build

    async def killed(self: RunStarter, *runs: RunRequested) -> list[bool]:
        async def refused(self: RunStarter, start: Start) -> RunRequested:
            if start.deployment == "orphaned":
                raise InputError("the owner was blocked meanwhile")
            return await build(self, start)

        monkeypatch.setattr(RunStarter, "build", refused)
        raise UnavailableError("the service is killed here")

    await platform.deploy("orphaned", on("com.acme.orphaned"))
    with monkeypatch.context() as patch:
        patch.setattr(RunStarter, "request", killed)
        event = await platform.send("com.acme.orphaned")

        async def letters() -> list[Any]:
            found = await DeadLetters(platform.bus).newest(100)
            return [one for one in found if one.parked.deployment == "orphaned"]

        [letter] = await until(letters, bool)
    assert (letter.parked.seq, letter.parked.error) == (event.sequence, "the owner was blocked meanwhile")
    [decision] = await platform.decisions(event)
    assert (decision.outcome, await platform.runs("orphaned")) == (Outcome.STARTED, [])


async def test_nothing_starts_in_an_archived_project(platform: Platform) -> None:
    await platform.deploy("shelved", on("com.acme.shelved"), by="user:bob")
    await platform.settled()
    projects = Projects(platform.bus)
    await projects.change("default", lambda _: ProjectRecord(name="default", archived_at=time.time()))
    try:
        event = await platform.send("com.acme.shelved")
        [decision] = await until(lambda: platform.decisions(event), bool)
        assert (decision.outcome, "is archived" in decision.error) == (Outcome.REJECTED, True)
    finally:
        await projects.change("default", lambda _: ProjectRecord(name="default"))


async def test_a_push_publishes_nothing_for_an_owner_who_is_blocked(platform: Platform) -> None:
    publish = "git+https://git.example.org/team/repo@main"
    trigger = WebhookTrigger(name="git", provider=Provider.GITHUB, secret="secret:git", publish=publish)
    await platform.deploy("pushed", trigger, by="user:eve")
    await NatsRevocations(platform.bus).block(BlockedUser(name="eve", by="token:default", at=time.time()))
    extensions = {WEBHOOK: "pushed/git"}
    event = await platform.send("com.github.push", {"ref": "refs/heads/main", "after": "1a"}, extensions=extensions)
    [decision] = await until(lambda: platform.decisions(event), bool)
    assert (decision.outcome, "is blocked" in decision.error) == (Outcome.REJECTED, True)
    assert await platform.bus.read(subjects.BUILDS, "version-builds.default.*.*.requested") == []


# ------------------------------------------------------------------------------------------------------------- windows


async def test_debounce_by_key(platform: Platform) -> None:
    window = Window(kind=WindowKind.DEBOUNCE, seconds=1.0)
    await platform.deploy(
        "debounced",
        on("com.acme.debounced", key="data.customer", inputs={"all": "events.map(e, e.data.n)"}, window=window),
    )
    for n in range(5):
        event = await platform.send("com.acme.debounced", {"customer": "ab"[n % 2], "n": n}, id=str(n))
    runs = await platform.started("debounced", 2)
    assert sorted(run.inputs["all"].value for run in runs) == [[0, 2, 4], [1, 3]]  # type: ignore[union-attr]
    [decision] = await platform.decisions(event)
    assert (decision.outcome, decision.key, decision.window) == (Outcome.COLLECTED, "a", 1)
    assert decision.run_id in {run.run_id for run in runs}


async def test_batches_and_throttling(platform: Platform) -> None:
    mapping = {"all": "events.map(e, e.data)"}
    await platform.deploy(
        "batch", on("com.acme.stream", inputs=mapping, window=Window(kind=WindowKind.BATCH, seconds=60, count=3))
    )
    await platform.deploy(
        "throttle", on("com.acme.stream", inputs=mapping, window=Window(kind=WindowKind.THROTTLE, seconds=60))
    )
    events = [await platform.send("com.acme.stream", n, id=str(n)) for n in range(6)]
    runs = await platform.started("batch", 2)
    assert sorted(run.inputs["all"].value for run in runs) == [[0, 1, 2], [3, 4, 5]]  # type: ignore[union-attr]
    await platform.settled()
    [first] = await platform.runs("throttle")
    outcomes = [
        next(one for one in await platform.decisions(event) if one.deployment == "throttle") for event in events
    ]
    assert [one.outcome for one in outcomes] == [Outcome.COLLECTED] + [Outcome.THROTTLED] * 5
    assert {one.run_id for one in outcomes} == {first.run_id}


async def test_all_of(platform: Platform) -> None:
    window = Window(kind=WindowKind.ALL_OF, seconds=60)
    trigger = EventTrigger(name="both", types=("com.acme.left", "com.acme.right"), window=window)
    await platform.deploy("both", trigger)
    await platform.send("com.acme.left")
    await platform.send("com.acme.left", id="2")
    await platform.settled()
    assert await platform.runs("both") == []
    await platform.send("com.acme.right")
    await platform.started("both")


# ---------------------------------------------------------------------------------------------------- several replicas


async def test_two_replicas_and_a_restart_start_each_run_once(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, fsync=False)
    await server.start()
    try:
        async with service(server, tmp_path) as one:
            await put_version(one.bus)
            platform = Platform(server, tmp_path, [one])
            await platform.deploy("many", on("com.acme.many", inputs={"rows": "data"}))
            window = Window(kind=WindowKind.BATCH, seconds=3, count=10)
            await platform.deploy(
                "batches", on("com.acme.many", inputs={"all": "events.map(e, e.data)"}, window=window)
            )
            async with service(server, tmp_path):
                for n in range(100):
                    await platform.send("com.acme.many", n, id=str(n))
            for n in range(100, 150):
                await platform.send("com.acme.many", n, id=str(n))
            runs = await platform.started("many", 150)
            assert sorted(run.inputs["rows"].value for run in runs) == [*range(150)]  # type: ignore[union-attr]
            await platform.settled()
            await until(lambda: collected(platform), lambda found: found == [*range(150)])
    finally:
        await server.stop()


async def collected(platform: Platform) -> list[int]:
    return sorted(n for run in await platform.runs("batches") for n in run.inputs["all"].value)  # type: ignore[union-attr]


async def test_a_window_whose_inputs_do_not_fit_says_so_and_the_next_one_starts(platform: Platform) -> None:
    window = Window(kind=WindowKind.BATCH, seconds=60, count=2)
    await platform.deploy("fits", on("com.acme.fits", inputs={"rows": "data"}, window=window))
    for n, data in enumerate([1, "text", 2, 3]):
        await platform.send("com.acme.fits", data, id=str(n))
    [run] = await platform.started("fits")
    assert run.inputs["rows"] == Inline(3)
    await platform.settled()
    state = await DecisionLog(platform.bus, "test").windows("default", "fits", "data", "")
    assert [*state.rejected] == [1] and "inputs.rows" in state.rejected[1]


async def test_the_letter_of_a_rejected_window_is_stored_also_if_the_first_attempt_fails(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, failures = DeadLetters.add, ["once"]

    async def fail_once(self: DeadLetters, *given: Any) -> None:
        if failures:
            failures.pop()
            raise UnavailableError("the service is killed here")
        await add(self, *given)

    monkeypatch.setattr(DeadLetters, "add", fail_once)
    window = Window(kind=WindowKind.BATCH, seconds=60, count=1)
    await platform.deploy("lossless", on("com.acme.lossless", inputs={"rows": "data"}, window=window))
    await platform.send("com.acme.lossless", "text")

    async def letters() -> list[Any]:
        found = await DeadLetters(platform.bus).newest(100)
        return [one for one in found if one.parked.deployment == "lossless"]

    assert len(await until(letters, bool)) == 1
    await platform.settled()
    state = await DecisionLog(platform.bus, "test").windows("default", "lossless", "data", "")
    assert [*state.rejected] == [1] and not failures
    assert len(await letters()) == 1


async def test_a_discarded_letter_does_not_come_back_when_its_event_is_handled_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path, fsync=False)
    await server.start()
    event = Event(project="default", type="com.acme.x", source="s", id="1", data=None)
    for handled in range(2):
        async with service(server, tmp_path) as running:
            letters = DeadLetters(running.bus)
            await letters.add(event, "deployment", "trigger", "an error")
            await letters.add(event, "other", "trigger", "an error")
            found = await letters.newest(10)
            assert [one.parked.deployment for one in found] == (["other", "deployment"] if handled == 0 else ["other"])
            if handled == 0:
                await letters.delete(found[1].number)
        # The server forgets the identity of a message that it no longer has.
        await server.stop()
        await server.start()
    await server.stop()


# ------------------------------------------------------------------------------------------------------- waiting steps


async def wait_for(platform: Platform, type: str, run_id: str, key: str) -> None:
    """Have a step of a run wait for an event, as the scheduler does."""
    fact = StepSuspended(
        run_id=run_id, key=key, attempt=1, kind=ir.Kind.EVENT, project="default", inputs={"type": Inline(type)}
    )
    await Waits(platform.bus).expect(fact, time.time())


async def ended(platform: Platform, run_id: str) -> dict[str, Any]:
    """The data that the waiting steps of a run received, by key."""
    facts = [record.fact for record in await NatsRunLog(platform.bus, "test").read(run_id)]
    return {fact.key: fact.outputs["result"].value for fact in facts if isinstance(fact, AttemptFinished)}  # type: ignore[union-attr]


async def request(platform: Platform, run_id: str) -> None:
    run = RunRequested(run_id=run_id, project="default", pipeline="training", version=1, requested_at=time.time())
    await NatsRunLog(platform.bus, "test").append([run])


async def test_more_waiting_steps_than_one_answer_of_the_server_holds(platform: Platform) -> None:
    await request(platform, "crowd")
    for start in range(0, 1100, 100):
        await asyncio.gather(*(wait_for(platform, "com.acme.crowd", "crowd", f"w[{start + n}]") for n in range(100)))
    await platform.send("com.acme.crowd", 7)
    found = await until(lambda: ended(platform, "crowd"), lambda found: len(found) == 1100)
    assert set(found.values()) == {7}


async def test_a_step_gets_the_first_event_after_its_run_was_requested(platform: Platform) -> None:
    waits, log = Waits(platform.bus), NatsRunLog(platform.bus, "test")
    await request(platform, "late")
    await wait_for(platform, "com.acme.late", "late", "w")
    now = time.time()
    before = Event(project="default", type="com.acme.late", source="s", id="1", data="old", received_at=now - 60)
    after = replace(before, id="2", data="new", received_at=now)
    # As after a downtime: both are handled together.
    steps = WaitingSteps(waits, log)
    await asyncio.gather(steps.deliver(before), steps.deliver(after))
    assert await ended(platform, "late") == {"w": "new"}


# ------------------------------------------------------------------------------------------------------------ late runs


async def late_events(platform: Platform, deployment: str) -> list[Event]:
    found = await EventStream(platform.bus).newest("default", RUN_LATE, 100)
    return [event for event in found if event.data["deployment"] == deployment]


async def finish(platform: Platform, run: RunRequested, outcome: RunOutcome) -> None:
    await NatsRunLog(platform.bus, "test").append([RunFinished(run_id=run.run_id, outcome=outcome)])


async def test_a_run_that_has_not_finished_in_time_is_late_once(platform: Platform) -> None:
    await platform.deploy("slow", on("com.acme.slow"), late=Late(after=0.3))
    event = await platform.send("com.acme.slow")
    [run] = await platform.started("slow")
    [late] = await until(lambda: late_events(platform, "slow"), lambda found: bool(found))
    assert (late.source, late.id, late.subject) == ("penstock/runs", f"{run.run_id}/late", "training")
    assert (late.data["run_id"], late.data["state"]) == (run.run_id, "")
    assert late.data["reason"] == "it has not finished 0.3s after its request"
    # The event is handled again: its timer is set again, and the broker knows what it publishes.
    headers = {"ce-id": event.id, "ce-source": event.source, "ce-type": event.type}
    await platform.bus.publish("events.default.com.acme.slow", b"", headers)
    await platform.settled()
    await asyncio.sleep(0.5)
    await platform.settled()
    assert len(await late_events(platform, "slow")) == 1


async def test_a_step_that_has_not_succeeded_in_time_is_late_once(platform: Platform) -> None:
    """The other step of the run has succeeded, and is not late."""
    late = Late(steps={"train": 1.5, "load": 1.5})
    await platform.deploy("steps", on("com.acme.steps"), late=late)
    await platform.send("com.acme.steps")
    [run] = await platform.started("steps")
    ends = [("load", RunOutcome.SUCCEEDED), ("train", RunOutcome.FAILED)]
    log = NatsRunLog(platform.bus, "test")
    await log.append([AttemptFinished(run_id=run.run_id, key=key, attempt=1, outcome=end) for key, end in ends])

    async def events() -> list[Event]:
        return await late_events(platform, "steps")

    [event] = await until(events, lambda found: bool(found))
    assert (event.id, event.data["step"]) == (f"{run.run_id}/late/train", "train")
    assert event.data["reason"] == "step 'train' has not succeeded 1.5s after the request of the run"
    await platform.settled()
    assert len(await events()) == 1


async def test_a_run_that_has_finished_in_time_is_not_late(platform: Platform) -> None:
    await platform.deploy("quick", on("com.acme.quick"), late=Late(after=2.0))
    await platform.send("com.acme.quick")
    [run] = await platform.started("quick")
    await finish(platform, run, RunOutcome.FAILED)
    await platform.change("quick", DeploymentPaused)  # a pause changes nothing for runs that were started

    async def fired() -> bool:
        timers = await platform.bus.read(subjects.TIMERS, "trigger-due.default.quick.>")
        return bool(timers)

    await until(fired, bool)
    await platform.settled()
    assert await late_events(platform, "quick") == []


async def tick(platform: Platform, name: str, time: str) -> None:
    await platform.deploy(name, CronTrigger(name="cron", cron="0 3 * * *"), late=Late(by="07:00", tz="Europe/Paris"))
    more = {"source": "penstock/cron", "subject": f"{name}/cron", "id": f"{name}/1", "time": time}
    await platform.send("penstock.cron.tick.v1", **more)


async def test_the_run_of_a_tick_that_has_not_succeeded_by_a_time_of_day_is_late(platform: Platform) -> None:
    await tick(platform, "daily", "2026-07-01T03:00:00.000Z")
    [late] = await until(lambda: late_events(platform, "daily"), lambda found: bool(found))
    assert late.data["reason"] == "it has not succeeded by 07:00 Europe/Paris"
    assert late.time == "2026-07-01T05:00:00.000Z", "the first seven o'clock in Paris after the tick"


async def test_a_tick_without_a_valid_time_is_never_late_by_a_time_of_day(platform: Platform) -> None:
    await tick(platform, "timeless", "yesterday")
    await platform.started("timeless")
    await platform.settled()
    assert await platform.bus.read(subjects.TIMERS, "trigger-timers.default.timeless.>") == []
    assert await late_events(platform, "timeless") == []


@pytest.mark.parametrize("outcome", [RunOutcome.FAILED, RunOutcome.SUCCEEDED])
async def test_a_run_that_failed_has_not_succeeded(platform: Platform, outcome: RunOutcome) -> None:
    name = f"ended-{outcome.value}"
    await platform.deploy(name, on(f"com.acme.{name}"))
    await platform.send(f"com.acme.{name}")
    [run] = await platform.started(name)
    await finish(platform, run, outcome)
    timer = TriggerTimer(
        kind="late",
        project="default",
        deployment=name,
        trigger="data",
        run_id=run.run_id,
        reason="by",
        success=True,
        at=5.0,
    )
    place = subjects.trigger_due("default", name, "data", "late")
    await platform.bus.publish(place, timer.model_dump_json().encode())
    await platform.settled()
    found = await late_events(platform, name)
    assert [late.data["state"] for late in found] == (["failed"] if outcome is RunOutcome.FAILED else [])
