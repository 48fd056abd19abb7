"""Deployments: definitions, revisions, filters and their explanation, windows."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_adapters.cel import CelEvaluator
from penstock_core.deployments import decisions, state, windows
from penstock_core.deployments.decisions import EventRef
from penstock_core.deployments.definition import (
    CronTrigger,
    Definition,
    EventTrigger,
    Late,
    Trigger,
    Window,
    WindowKind,
    subscription,
    type_matches,
)
from penstock_core.deployments.definition_problems import problems
from penstock_core.deployments.events import Event
from penstock_core.deployments.facts import (
    DeploymentApplied,
    DeploymentDeleted,
    DeploymentFact,
    DeploymentPaused,
    DeploymentResumed,
)
from penstock_core.deployments.matching import (
    ExpressionError,
    Failed,
    Filtered,
    Matched,
    conjuncts,
    match,
    paths,
    run_inputs,
)
from penstock_core.deployments.state import Actor, ConflictError, Deployment, NoDeploymentError
from penstock_core.deployments.windows import EventCollected, WindowClosed, WindowFact, WindowState
from penstock_core.durations import format_duration
from penstock_core.errors import InvalidInputsError

P, D = "default", "nightly"
ADA = Actor(by="user:ada", at=100.0)
CEL = CelEvaluator()
ONE = Definition(pipeline="training", triggers=(EventTrigger(name="data", types=("com.acme.updated",)),))
TWO = replace(ONE, version=2)


def event(data: Any = None, **more: Any) -> Event:
    found: dict[str, Any] = {
        "project": P,
        "type": "com.acme.updated",
        "source": "acme",
        "id": "1",
        "data": data,
        **more,
    }
    return Event(**found)


def on(**more: Any) -> EventTrigger:
    found: dict[str, Any] = {"name": "data", "types": ("com.acme.updated",), **more}
    return EventTrigger(**found)


def matched(trigger: Trigger, data: Any, **more: Any) -> Matched | Filtered | Failed:
    return match(subscription(D, trigger), event(data, **more), CEL)


# ---------------------------------------------------------------------------------------------------------- definitions


def test_types_match_exactly_or_by_prefix() -> None:
    assert type_matches("com.acme.updated", "com.acme.updated")
    assert type_matches("com.acme.*", "com.acme.updated") and type_matches("com.acme.*", "com.acme.a.b")
    assert not type_matches("com.acme.*", "com.acme") and not type_matches("com.acme.*", "com.acmex.a")
    assert not type_matches("com.acme.updated", "com.acme.updated.v2")


@pytest.mark.parametrize(
    ("trigger", "path", "words"),
    [
        (on(types=()), "triggers[0].types", "empty"),
        (on(types=("com acme",)), "triggers[0].types", "not a type"),
        (on(name="a b"), "triggers[0].name", "not valid"),
        (on(filter="x" * 5_000), "triggers[0].filter", "5000 characters"),
        (on(inputs={"a": "x" * 5_000}), "triggers[0].inputs.a", "5000 characters"),
        (on(window=Window(kind=WindowKind.DEBOUNCE, seconds=0)), "triggers[0].window.seconds", "more than 0"),
        (on(window=Window(kind=WindowKind.DEBOUNCE, seconds=float("nan"))), "triggers[0].window.seconds", "more than"),
        (on(window=Window(kind=WindowKind.DEBOUNCE, seconds=9, count=3)), "triggers[0].window.count", "batches"),
        (on(window=Window(kind=WindowKind.ALL_OF, seconds=9)), "triggers[0].types", "at least two types"),
        (
            on(window=Window(kind=WindowKind.BATCH, seconds=9, count=2), not_before="data.at"),
            "triggers[0].not_before",
            "cannot be combined",
        ),
        (CronTrigger(name="c"), "triggers[0].cron", "either"),
        (CronTrigger(name="c", cron="@daily", every=60), "triggers[0].cron", "either"),
        (CronTrigger(name="c", every=0.5), "triggers[0].every", "1 second"),
        (CronTrigger(name="c", every=60, start=9, end=9), "triggers[0].end", "after start"),
        (CronTrigger(name="c", every=60, jitter=-1), "triggers[0].jitter", "between"),
        (CronTrigger(name="c", every=60, catchup_limit=0), "triggers[0].catchup_limit", "between"),
    ],
)
def test_what_is_wrong_in_a_definition_is_named(trigger: Trigger, path: str, words: str) -> None:
    [(found, message)] = problems(Definition(pipeline="training", triggers=(trigger,)))
    assert found == path
    assert words in message


def test_every_problem_is_listed() -> None:
    wrong = Definition(pipeline="a b", deadline=-1, triggers=(on(), on(), CronTrigger(name="c")))
    assert [path for path, _ in problems(wrong)] == ["pipeline", "deadline", "triggers[1].name", "triggers[2].cron"]


# ------------------------------------------------------------------------------------------------------------ revisions


def applied(*definitions: Definition) -> Deployment:
    deployment = Deployment(P, D)
    for n, definition in enumerate(definitions):
        change(deployment, state.apply(deployment, definition, Actor(by="user:ada", at=100.0 + n)))
    return deployment


def change(deployment: Deployment, facts: list[DeploymentFact]) -> Deployment:
    for fact in facts:
        state.evolve(deployment, fact.revision, fact)
    return deployment


def test_revisions_are_numbered_and_an_equal_definition_is_no_revision() -> None:
    deployment = applied(ONE, ONE, TWO)
    assert deployment.revision == 2
    assert deployment.require() == TWO
    assert deployment.definition(1) == ONE
    assert state.apply(deployment, TWO, ADA) == []


def test_a_change_of_a_revision_that_is_no_longer_current_is_refused() -> None:
    deployment = applied(ONE, TWO)
    with pytest.raises(ConflictError, match="at revision 2, not 1"):
        state.apply(deployment, ONE, ADA, expected=1)
    assert state.apply(deployment, ONE, ADA, expected=2)
    with pytest.raises(ConflictError):
        state.apply(deployment, ONE, ADA, expected=0)


def test_a_rollback_is_a_new_revision_with_an_earlier_definition() -> None:
    deployment = applied(ONE, TWO)
    change(deployment, state.roll_back(deployment, 1, ADA))
    assert deployment.revision == 3 and deployment.require() == ONE
    fact = deployment.facts[3]
    assert isinstance(fact, DeploymentApplied) and fact.restores == 1
    with pytest.raises(NoDeploymentError, match="revision 9"):
        state.roll_back(deployment, 9, ADA)


def test_pausing_resuming_and_deleting() -> None:
    deployment = applied(ONE)
    for kind in (DeploymentResumed, DeploymentPaused, DeploymentPaused):
        change(deployment, state.change(deployment, kind, "holiday", ADA))
    assert deployment.revision == 2 and deployment.current is not None and deployment.current.paused
    change(deployment, state.apply(deployment, TWO, ADA))
    assert deployment.current.paused, "an update does not resume it"
    change(deployment, state.change(deployment, DeploymentDeleted, "", ADA))
    assert not deployment.exists and set(deployment.facts) == {1, 2, 3, 4}
    with pytest.raises(NoDeploymentError, match="was deleted"):
        deployment.require()
    change(deployment, state.apply(deployment, ONE, ADA, expected=0))
    assert deployment.exists and not deployment.current.paused


def test_what_was_in_force_at_a_time() -> None:
    deployment = applied(ONE, TWO)
    assert deployment.at(99.0) is None
    assert [deployment.at(when).revision for when in (100.0, 100.9, 101.0, 500.0)] == [1, 1, 2, 2]  # type: ignore[union-attr]


def test_a_definition_with_problems_is_refused_with_all_of_them() -> None:
    with pytest.raises(InvalidInputsError) as caught:
        state.apply(Deployment(P, D), Definition(pipeline="a b", triggers=(on(types=()),)), ADA)
    assert [path for path, _ in caught.value.errors] == ["pipeline", "triggers[0].types"]


# ------------------------------------------------------------------------------------------------------------- matching


def test_a_filter_decides_and_shows_which_part_is_false() -> None:
    trigger = on(filter='data.rows > 1000 && data.url.startsWith("s3://") && event.source == "acme"')
    assert matched(trigger, {"rows": 1001, "url": "s3://a"}) == Matched()
    found = matched(trigger, {"rows": 17, "url": "s3://a"})
    assert isinstance(found, Filtered)
    assert [(clause.text, clause.holds, clause.values) for clause in found.clauses] == [
        ("data.rows > 1000", False, {"data.rows": 17}),
        ('data.url.startsWith("s3://")', True, {"data.url": "s3://a"}),
        ('event.source == "acme"', True, {"event.source": "acme"}),
    ]


@pytest.mark.parametrize(
    ("trigger", "data", "where", "words"),
    [
        (on(filter="data.rows > 5"), {}, "filter", "there is no field 'rows'"),
        (on(filter="data.rows > 5"), {"rows": "x"}, "filter", "no such operation"),
        (on(filter="data.rows"), {"rows": "true"}, "filter", "must be true or false"),
        (on(filter="data.rows >"), {}, "filter", "column 12"),
        (on(key="data.rows"), {"rows": [1]}, "key", "must be text or a number"),
        (on(key="data.rows"), {"rows": "x" * 2000}, "key", "2000 characters"),
        (on(not_before="data.at"), {"at": "tomorrow"}, "not_before", "RFC 3339"),
        (on(not_before="data.at"), {"at": "2026-01-01T00:00:00"}, "not_before", "no time zone"),
        (on(not_before="data.at"), {"at": True}, "not_before", "must be a time"),
        (on(filter="data.l.all(a, data.l.all(b, a + b >= 0))"), {"l": [*range(3000)]}, "filter", "budget"),
    ],
)
def test_an_expression_that_fails_names_itself(trigger: Trigger, data: Any, where: str, words: str) -> None:
    found = matched(trigger, data)
    assert isinstance(found, Failed)
    assert found.where == where
    assert words in found.error


def test_keys_and_start_times() -> None:
    assert matched(on(key="data.customer"), {"customer": 7}) == Matched(key="7")
    for at in ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z", 1767225600):
        assert matched(on(not_before="data.at"), {"at": at}) == Matched(start_at=1767225600.0)
    assert matched(on(not_before="timestamp(data.at)"), {"at": "2026-01-01T00:00:00Z"}) == Matched(
        start_at=1767225600.0
    )


def test_integers_beyond_64_bits_are_compared_as_floats() -> None:
    assert matched(on(filter="data.rows > 5.0"), {"rows": 2**70}) == Matched()


@pytest.mark.parametrize(("rows", "kind"), [(5, Matched), (1, Filtered), ("a", Failed)])
def test_without_an_explanation_the_parts_of_a_filter_are_not_evaluated(rows: Any, kind: type[Any]) -> None:
    evaluated: list[str] = []

    class Counting(CelEvaluator):
        def evaluate(self, expression: str, scope: Any) -> Any:
            evaluated.append(expression)
            return super().evaluate(expression, scope)

    trigger = on(filter="data.rows > 2 && data.rows < 9")
    found = match(subscription(D, trigger), event({"rows": rows}), Counting(), explain=False)
    assert isinstance(found, kind) and isinstance(matched(trigger, {"rows": rows}), kind)
    assert evaluated == [trigger.filter] and not getattr(found, "clauses", ())


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("a && b && c", ["a", "b", "c"]),
        ("a && (b || c)", ["a", "(b || c)"]),
        ("a && b || c", ["a && b || c"]),
        ("a ? b && c : d", ["a ? b && c : d"]),
        ("""x == "a && b" && y == 'it\\'s && c'""", ['x == "a && b"', "y == 'it\\'s && c'"]),
        (r"""x == r"a\" && y""", [r'x == r"a\"', "y"]),
        ('x == """a "quoted" && b""" && y', ['x == """a "quoted" && b"""', "y"]),
        (
            "data.l.all(x, x > 1 && x < 5) && {'a': 1 && 2} == c",
            ["data.l.all(x, x > 1 && x < 5)", "{'a': 1 && 2} == c"],
        ),
        ("a", ["a"]),
    ],
)
def test_filters_are_split_at_outermost_conjunctions(expression: str, parts: list[str]) -> None:
    assert conjuncts(expression) == parts


