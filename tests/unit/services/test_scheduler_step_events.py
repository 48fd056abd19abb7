"""The scheduler publishes events of steps: repeated, unreadable, too old, unavailable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock_contracts import subjects
from penstock_core.deployments.events import Event
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, Fact, Outcome, RunRequested, StepEvent
from penstock_core.pipeline.ir import Node, Pipeline, StepSpec
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
