"""Replays: past events through another definition decide as they would have when they arrived."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_adapters.cel import CelEvaluator
from penstock_core.deployments import replay as replays
from penstock_core.deployments.decisions import Outcome
from penstock_core.deployments.definition import Definition, EventTrigger, Window, WindowKind
from penstock_core.deployments.events import Event
from penstock_core.deployments.replay import Replayed

CEL = CelEvaluator()


def event(n: int, data: Any = None, type: str = "com.acme.a", at: float | None = None) -> Event:
    received = float(n) if at is None else at
    return Event(
        project="default", type=type, source="s", id=str(n), data=data or {"n": n}, received_at=received, sequence=n
    )


def replay(events: list[Event], *triggers: EventTrigger, now: float = 1e6, **more: Any) -> Replayed:
    definition = Definition(pipeline="p", triggers=triggers, **more)
    return replays.replay("default", "d", definition, events, CEL, now)


def on(name: str = "on", **more: Any) -> EventTrigger:
    return EventTrigger(name=name, types=("com.acme.a",), **more)


def test_each_trigger_decides_on_the_events_that_it_takes_in_their_order() -> None:
    other = EventTrigger(name="other", types=("com.acme.b",))
    found = replay([event(1), event(2, type="com.acme.b"), event(3)], on(filter="data.n > 1"), other)
    assert [(one.event.sequence, one.trigger, one.outcome) for one in found.decisions] == [
        (1, "on", Outcome.FILTERED),
        (2, "other", Outcome.STARTED),
        (3, "on", Outcome.STARTED),
    ]
    assert found.decisions[0].clauses[0].text == "data.n > 1"
    assert [(one.events[-1].sequence, one.subscription.trigger) for one in found.starts] == [(2, "other"), (3, "on")]
    assert found.starts[1].identity == event(3).digest


def test_expressions_that_fail_reject_the_event() -> None:
    found = replay([event(1)], on(filter="data.unknown > 1"), on("mapped", inputs={"x": "data.unknown"}))
    assert [one.outcome for one in found.decisions] == [Outcome.REJECTED, Outcome.REJECTED]
    assert found.decisions[0].error.startswith("filter: ")
    assert found.decisions[1].error.startswith("inputs.x: ")
    assert found.starts == ()


def test_a_start_in_the_future_of_an_event_is_in_the_past_of_its_replay() -> None:
    [decision] = replay([event(1)], on(not_before="1000.0")).decisions
    assert decision.outcome is Outcome.STARTED


def test_windows_are_folded_as_when_the_events_arrived() -> None:
    batch = on(window=Window(kind=WindowKind.BATCH, seconds=100, count=2), key="data.k")
    events = [event(n, {"k": k, "n": n}) for n, k in enumerate("abaab", 1)]
    found = replay(events, batch)
    assert [(one.key, one.window, one.outcome) for one in found.decisions] == [
        ("a", 1, Outcome.COLLECTED),
        ("b", 1, Outcome.COLLECTED),
        ("a", 1, Outcome.COLLECTED),
        ("a", 2, Outcome.COLLECTED),
        ("b", 1, Outcome.COLLECTED),
    ]
    assert [[one.sequence for one in start.events] for start in found.starts] == [[1, 3], [4], [2, 5]]
    # The window of event 4 is open until its time is up.
    assert len(replay(events, batch, now=50.0).starts) == 2
    throttle = on(window=Window(kind=WindowKind.THROTTLE, seconds=2))
    found = replay(events, throttle)
    assert [one.outcome for one in found.decisions] == [
        Outcome.COLLECTED,
        Outcome.THROTTLED,
        Outcome.COLLECTED,
        Outcome.THROTTLED,
        Outcome.COLLECTED,
    ]
    debounce = on(window=Window(kind=WindowKind.DEBOUNCE, seconds=10))
    assert [len(start.events) for start in replay(events, debounce).starts] == [5]


def test_a_window_whose_mapping_fails_is_rejected_at_its_last_event() -> None:
    batch = on(window=Window(kind=WindowKind.BATCH, seconds=10, count=2), inputs={"x": "data.unknown"})
    found = replay([event(1), event(2)], batch)
    assert [one.outcome for one in found.decisions] == [Outcome.COLLECTED, Outcome.REJECTED]
    assert found.starts == ()


def test_a_window_without_all_types_starts_nothing() -> None:
    both = EventTrigger(
        name="both", types=("com.acme.a", "com.acme.b"), window=Window(kind=WindowKind.ALL_OF, seconds=5)
    )
    found = replay([event(1), event(2, at=20.0), event(3, type="com.acme.b", at=21.0)], both)
    assert [[one.sequence for one in start.events] for start in found.starts] == [[2, 3]]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from("ab")), max_size=30),
    st.sampled_from([*WindowKind]),
    st.integers(1, 4),
)
def test_every_event_has_one_decision_and_is_part_of_at_most_one_run(
    gaps: list[tuple[float, str]], kind: WindowKind, count: int
) -> None:
    at, events = 0.0, list[Event]()
    for n, (gap, key) in enumerate(gaps, 1):
        at += gap
        events.append(event(n, {"k": key}, at=at))
    types = ("com.acme.a", "com.acme.*")
    window = Window(kind=kind, seconds=10, count=count if kind is WindowKind.BATCH else 0)
    trigger = EventTrigger(name="on", types=types, key="data.k", window=window)
    found = replay(events, trigger)
    assert [one.event.sequence for one in found.decisions] == [one.sequence for one in events]
    started = [one.sequence for start in found.starts for one in start.events]
    assert len(started) == len({*started})
    assert len({start.identity for start in found.starts}) == len(found.starts)
    if kind is not WindowKind.THROTTLE:
        assert {*started} == {one.sequence for one in events}
