"""Mapped steps: how many items there are, which are asked for when, what becomes of their ends."""

from __future__ import annotations

import pytest

from penstock_core import effects, fans, run, values
from penstock_core.facts import (
    AttemptFinished,
    AttemptHeld,
    AttemptRequested,
    AttemptStarted,
    ErrorInfo,
    Fact,
    Outcome,
    StepExpanded,
)
from penstock_core.ir import Fan
from penstock_core.values import Collected, CollectedRef, Earlier, Element, Inline, Items, Output, Param, ResultRef
from penstock_testkit.told import CANCEL, FAILED, LOST, OK, RUN, R, Told, cancel, end, mapped, node, pipeline

LIST = Inline(["a", "b", "c", "d"])


def fan(*, window: int = 256, min_success: float | None = None, over: values.Binding = LIST) -> Told:
    each = mapped(node("each", x=over, same=Param("url")), "x", window=window, min_success=min_success)
    return Told(pipeline(each, node("last", all=Output("each")), out=Output("each")))


def requests(told: Told, *facts: Fact) -> list[AttemptRequested]:
    return [fact for fact in told.facts(*facts) if isinstance(fact, AttemptRequested)]


def test_every_item_gets_its_element_and_what_all_share() -> None:
    expanded, *items = fan().facts(RUN)
    assert expanded == StepExpanded(run_id=R, key="each", count=4)
    assert [(i.key, i.inputs) for i in items if isinstance(i, AttemptRequested)] == [
        (f"each[{n}]", {"x": Inline(x), "same": Inline("u")}) for n, x in enumerate("abcd")
    ]


def test_results_keep_the_order_of_the_items_whatever_the_order_of_their_ends() -> None:
    told = fan()
    told(RUN, end("each[2]"), end("each[0]"), end("each[3]"))
    (last,) = requests(told, end("each[1]"))
    all_of = Items(tuple(Inline(f"each[{n}]!") for n in range(4)))
    assert last.inputs["all"] == all_of
    told(end("last"))
    assert told.over.outputs == {"out": all_of}


@pytest.mark.parametrize(("window", "first", "then"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (256, 4, 0)])
def test_no_more_items_than_the_window_has_places(window: int, first: int, then: int) -> None:
    told = fan(window=window)
    assert len(requests(told, RUN)) == first
    assert len(requests(told, end("each[0]"))) == then


def test_a_large_window_is_filled_up_when_a_quarter_of_it_is_free() -> None:
    told = fan(window=8, over=Inline(list(range(100))))
    assert len(requests(told, RUN)) == 8
    assert requests(told, end("each[0]")) == []
    assert [item.key for item in requests(told, end("each[1]"))] == ["each[8]", "each[9]"]


def test_a_retried_item_keeps_its_place() -> None:
    told = fan(window=1)
    told(RUN)
    assert told(end("each[0]", LOST)) == ["step.each[0].2.requested.default"]
    assert told(end("each[0]", OK, attempt=2)) == ["step.each[1].1.requested.default"]


def test_nothing_to_map_is_done_at_once() -> None:
    told = fan(over=Inline([]))
    assert told(RUN) == ["step.each.expanded", "step.last.1.requested.default"]
    assert told.statuses["each"] == "succeeded"


def test_lists_side_by_side_and_all_combinations() -> None:
    for mode, pairs in (("zip", ["1a", "2b"]), ("grid", ["1a", "1b", "2a", "2b"])):
        both = mapped(node("both", x=Inline(["1", "2"]), y=Inline(["a", "b"])), "x", "y", mode=mode)
        items = requests(Told(pipeline(both)), RUN)
        got = [str(i.inputs["x"].value) + str(i.inputs["y"].value) for i in items]  # type: ignore[union-attr]
        assert got == pairs, mode


