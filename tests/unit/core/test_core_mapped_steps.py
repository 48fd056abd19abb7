"""Mapped steps: number of items, order of requests, and handling of their ends."""

from __future__ import annotations

import pytest

from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    ErrorInfo,
    Fact,
    Outcome,
    StepExpanded,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import MapSpec
from penstock_core.pipeline.values import (
    Collected,
    CollectedRef,
    Element,
    Inline,
    Items,
    Output,
    Param,
    ResultOf,
    ResultRef,
)
from penstock_core.run import effects, machine, mapped_steps
from penstock_testkit.run_driver import (
    CANCEL,
    FAILED,
    LOST,
    OK,
    RUN,
    R,
    RunDriver,
    cancel,
    end,
    mapped_node,
    node,
    pipeline,
)

LIST = Inline(["a", "b", "c", "d"])


def mapped(*, window: int = 256, min_success: float | None = None, over: values.Binding = LIST) -> RunDriver:
    each = mapped_node(node("each", x=over, same=Param("url")), "x", window=window, min_success=min_success)
    return RunDriver(pipeline(each, node("last", all=Output("each")), out=Output("each")))


def requests(driver: RunDriver, *facts: Fact) -> list[AttemptRequested]:
    return [fact for fact in driver.facts(*facts) if isinstance(fact, AttemptRequested)]


def test_every_item_gets_its_element_and_the_shared_inputs() -> None:
    expanded, *items = mapped().facts(RUN)
    assert expanded == StepExpanded(run_id=R, key="each", count=4)
    assert [(i.key, i.inputs) for i in items if isinstance(i, AttemptRequested)] == [
        (f"each[{n}]", {"x": Inline(x), "same": Inline("u")}) for n, x in enumerate("abcd")
    ]


def test_results_keep_item_order_for_any_finishing_order() -> None:
    driver = mapped()
    driver(RUN, end("each[2]"), end("each[0]"), end("each[3]"))
    (last,) = requests(driver, end("each[1]"))
    all_of = Items(tuple(Inline(f"each[{n}]!") for n in range(4)))
    assert last.inputs["all"] == all_of
    driver(end("last"))
    assert driver.finished.outputs == {"out": all_of}


@pytest.mark.parametrize(("window", "first", "then"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (256, 4, 0)])
def test_concurrent_items_never_exceed_the_window(window: int, first: int, then: int) -> None:
    driver = mapped(window=window)
    assert len(requests(driver, RUN)) == first
    assert len(requests(driver, end("each[0]"))) == then


def test_a_large_window_is_refilled_when_a_quarter_is_free() -> None:
    driver = mapped(window=8, over=Inline(list(range(100))))
    assert len(requests(driver, RUN)) == 8
    assert requests(driver, end("each[0]")) == []
    assert [item.key for item in requests(driver, end("each[1]"))] == ["each[8]", "each[9]"]


def test_a_retried_item_keeps_its_index() -> None:
    driver = mapped(window=1)
    driver(RUN)
    assert driver(end("each[0]", LOST)) == ["step.each[0].2.requested.default"]
    assert driver(end("each[0]", OK, attempt=2)) == ["step.each[1].1.requested.default"]


def test_mapping_an_empty_list_finishes_at_once() -> None:
    driver = mapped(over=Inline([]))
    assert driver(RUN) == ["step.each.expanded", "step.last.1.requested.default"]
    assert driver.statuses["each"] == "succeeded"


def test_lists_side_by_side_and_all_combinations() -> None:
    for mode, pairs in (("zip", ["1a", "2b"]), ("grid", ["1a", "1b", "2a", "2b"])):
        both = mapped_node(node("both", x=Inline(["1", "2"]), y=Inline(["a", "b"])), "x", "y", mode=mode)
        items = requests(RunDriver(pipeline(both)), RUN)
        got = [str(i.inputs["x"].value) + str(i.inputs["y"].value) for i in items]  # type: ignore[union-attr]
        assert got == pairs, mode


def test_a_mapped_step_over_a_mapped_step_takes_its_items_one_by_one() -> None:
    first = mapped_node(node("a", x=LIST), "x")
    driver = RunDriver(pipeline(first, mapped_node(node("b", y=Output("a")), "y")), RUN)
    for n in range(3):
        assert driver(end(f"a[{n}]", result=n)) == []
    items = requests(driver, end("a[3]", result=3))
    assert [item.inputs["y"] for item in items] == [Inline(n) for n in range(4)]