def test_the_paths_that_an_expression_reads() -> None:
    found = paths(
        """data.rows > 1 && data.url.startsWith("data.no") && event.type == 'x' && data["a b"][0].c > data.rows"""
    )
    assert found == ["data.rows", "data.url", "event.type", 'data["a b"][0].c']


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from("abc"), children, max_size=3),
    max_leaves=6,
)


@given(data=_VALUES, text=st.sampled_from(["data.a > 1 && data.b", "data.a == data.b", "has(data.a)", "data[0] > 'x'"]))
def test_matching_never_raises_and_explains_what_it_decided(data: Any, text: str) -> None:
    found = matched(on(filter=text), data)
    if isinstance(found, Filtered):
        assert any(clause.holds is not True for clause in found.clauses)


def test_inputs_come_from_the_deployment_the_whole_event_and_single_expressions() -> None:
    trigger = on(inputs_from="data.params", inputs={"url": "data.url", "seen": "timestamp(event.time)"})
    shape = subscription(D, trigger)
    arrived = event({"params": {"depth": 3, "url": "no"}, "url": "s3://a"}, time="2026-01-01T00:00:00Z")
    given = run_inputs(shape, [arrived], {"depth": 1, "seed": 2}, CEL)
    assert given == {"depth": 3, "seed": 2, "url": "s3://a", "seen": "2026-01-01T00:00:00Z"}
    with pytest.raises(ExpressionError, match=r"inputs\.url: there is no field 'url'"):
        run_inputs(shape, [event({"params": {}})], {}, CEL)
    with pytest.raises(ExpressionError, match="inputs_from: the value must be an object"):
        run_inputs(shape, [event({"params": 1})], {}, CEL)