def test_a_mapped_step_over_a_mapped_step_takes_its_items_one_by_one() -> None:
    first = mapped(node("a", x=LIST), "x")
    told = Told(pipeline(first, mapped(node("b", y=Output("a")), "y")), RUN)
    for n in range(3):
        assert told(end(f"a[{n}]", result=n)) == []
    items = requests(told, end("a[3]", result=3))
    assert [item.inputs["y"] for item in items] == [Inline(n) for n in range(4)]


@pytest.mark.parametrize(
    ("over", "why"),
    [
        (Inline(3), "it cannot be mapped: 3 is no list but a int"),
        (Param("url"), "it cannot be mapped: url is no list but a str"),
        (values.Pick(Param("url"), ("a",)), "it cannot be mapped: url.a: a str has no field 'a'"),
    ],
)
def test_what_is_no_list_fails_the_step(over: values.Binding, why: str) -> None:
    told = fan(over=over)
    told(RUN)
    assert told.statuses == {"each": "failed", "last": "skipped"}
    assert told.over.error == f"step 'each' failed: MapError: {why}"


def test_lists_of_different_lengths_fail_the_step() -> None:
    both = mapped(node("both", x=Output("a"), y=LIST), "x", "y")
    told = Told(pipeline(node("a"), both), RUN)
    told(end("a", result=[1]))
    assert told.over.error == (
        "step 'both' failed: MapError: it cannot be mapped: the lists are of different lengths: 'x' has 1, 'y' has 4"
    )


def test_tuples_are_lists_and_artifacts_that_say_so_too() -> None:
    told = Told(pipeline(node("a"), mapped(node("b", x=Output("a")), "x")), RUN)
    items = requests(told, end("a", result={"$type": "tuple", "items": [1, 2]}))
    assert [item.inputs["x"] for item in items] == [Inline(1), Inline(2)]
    stored = values.Stored(values.ArtifactRef(sha256="a" * 64, size=1, media_type="", format="pickle", items=2))
    told = Told(pipeline(node("a"), mapped(node("b", x=Output("a")), "x")), RUN)
    made = AttemptFinished(run_id=R, key="a", attempt=1, outcome=OK, outputs={"result": stored})
    assert [item.inputs["x"] for item in requests(told, made)] == [Element(stored, (0,)), Element(stored, (1,))]


# ------------------------------------------------------------------------------------------------------------ failures


def test_a_failed_item_fails_the_step_and_no_further_ones_are_begun() -> None:
    told = fan(window=2)
    told(RUN)
    assert told(end("each[0]", FAILED)) == ["step.each[2].1.finished"]
    assert told.state.steps["each"].status == "running", "one of its items still runs"
    assert told(end("each[1]")) == ["step.each[3].1.finished", "step.last.skipped", "finished"]
    assert told.statuses == {"each": "failed", "last": "skipped"}
    assert told.over.error == (
        "step 'each' failed: ValueError: 1 of 4 items failed; the first, each[0]: ValueError: no rows"
    )


@pytest.mark.parametrize(("least", "outcome"), [(3, "succeeded"), (0.75, "succeeded"), (4, "failed"), (1.0, "failed")])
def test_as_many_items_must_succeed_as_the_user_says(least: float, outcome: str) -> None:
    told = fan(min_success=least)
    told(RUN, *(end(f"each[{n}]") for n in range(3)))
    told(end("each[3]", FAILED))
    assert told.statuses["each"] == outcome
    if outcome == "succeeded":
        (last,) = requests(fan(min_success=least), RUN, *(end(f"each[{n}]", OK if n else FAILED) for n in range(4)))[4:]
        assert last.inputs["all"] == Items((Inline(None), *(Inline(f"each[{n}]!") for n in range(1, 4))))


@pytest.mark.parametrize(
    ("least", "count", "needed"),
    [(None, 7, 7), (0, 7, 0), (1, 7, 1), (9, 7, 7), (0.5, 7, 4), (0.7, 10, 7), (1.0, 7, 7), (0.0, 7, 0), (2.5, 7, 2)],
)
def test_how_many_must_succeed(least: float | None, count: int, needed: int) -> None:
    assert fans.needed(Fan(over=("x",), min_success=least), count) == needed