@pytest.mark.parametrize(
    ("over", "why"),
    [
        (Inline(3), "it cannot be mapped: 3 is not a list (type: int)"),
        (Param("url"), "it cannot be mapped: url is not a list (type: str)"),
        (values.Pick(Param("url"), ("a",)), "it cannot be mapped: url.a: a str has no field 'a'"),
    ],
)
def test_mapping_a_non_list_fails_the_step(over: values.Binding, why: str) -> None:
    driver = mapped(over=over)
    driver(RUN)
    assert driver.statuses == {"each": "failed", "last": "skipped"}
    assert driver.finished.error == f"step 'each' failed: MapError: {why}"


def test_lists_of_different_lengths_fail_the_step() -> None:
    both = mapped_node(node("both", x=Output("a"), y=LIST), "x", "y")
    driver = RunDriver(pipeline(node("a"), both), RUN)
    driver(end("a", result=[1]))
    assert driver.finished.error == (
        "step 'both' failed: MapError: it cannot be mapped: the lists have different lengths: 'x' has 1, 'y' has 4"
    )


def test_tuples_and_list_artifacts_can_be_mapped() -> None:
    driver = RunDriver(pipeline(node("a"), mapped_node(node("b", x=Output("a")), "x")), RUN)
    items = requests(driver, end("a", result={"$type": "tuple", "items": [1, 2]}))
    assert [item.inputs["x"] for item in items] == [Inline(1), Inline(2)]
    stored = values.Stored(values.ArtifactRef(sha256="a" * 64, size=1, media_type="", format="pickle", items=2))
    driver = RunDriver(pipeline(node("a"), mapped_node(node("b", x=Output("a")), "x")), RUN)
    made = AttemptFinished(run_id=R, key="a", attempt=1, outcome=OK, outputs={"result": stored})
    assert [item.inputs["x"] for item in requests(driver, made)] == [Element(stored, (0,)), Element(stored, (1,))]


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_failed_item_fails_the_step_and_stops_further_items() -> None:
    driver = mapped(window=2)
    driver(RUN)
    assert driver(end("each[0]", FAILED)) == ["step.each[2].1.finished"]
    assert driver.state.steps["each"].status == "running", "one of its items still runs"
    assert driver(end("each[1]")) == ["step.each[3].1.finished", "step.last.skipped", "finished"]
    assert driver.statuses == {"each": "failed", "last": "skipped"}
    assert driver.finished.error == (
        "step 'each' failed: ValueError: 1 of 4 items failed; the first, each[0]: ValueError: no rows"
    )


@pytest.mark.parametrize(("least", "outcome"), [(3, "succeeded"), (0.75, "succeeded"), (4, "failed"), (1.0, "failed")])
def test_the_step_succeeds_with_the_required_number_of_items(least: float, outcome: str) -> None:
    driver = mapped(min_success=least)
    driver(RUN, *(end(f"each[{n}]") for n in range(3)))
    driver(end("each[3]", FAILED))
    assert driver.statuses["each"] == outcome
    if outcome == "succeeded":
        (last,) = requests(mapped(min_success=least), RUN, *(end(f"each[{n}]", OK if n else FAILED) for n in range(4)))[
            4:
        ]
        assert last.inputs["all"] == Items((Inline(None), *(Inline(f"each[{n}]!") for n in range(1, 4))))


@pytest.mark.parametrize(
    ("least", "count", "needed"),
    [(None, 7, 7), (0, 7, 0), (1, 7, 1), (9, 7, 7), (0.5, 7, 4), (0.7, 10, 7), (1.0, 7, 7), (0.0, 7, 0), (2.5, 7, 2)],
)
def test_required_item_count(least: float | None, count: int, needed: int) -> None:
    assert mapped_steps.needed(MapSpec(over=("x",), min_success=least), count) == needed


def test_an_item_with_a_missing_input_fails_alone() -> None:
    each = mapped_node(node("each", x=LIST, y=values.Pick(Output("a"), (5,))), "x", min_success=0)
    driver = RunDriver(pipeline(node("a"), each), RUN)
    driver(end("a", result=[1]))
    assert driver.statuses["each"] == "succeeded"
    assert {item.status for item in driver.state.steps["each"].mapped.items.values()} == {"failed"}  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------------- cancels