def test_inputs_of_a_window_see_all_its_events() -> None:
    shape = subscription(D, on(inputs={"files": "events.map(e, e.data.file)", "last": "data.file"}))
    found = run_inputs(shape, [event({"file": "a"}), event({"file": "b"})], {}, CEL)
    assert found == {"files": ["a", "b"], "last": "b"}


# -------------------------------------------------------------------------------------------------------------- windows


def ref(n: int, at: float, type: str = "a") -> EventRef:
    return EventRef(digest=f"{n:032x}", sequence=n, type=type, source="s", id=str(n), received_at=at)


def new_state(key: str = "") -> WindowState:
    return WindowState(P, D, "t", key)


def feed(window: Window, arrivals: list[EventRef], types: tuple[str, ...] = ("a", "b")) -> list[WindowFact]:
    """All facts when every event arrives and every timer fires in time."""
    windows_of = new_state()
    log: list[WindowFact] = []

    def add(facts: list[WindowFact]) -> None:
        windows.fold(windows_of, facts)
        log.extend(facts)

    for arrival in arrivals:
        at = windows.due(windows_of, window)
        if at is not None and at <= arrival.received_at:
            add(windows.expire(windows_of, window, at))
        if not windows.throttled(windows_of, window, arrival):
            add(windows.collect(windows_of, window, arrival, 1, types))
    while (at := windows.due(windows_of, window)) is not None:
        add(windows.expire(windows_of, window, at))
    return log