def test_an_item_whose_input_is_not_there_fails_by_itself() -> None:
    each = mapped(node("each", x=LIST, y=values.Pick(Output("a"), (5,))), "x", min_success=0)
    told = Told(pipeline(node("a"), each), RUN)
    told(end("a", result=[1]))
    assert told.statuses["each"] == "succeeded"
    assert {item.status for item in told.state.steps["each"].fan.items.values()} == {"failed"}  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------------- cancels


def test_a_cancel_of_the_run_ends_what_is_under_way_and_what_others_may_be_asking_for() -> None:
    told = fan(window=2)
    told(RUN, end("each[0]"))
    said = told(CANCEL)
    assert {"step.each[1].1.finished", "step.each[2].1.finished"} <= set(said)
    assert said[-1] == "finished"
    assert told.over.outcome is Outcome.CANCELLED
    assert told.statuses == {"each": "cancelled", "last": "cancelled"}


def test_a_cancel_before_a_step_is_mapped_takes_the_place_of_its_number() -> None:
    told = Told(pipeline(node("a"), mapped(node("b", x=Output("a")), "x")), RUN)
    (_, expanded, _) = told.facts(CANCEL)
    assert expanded == StepExpanded(
        run_id=R, key="b", error=ErrorInfo(type="Cancelled", message="cancelled by ada: wrong data")
    )


def test_a_replica_that_does_not_know_of_the_cancel_asks_for_nothing_that_is_not_fenced() -> None:
    """It sees an item of the user's cancelled, which frees a place, and asks for the next one at the same moment."""
    each = mapped(node("each", x=Inline(list(range(9)))), "x", window=2, min_success=0)
    plan = run.Plan(pipeline(each))
    known = [RUN, StepExpanded(run_id=R, key="each", count=9)]
    known += run.decide(run.fold(R, plan, known))
    gone = AttemptFinished(run_id=R, key="each[0]", attempt=1, outcome=Outcome.CANCELLED)
    stale = run.decide(run.fold(R, plan, [*known, gone]))
    assert [fact.tail for fact in stale] == ["step.each[2].1.requested.default"]
    aware = run.fold(R, plan, [*known, CANCEL, gone])
    fenced: list[str] = []
    while decided := run.decide(aware):
        fenced += [fact.tail for fact in decided]
        for fact in decided:
            aware = run.evolve(aware, fact)
    assert "step.each[2].1.finished" in fenced


def test_one_item_is_cancelled_alone() -> None:
    told = fan(min_success=3)
    told(RUN)
    assert told(cancel("each[1]")) == ["step.each[1].1.finished"]
    told(*(end(f"each[{n}]") for n in (0, 2, 3)))
    assert told.statuses["each"] == "succeeded"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([cancel("each[1]")], "1 of 4 items was cancelled"),
        ([cancel("each[1]"), cancel("each[2]")], "2 of 4 items were cancelled"),
        ([cancel("each[1]"), end("each[2]", FAILED)], "1 of 4 items failed and 1 was cancelled"),
    ],
)
def test_items_that_were_cancelled_are_not_said_to_have_failed(bad: list[Fact], said: str) -> None:
    told = fan()
    told(RUN, *bad, *(end(f"each[{n}]") for n in range(4)))
    assert told.statuses["each"] == "failed"
    assert told.state.steps["each"].reason == said
    assert told.over.error is not None and f"{said}; the first, each[1]: " in told.over.error


@pytest.mark.parametrize("expanded", [False, True])
def test_an_item_that_waits_for_its_turn_is_cancelled_when_it_has_it(expanded: bool) -> None:
    told = fan(window=1, min_success=0)
    told(*((RUN, cancel("each[2]")) if expanded else (cancel("each[2]"), RUN)))
    assert told(end("each[0]")) == ["step.each[1].1.requested.default"]
    assert told(end("each[1]")) == ["step.each[2].1.finished", "step.each[3].1.requested.default"]
    assert told.state.find("each[2]").reason == "cancelled by ada: wrong data"  # type: ignore[union-attr]
    assert told.state.stops == {}