def test_cancelling_the_run_ends_items_in_flight_and_possibly_requested_ones() -> None:
    driver = mapped(window=2)
    driver(RUN, end("each[0]"))
    said = driver(CANCEL)
    assert {"step.each[1].1.finished", "step.each[2].1.finished"} <= set(said)
    assert said[-1] == "finished"
    assert driver.finished.outcome is Outcome.CANCELLED
    assert driver.statuses == {"each": "cancelled", "last": "cancelled"}


def test_a_cancel_before_expansion_replaces_the_item_count() -> None:
    driver = RunDriver(pipeline(node("a"), mapped_node(node("b", x=Output("a")), "x")), RUN)
    (_, expanded, _) = driver.facts(CANCEL)
    assert expanded == StepExpanded(
        run_id=R, key="b", error=ErrorInfo(type="Cancelled", message="cancelled by ada: wrong data")
    )


def test_a_replica_unaware_of_the_cancel_requests_only_fenced_attempts() -> None:
    """It sees a cancelled item, which frees a slot of the window, and requests the next one concurrently."""
    each = mapped_node(node("each", x=Inline(list(range(9)))), "x", window=2, min_success=0)
    plan = machine.Plan(pipeline(each))
    known = [RUN, StepExpanded(run_id=R, key="each", count=9)]
    known += machine.decide(machine.fold(R, plan, known))
    gone = AttemptFinished(run_id=R, key="each[0]", attempt=1, outcome=Outcome.CANCELLED)
    stale = machine.decide(machine.fold(R, plan, [*known, gone]))
    assert [fact.tail for fact in stale] == ["step.each[2].1.requested.default"]
    aware = machine.fold(R, plan, [*known, CANCEL, gone])
    fenced: list[str] = []
    while decided := machine.decide(aware):
        fenced += [fact.tail for fact in decided]
        for fact in decided:
            aware = machine.evolve(aware, fact)
    assert "step.each[2].1.finished" in fenced


def test_one_item_can_be_cancelled_alone() -> None:
    driver = mapped(min_success=3)
    driver(RUN)
    assert driver(cancel("each[1]")) == ["step.each[1].1.finished"]
    driver(*(end(f"each[{n}]") for n in (0, 2, 3)))
    assert driver.statuses["each"] == "succeeded"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([cancel("each[1]")], "1 of 4 items was cancelled"),
        ([cancel("each[1]"), cancel("each[2]")], "2 of 4 items were cancelled"),
        ([cancel("each[1]"), end("each[2]", FAILED)], "1 of 4 items failed and 1 was cancelled"),
    ],
)
def test_cancelled_items_are_not_reported_as_failed(bad: list[Fact], said: str) -> None:
    driver = mapped()
    driver(RUN, *bad, *(end(f"each[{n}]") for n in range(4)))
    assert driver.statuses["each"] == "failed"
    assert driver.state.steps["each"].reason == said
    assert driver.finished.error is not None and f"{said}; the first, each[1]: " in driver.finished.error


@pytest.mark.parametrize("expanded", [False, True])
def test_a_cancelled_pending_item_is_cancelled_when_requested(expanded: bool) -> None:
    driver = mapped(window=1, min_success=0)
    driver(*((RUN, cancel("each[2]")) if expanded else (cancel("each[2]"), RUN)))
    assert driver(end("each[0]")) == ["step.each[1].1.requested.default"]
    assert driver(end("each[1]")) == ["step.each[2].1.finished", "step.each[3].1.requested.default"]
    assert driver.state.find("each[2]").reason == "cancelled by ada: wrong data"  # type: ignore[union-attr]
    assert driver.state.stops == {}


@pytest.mark.parametrize("key", ["each[4]", "each[99]", "last[0]", "unknown[0]", "unknown"])
def test_cancelling_an_unknown_item_changes_nothing(key: str) -> None:
    driver = mapped()
    driver(RUN)
    assert driver(cancel(key)) == []
    assert driver.state.stops == {}


def test_a_mapped_step_is_cancelled_with_all_its_items() -> None:
    driver = mapped(window=2)
    driver(RUN)
    driver(cancel("each"))
    assert driver.statuses == {"each": "cancelled", "last": "skipped"}
    assert driver.finished.outcome is Outcome.CANCELLED