def closed(log: list[WindowFact]) -> list[tuple[list[int], float, str]]:
    """The windows: the numbers of their events, when and why they closed."""
    return [
        (
            [f.event.sequence for f in log if isinstance(f, EventCollected) and f.window == end.window],
            end.at,
            end.reason,
        )
        for end in log
        if isinstance(end, WindowClosed)
    ]


def test_debounce_starts_one_run_after_the_last_event() -> None:
    window = Window(kind=WindowKind.DEBOUNCE, seconds=10)
    log = feed(window, [ref(1, 0), ref(2, 5), ref(3, 14), ref(4, 30)])
    assert closed(log) == [([1, 2, 3], 24, "time"), ([4], 40, "time")]


def test_throttle_starts_a_run_at_once_and_drops_what_follows_too_soon() -> None:
    window = Window(kind=WindowKind.THROTTLE, seconds=10)
    log = feed(window, [ref(1, 0), ref(2, 5), ref(3, 10), ref(4, 19.9), ref(5, 20)])
    assert closed(log) == [([1], 0, "first"), ([3], 10, "first"), ([5], 20, "first")]


def test_batches_close_by_count_or_time() -> None:
    window = Window(kind=WindowKind.BATCH, seconds=10, count=2)
    log = feed(window, [ref(1, 0), ref(2, 1), ref(3, 2), ref(4, 20)])
    assert closed(log) == [([1, 2], 1, "count"), ([3], 12, "time"), ([4], 30, "time")]


def test_all_of_needs_every_type_within_the_time() -> None:
    window = Window(kind=WindowKind.ALL_OF, seconds=10)
    log = feed(window, [ref(1, 0), ref(2, 1), ref(3, 9, "b"), ref(4, 20, "b")])
    assert closed(log) == [([1, 2, 3], 9, "complete"), ([4], 30, "time")]
    ends = [fact for fact in log if isinstance(fact, WindowClosed)]
    assert [windows.starts_run(window, _events(log, end), ("a", "b")) for end in ends] == [True, False]


def _events(log: list[WindowFact], end: WindowClosed) -> list[EventRef]:
    return [fact.event for fact in log if isinstance(fact, EventCollected) and fact.window == end.window]


