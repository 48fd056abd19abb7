"""Results that a run reuses from another run: of steps, of mapped steps, of some of their items."""

from __future__ import annotations

from typing import Any

from penstock_core.facts import AttemptRequested, RunFinished, StepReused
from penstock_core.pipeline.values import Collected, CollectedRef, Element, Inline, Items, Output
from penstock_testkit.run_driver import CANCEL, OK, RUN, R, RunDriver, end, mapped_node, node, pipeline

EACH = pipeline(mapped_node(node("each", x=Inline([1, 2, 3])), "x", window=1), node("last", all=Output("each")))
ALL = Collected(CollectedRef(key="each", count=3, output="result", run_id="r0"))


def reused(key: str, result: Any = 7, **more: Any) -> StepReused:
    made: dict[str, Any] = {"outputs": {"result": Inline(result)}}
    return StepReused(run_id=R, key=key, from_run="r0", **(made | more))


def requests(driver: RunDriver, *facts: Any) -> list[AttemptRequested]:
    return [fact for fact in driver.facts(*facts) if isinstance(fact, AttemptRequested)]


def test_a_run_with_only_reused_results_finishes_at_once() -> None:
    driver = RunDriver(pipeline(node("a"), node("b", x=Output("a")), out=Output("b")), reused("a", 1), reused("b", 2))
    assert driver.facts(RUN) == [RunFinished(run_id=R, outcome=OK, outputs={"out": Inline(2)})]


def test_a_step_downstream_of_a_rerun_step_may_be_reused() -> None:
    driver = RunDriver(pipeline(node("a"), node("b", x=Output("a"))), reused("b"))
    assert driver(RUN) == ["step.a.1.requested.default"]
    assert driver(end("a")) == ["finished"]


def test_all_items_of_a_mapped_step_are_reused() -> None:
    driver = RunDriver(EACH, reused("each", count=3, outputs={"result": ALL}))
    (last,) = requests(driver, RUN)
    assert last.inputs == {"all": ALL}


def test_a_step_mapped_over_reused_results_gets_each_item() -> None:
    made = pipeline(mapped_node(node("each", x=Inline([1])), "x"), mapped_node(node("b", y=Output("each")), "y"))
    driver = RunDriver(made, reused("each", count=3, outputs={"result": ALL}))
    assert [item.inputs["y"] for item in requests(driver, RUN)] == [Element(ALL, (n,)) for n in range(3)]


def test_some_items_are_reused_and_the_others_run() -> None:
    driver = RunDriver(EACH, reused("each[0]"), reused("each[2]"), reused("each[9]"))
    (item,) = requests(driver, RUN)
    assert item.key == "each[1]"
    (last,) = requests(driver, end("each[1]", result=8))
    assert last.inputs == {"all": Items((Inline(7), Inline(8), Inline(7)))}
    assert driver.state.reused == {}


def test_reused_items_are_not_requested() -> None:
    wide = pipeline(mapped_node(node("each", x=Inline(list(range(8)))), "x", window=4))
    driver = RunDriver(wide, *(reused(f"each[{n}]") for n in (1, 3, 4, 7)))
    assert [item.key for item in requests(driver, RUN)] == ["each[0]", "each[2]", "each[5]", "each[6]"]


def test_all_items_reused_individually() -> None:
    driver = RunDriver(EACH, *(reused(f"each[{n}]", n) for n in range(3)))
    assert driver(RUN) == ["step.each.expanded", "step.last.1.requested.default"]


def test_large_results_of_reused_items_are_kept() -> None:
    big = "x" * 300_000
    made = pipeline(mapped_node(node("each", x=Inline([1, 2, 3])), "x"), mapped_node(node("b", y=Output("each")), "y"))
    driver = RunDriver(made, *(reused(f"each[{n}]", f"{n}{big}") for n in range(3)))
    assert [item.inputs["y"] for item in requests(driver, RUN)] == [Inline(f"{n}{big}") for n in range(3)]


def test_duplicate_or_late_reuse_changes_nothing() -> None:
    driver = RunDriver(EACH, reused("each[0]"), reused("each[0]", 9))
    driver(RUN)
    driver(reused("each[1]"), reused("each", count=3))
    assert driver.statuses["each"] == "running"
    (last,) = requests(driver, end("each[1]", result=8), end("each[2]", result=8))[-1:]
    assert last.inputs == {"all": Items((Inline(7), Inline(8), Inline(8)))}


def test_results_shorter_than_declared_fail_the_items() -> None:
    made = pipeline(mapped_node(node("each", x=Inline([1])), "x"), mapped_node(node("b", y=Output("each")), "y"))
    driver = RunDriver(made, reused("each", count=2, outputs={"result": Inline([5])}), RUN, end("b[0]"))
    assert "b[1]: InputError: an input is missing: each: a list of 1 has no element [1]" in str(driver.finished.error)


def test_a_cancel_ends_steps_that_were_not_reused() -> None:
    driver = RunDriver(EACH, reused("each[0]"), RUN, CANCEL)
    assert driver.statuses["each"] == "cancelled"
    assert driver.finished.outcome.value == "cancelled"