@pytest.mark.parametrize(
    ("last", "status", "outcome"),
    [
        (end("each[3]"), "succeeded", Outcome.SUCCEEDED),
        (end("each[3]", FAILED), "cancelled", Outcome.CANCELLED),
        (end("each[3]", Outcome.CANCELLED), "cancelled", Outcome.CANCELLED),
    ],
)
def test_a_mapped_step_cancelled_before_its_last_item_is_cancelled_unless_all_succeed(
    last: Fact, status: str, outcome: Outcome
) -> None:
    driver = mapped()
    driver.state = machine.fold(
        R, driver.state.plan, [RUN, *driver.facts(RUN), *(end(f"each[{n}]") for n in range(3)), cancel("each"), last]
    )
    assert driver.statuses["each"] == status
    driver(end("last"))
    assert driver.finished.outcome is outcome


def test_late_grants_are_released() -> None:
    """Attempts begun by a replica unaware that the step had finished are ended."""
    driver = mapped(window=1)
    driver(RUN, CANCEL)
    driver.effects()
    late = AttemptRequested(
        run_id=R,
        key="each[1]",
        attempt=1,
        pool="default",
        project="p",
        pipeline="flow",
        version=3,
        entrypoint="m:each",
    )
    assert driver(late, AttemptQueued(run_id=R, key="each[3]", attempt=1)) == []
    assert driver.effects() == [effects.KillAttempt("each[1]", 1), effects.ReleaseSlots("each[3]", 1)]


# --------------------------------------------------------------------------------------------------- early, large, odd


def test_the_end_of_an_item_may_precede_its_request() -> None:
    driver = mapped(window=4)
    driver.state = machine.evolve(driver.state, end("each[1]"))
    driver(RUN)
    assert driver.state.find("each[1]").status == "succeeded"  # type: ignore[union-attr]


def test_results_over_the_size_limit_are_stored_by_reference() -> None:
    big = "x" * 60_000
    driver = mapped(over=Inline(list(range(12))))
    driver(RUN, *(end(f"each[{n}]", result=big) for n in range(11)))
    (last,) = requests(driver, end("each[11]", result=big))
    assert last.inputs["all"] == Collected(CollectedRef(key="each", count=12, output="result"))
    each = driver.state.steps["each"]
    assert each.mapped is not None
    assert each.mapped.items[11].outputs == {}


def test_elements_of_large_results_are_passed_by_reference() -> None:
    first = mapped_node(node("a", x=Inline(list(range(12)))), "x")
    driver = RunDriver(pipeline(first, mapped_node(node("b", y=Output("a")), "y")), RUN)
    driver(*(end(f"a[{n}]", result="x" * 60_000) for n in range(11)))
    items = requests(driver, end("a[11]", result="x" * 60_000))
    assert items[11].inputs["y"] == ResultOf(ResultRef(key="a[11]", attempt=1, output="result"))


def test_elements_over_the_request_limit_are_passed_by_reference() -> None:
    big = "x" * 300_000
    lists = {"x": values.BoundItems((Output("a"), Inline(1))), "y": Output("b")}
    driver = RunDriver(pipeline(node("a"), node("b"), mapped_node(node("c", **lists), "x", "y")), RUN)
    driver(end("a", result=big))
    (first, _) = requests(driver, end("b", result=[big, 2]))
    assert first.inputs == {
        "x": ResultOf(ResultRef(key="a", attempt=1, output="result")),
        "y": Element(ResultOf(ResultRef(key="b", attempt=1, output="result")), (0,)),
    }


def test_a_started_item_is_running() -> None:
    driver = mapped()
    driver(RUN)
    driver(AttemptStarted(run_id=R, key="each[1]", attempt=1, executor="e", started_at=5.0))
    item = driver.state.find("each[1]")
    assert item is not None
    assert (item.status, item.executor, item.started_at) == ("running", "e", 5.0)


def test_items_beyond_the_count_or_with_a_later_attempt_are_ignored() -> None:
    driver = mapped(over=Inline([1]))
    driver(RUN)
    before = machine.decide(driver.state)
    for key, attempt in (("each[1]", 1), ("each[7]", 1), ("each[0]", 3), ("last[0]", 1)):
        held = AttemptQueued(run_id=R, key=key, attempt=attempt)
        assert driver(held) == before
    assert len(driver.state.steps["each"].mapped.items) == 1  # type: ignore[union-attr]