@given(
    kind=st.sampled_from(WindowKind),
    gaps=st.lists(st.floats(0, 8), min_size=1, max_size=12),
    seed=st.integers(0, 999),
)
def test_redeliveries_late_timers_and_restarts_change_no_window(kind: WindowKind, gaps: list[float], seed: int) -> None:
    """A log that replicas write, which crash, get events twice and fire timers late, has the same windows."""
    window = Window(kind=kind, seconds=10, count=3 if kind is WindowKind.BATCH else 0)
    chance = random.Random(seed)
    arrivals: list[EventRef] = []
    for n, gap in enumerate(gaps, 1):
        at = round((arrivals[-1].received_at if arrivals else 0) + gap, 3)
        arrivals.append(ref(n, at, chance.choice("ab")))
    expected = feed(window, arrivals)

    log: list[WindowFact] = []
    dropped: set[int] = set()
    memory = new_state()
    for n, arrival in enumerate(arrivals):
        # The event may come again later, but never before a later one of the same key was decided.
        for again in [*chance.sample(arrivals[:n], k=min(n, chance.randrange(3))), arrival]:
            if chance.random() < 0.3:
                memory = windows.fold(new_state(), log)  # another replica
            known = again.sequence in dropped or memory.window_of(again.digest)
            if again is not arrival:
                assert known, "an event that was decided is known"
                continue
            if windows.throttled(memory, window, again):
                dropped.add(again.sequence)
                continue
            facts = windows.collect(memory, window, again, 1, ("a", "b"))
            windows.fold(memory, facts)
            log += facts
            assert windows.collect(memory, window, again, 1, ("a", "b")) == []
    while (at := windows.due(memory, window)) is not None:
        facts = windows.expire(memory, window, at + chance.random() * 100)
        windows.fold(memory, facts)
        log += facts
    assert closed(log) == closed(expected)
    assert [fact.number for fact in log] == [*range(1, len(log) + 1)]


def test_a_rejected_window_is_recorded_once() -> None:
    state = new_state()
    window = Window(kind=WindowKind.BATCH, seconds=10, count=1)
    windows.fold(state, windows.collect(state, window, ref(1, 0), 1))
    facts = windows.reject(state, 1, "inputs.n: is missing", 1, 5.0)
    windows.fold(state, facts)
    assert state.rejected == {1: "inputs.n: is missing"}
    assert windows.reject(state, 1, "again", 1, 6.0) == []
    windows.fold(state, windows.collect(state, window, ref(2, 7), 1))
    assert (state.window, state.number) == (2, 5)


def test_run_ids_differ_by_deployment_trigger_event_and_window() -> None:
    identities = [
        event().digest,
        windows.window_identity("a", 1),
        windows.window_identity("b", 1),
        windows.window_identity("a", 2),
    ]
    found = {decisions.run_id(P, "f", d, t, i) for d in ("d", "e") for t in ("t", "u") for i in identities}
    assert len(found) == 16


# ------------------------------------------------------------------------------------------------------------ late runs


@pytest.mark.parametrize(
    ("late", "path", "message"),
    [
        (Late(), "late", "give a duration (after), a time of day (by), durations of steps (steps)"),
        (Late(after=-1.0), "late.after", "more than 0 seconds"),
        (Late(after=float("inf")), "late.after", "at most 30 days"),
        (Late(after=float("nan")), "late.after", "at most 30 days"),
        (Late(steps={"train": -1.0}), "late.steps.train", "more than 0 seconds"),
        (Late(by="7:00"), "late.by", "use one such as '07:00'"),
        (Late(by="24:00"), "late.by", "use one such as '07:00'"),
        (Late(by="07:00"), "late.by", "needs a cron trigger"),
    ],
)
def test_invalid_times_of_late_runs(late: Late, path: str, message: str) -> None:
    found = problems(replace(ONE, late=late))
    assert [(at, text) for at, text in found if at == path and message in text], found


def test_valid_times_of_late_runs() -> None:
    cron = CronTrigger(name="cron", cron="@daily")
    assert problems(replace(ONE, late=Late(after=60.0))) == []
    assert problems(replace(ONE, triggers=(cron,), late=Late(after=60.0, by="23:59", tz="Europe/Paris"))) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25s"),
        (59.0, "59s"),
        (60.0, "1m"),
        (90.0, "1m30s"),
        (5400.0, "1h30m"),
        (86400.0, "1d"),
        (59.9999, "60s"),
    ],
)
def test_durations_are_shown_as_they_are_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
