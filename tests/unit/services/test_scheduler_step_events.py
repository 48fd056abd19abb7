"""The scheduler publishes events of steps: repeated, unreadable, too old, unavailable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from penstock_contracts import subjects
from penstock_core import tracing
from penstock_core.deployments.events import Event
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, Fact, Outcome, RunRequested, StepEvent
from penstock_core.pipeline.ir import Node, Pipeline, StepSpec
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored
from penstock_core.ports import Recorded
from penstock_core.run import machine
from penstock_core.run.effects import PublishEvents
from penstock_scheduler.effect_handlers import EffectHandlers
from penstock_scheduler.step_events import StepEvents

PLACE = subjects.finished("r", "watch", 1)
RUN = RunRequested(run_id="r", project="p", pipeline="watching", version=1)


class FakePlatform:
    """The log of a run, the stream of events, and parked messages."""

    def __init__(self, *sent: StepEvent, at: float = 990.0) -> None:
        end = AttemptFinished(
            run_id="r", key="watch", attempt=1, outcome=Outcome.SUCCEEDED, events=sent, finished_at=at
        )
        self.log: dict[str, Recorded] = {PLACE: Recorded(5, at, end)}
        self.published: list[Event] = []
        self.parked: list[str] = []
        self.unavailable = 0
        self.events = StepEvents(self, self, self.park, 100.0, lambda: 1000.0)

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        return {place: self.log[place] for place in places if place in self.log}

    async def publish(self, event: Event) -> tuple[int, bool]:
        if self.unavailable:
            self.unavailable -= 1
            raise UnavailableError("no answer")
        self.published.append(event)
        return len(self.published), False

    async def park(self, subject: str, body: bytes, error: str) -> None:
        self.parked.append(error)


async def test_events_are_published_in_order_and_again_with_the_same_ids() -> None:
    fake = FakePlatform(StepEvent(type="com.acme.one", data=1), StepEvent(type="com.acme.two", data={"a": None}))
    fake.unavailable = 1
    with pytest.raises(UnavailableError):
        await fake.events.publish(RUN, "watch", 1)
    await fake.events.publish(RUN, "watch", 1)
    await fake.events.publish(RUN, "watch", 1)
    ids = [(event.type, event.id, event.data) for event in fake.published]
    assert ids == 2 * [("com.acme.one", "r/watch/1", 1), ("com.acme.two", "r/watch/2", {"a": None})]
    assert len({event.digest for event in fake.published}) == 2


async def test_an_event_that_is_not_valid_is_a_dead_letter_and_the_others_are_published() -> None:
    fake = FakePlatform(
        StepEvent(type="com acme"), StepEvent(type="com.acme.big", data="x" * 70_000), StepEvent(type="b")
    )
    await fake.events.publish(RUN, "watch", 1)
    assert [event.type for event in fake.published] == ["b"]
    assert [text.partition(" is not published: ")[0] for text in fake.parked] == [
        "event 'com acme'",
        "event 'com.acme.big'",
    ]


async def test_artifacts_that_a_step_stored_by_name_are_events() -> None:
    fake = FakePlatform(StepEvent(type="com.acme.one"))
    stored = Stored(ArtifactRef(sha256="a" * 64, size=1, media_type="x", format="parquet"))
    end = fake.log[PLACE].fact
    assert isinstance(end, AttemptFinished)
    end = replace(end, artifacts={"rows": stored, "a" * 1000: Inline(1)})
    fake.log[PLACE] = Recorded(5, 990.0, end)
    run = replace(RUN, trigger={"deployment": "nightly", "hops": "2"}, labels={"team": "risk"})
    for _ in range(2):
        await fake.events.publish(run, "watch", 1)
    first, event = fake.published[:2]
    assert (first.type, event.type) == ("com.acme.one", "penstock.artifact.committed.v1")
    assert (event.source, event.id, event.subject) == ("penstock/artifacts", "r/watch/rows", "watching")
    span = tracing.of_attempt(run, "watch", 1).traceparent()
    assert event.extensions == {"keys": "watching,r,watching/rows", "hops": 2, "traceparent": span}
    assert event.data | {"value": None} == {
        "name": "rows", "run_id": "r", "pipeline": "watching", "version": 1, "step": "watch", "attempt": 1,
        "deployment": "nightly", "labels": {"team": "risk"}, "value": None,
    }  # fmt: skip
    assert event.data["value"]["artifact"]["sha256"] == "a" * 64
    assert fake.published[3].digest == event.digest
    assert "id has" in fake.parked[0], "a name that is too long for an event is a dead letter"


async def test_an_end_that_is_older_than_events_publishes_nothing() -> None:
    fake = FakePlatform(StepEvent(type="com.acme.one"), at=899.0)
    await fake.events.publish(RUN, "watch", 1)
    assert fake.published == []


async def test_an_end_that_cannot_be_read_yet_is_tried_again_and_another_fact_is_ignored() -> None:
    fake = FakePlatform(StepEvent(type="com.acme.one"))
    other: Fact = RUN
    fake.log = {}
    with pytest.raises(UnavailableError):
        await fake.events.publish(RUN, "watch", 1)
    fake.log = {PLACE: Recorded(5, 0.0, other)}
    await fake.events.publish(RUN, "watch", 1)
    assert fake.published == []


async def test_events_are_published_before_anything_that_follows_from_the_end_is_decided() -> None:
    fake = FakePlatform(StepEvent(type="com.acme.one"))
    spec = StepSpec(name="watch", entrypoint="m:watch")
    plan = machine.Plan(Pipeline(name="watching", steps={"watch": spec}, nodes=(Node(key="watch", step="watch"),)))
    request = AttemptRequested(
        run_id="r", key="watch", attempt=1, pool="default", project="p", pipeline="watching", version=1, entrypoint="m"
    )
    state = machine.fold("r", plan, [RUN, request, fake.log[PLACE].fact])
    nothing: Any = None
    handlers = EffectHandlers(nothing, nothing, nothing, nothing, nothing, nothing, fake.events, lambda: 0.0)
    fake.unavailable = 1
    with pytest.raises(UnavailableError):
        await handlers.register(state)
    assert PublishEvents("watch", 1) in state.outbox
    await handlers.register(state)
    assert PublishEvents("watch", 1) not in state.outbox
    assert [event.id for event in fake.published] == ["r/watch/1"]