@pytest.mark.parametrize("key", ["each[4]", "each[99]", "last[0]", "unknown[0]", "unknown"])
def test_a_cancel_of_what_there_is_not_changes_nothing(key: str) -> None:
    told = fan()
    told(RUN)
    assert told(cancel(key)) == []
    assert told.state.stops == {}


def test_a_mapped_step_is_cancelled_with_all_its_items() -> None:
    told = fan(window=2)
    told(RUN)
    told(cancel("each"))
    assert told.statuses == {"each": "cancelled", "last": "skipped"}
    assert told.over.outcome is Outcome.CANCELLED


def test_what_comes_too_late_is_given_back() -> None:
    """Facts that a replica wrote that did not know that the step was over have what they began ended."""
    told = fan(window=1)
    told(RUN, CANCEL)
    told.effects()
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
    assert told(late, AttemptHeld(run_id=R, key="each[3]", attempt=1)) == []
    assert told.effects() == [effects.Kill("each[1]", 1), effects.Release("each[3]", 1)]


# --------------------------------------------------------------------------------------------------- early, large, odd


def test_an_end_of_an_item_may_be_known_before_its_request() -> None:
    told = fan(window=4)
    told.state = run.evolve(told.state, end("each[1]"))
    told(RUN)
    assert told.state.find("each[1]").status == "succeeded"  # type: ignore[union-attr]


def test_results_that_are_large_together_are_named_and_not_kept() -> None:
    big = "x" * 60_000
    told = fan(over=Inline(list(range(12))))
    told(RUN, *(end(f"each[{n}]", result=big) for n in range(11)))
    (last,) = requests(told, end("each[11]", result=big))
    assert last.inputs["all"] == Collected(CollectedRef(key="each", count=12, output="result"))
    each = told.state.steps["each"]
    assert each.fan is not None
    assert each.fan.items[11].outputs == {}


def test_elements_of_large_results_are_named_each() -> None:
    first = mapped(node("a", x=Inline(list(range(12)))), "x")
    told = Told(pipeline(first, mapped(node("b", y=Output("a")), "y")), RUN)
    told(*(end(f"a[{n}]", result="x" * 60_000) for n in range(11)))
    items = requests(told, end("a[11]", result="x" * 60_000))
    assert items[11].inputs["y"] == Earlier(ResultRef(key="a[11]", attempt=1, output="result"))


def test_elements_that_are_large_together_are_named_and_not_sent() -> None:
    big = "x" * 300_000
    lists = {"x": values.BoundItems((Output("a"), Inline(1))), "y": Output("b")}
    told = Told(pipeline(node("a"), node("b"), mapped(node("c", **lists), "x", "y")), RUN)
    told(end("a", result=big))
    (first, _) = requests(told, end("b", result=[big, 2]))
    assert first.inputs == {
        "x": Earlier(ResultRef(key="a", attempt=1, output="result")),
        "y": Element(Earlier(ResultRef(key="b", attempt=1, output="result")), (0,)),
    }


def test_an_item_that_starts_is_said_to_run() -> None:
    told = fan()
    told(RUN)
    told(AttemptStarted(run_id=R, key="each[1]", attempt=1, executor="e", started_at=5.0))
    item = told.state.find("each[1]")
    assert item is not None
    assert (item.status, item.executor, item.started_at) == ("running", "e", 5.0)


def test_no_item_is_begun_beyond_the_count_or_with_a_later_attempt() -> None:
    told = fan(over=Inline([1]))
    told(RUN)
    before = run.decide(told.state)
    for key, attempt in (("each[1]", 1), ("each[7]", 1), ("each[0]", 3), ("last[0]", 1)):
        held = AttemptHeld(run_id=R, key=key, attempt=attempt)
        assert told(held) == before
    assert len(told.state.steps["each"].fan.items) == 1  # type: ignore[union-attr]
