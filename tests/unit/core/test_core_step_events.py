"""Which ends of attempts publish events, and what these events are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_core import run_events, tracing
from penstock_core.deployments.events import Event
from penstock_core.facts import Outcome, RunRequested, StepEvent
from penstock_core.pipeline.ir import Retry
from penstock_core.pipeline.values import Inline
from penstock_core.run import effects
from penstock_testkit.run_driver import FAILED, OK, RUN, RunDriver, end, node, pipeline

SENT = (StepEvent(type="com.acme.ready", data={"rows": 3}, key="may"), StepEvent(type="com.acme.done"))
FLOW = pipeline(node("train"), node("last", "train"), retry=Retry(retries=1))


def publishes(driver: RunDriver) -> list[effects.Effect]:
    return [effect for effect in driver.effects() if isinstance(effect, effects.PublishEvents)]


def test_a_successful_end_publishes_its_events_once() -> None:
    driver = RunDriver(FLOW, RUN)
    good = replace(end("train"), events=SENT)
    driver(good)
    assert publishes(driver) == [effects.PublishEvents("train", 1)]
    driver(good)
    assert publishes(driver) == []


def test_a_successful_end_with_artifacts_publishes_events_about_them() -> None:
    driver = RunDriver(FLOW, RUN)
    driver(replace(end("train"), artifacts={"rows": Inline(1)}))
    assert publishes(driver) == [effects.PublishEvents("train", 1)]


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not OK])
def test_unsuccessful_ends_and_cache_hits_publish_nothing(outcome: Outcome) -> None:
    driver = RunDriver(FLOW, RUN)
    driver(replace(end("train", outcome), events=SENT))
    assert publishes(driver) == []


def test_only_the_deciding_attempt_publishes() -> None:
    driver = RunDriver(FLOW, RUN)
    driver(replace(end("train", FAILED), events=SENT))
    driver(replace(end("train", attempt=2), events=SENT))
    assert publishes(driver) == [effects.PublishEvents("train", 2)]


def test_the_id_of_an_event_is_that_of_its_run_step_and_number_whatever_the_attempt() -> None:
    run = RunRequested(run_id="r1", project="p", pipeline="watch", version=1, trigger={"hops": "4"})
    for attempt in (1, 2):
        finished = replace(end("train[2]", attempt=attempt), run_id="r1", events=SENT, finished_at=7.0)
        assert run_events.step_event(run, finished, 1) == {
            "type": "com.acme.ready",
            "source": "penstock/steps",
            "id": "r1/train[2]/1",
            "subject": "watch",
            "time": "1970-01-01T00:00:07.000Z",
            "key": "may",
            "traceparent": tracing.of_attempt(run, "train[2]", attempt).traceparent(),
            "hops": 4,
        }
    assert "key" not in run_events.step_event(run, finished, 2)


@pytest.mark.parametrize(
    ("source", "id", "run"),
    [
        ("penstock/steps", "r1/train[2]/1", "r1"),
        ("penstock/runs", "r1", "r1"),
        ("penstock/artifacts", "r1/a/b", "r1"),
        ("com.acme", "r1/train/1", ""),
    ],
)
def test_the_run_that_is_the_source_of_an_event(source: str, id: str, run: str) -> None:
    assert run_events.run_of(Event(project="p", type="t", source=source, id=id)) == run
