"""Conditions and choices between results: values read, steps run, and reasons for skipped steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock_core.facts import AttemptRequested, Outcome, StepSkipped
from penstock_core.pipeline import values
from penstock_core.pipeline.conditions import AllOf, AnyOf, Compare, Condition, Not, Truth
from penstock_core.pipeline.values import Inline, OneOf, Output, Param, Pick
from penstock_testkit.run_driver import FAILED, RUN, R, RunDriver, end, mapped_node, node, pipeline

A, B = Output("a"), Output("b")


def when(condition: Condition) -> RunDriver:
    """Steps a and b, and one that runs when a condition on their results holds; another one waits for that."""
    guarded = replace(node("c"), when=condition)
    return RunDriver(pipeline(node("a"), node("b"), guarded, node("d", x=Output("c")), out=Output("c")), RUN)


def decided(condition: Condition, a: Any, b: Any = 0) -> str:
    driver = when(condition)
    said = driver(end("a", result=a), end("b", result=b))
    return said[0].removeprefix("step.c.")


@pytest.mark.parametrize(
    ("condition", "a", "holds"),
    [
        (Compare("ge", A, Inline(3)), 3, True),
        (Compare("gt", A, Inline(3)), 3, False),
        (Compare("lt", Inline(2), A), 3, True),
        (Compare("le", A, Inline(2.5)), 3, False),
        (Compare("eq", A, Param("url")), "u", True),
        (Compare("ne", A, Param("url")), "u", False),
        (Compare("gt", Pick(A, ("auc",)), Inline(0.9)), {"auc": 0.95}, True),
        (Compare("gt", Pick(A, (0, "auc")), Inline(0.9)), [{"auc": 0.5}], False),
        (Compare("eq", A, Inline([1, 2])), {"$type": "tuple", "items": [1, 2]}, True),
        (Compare("gt", A, Inline(0)), {"$type": "float", "value": "inf"}, True),
        (Truth(A), [], False),
        (Truth(A), "no", True),
        (Not(Truth(A)), 0, True),
        (AllOf((Truth(A), Truth(B))), 1, False),
        (AnyOf((Truth(A), Truth(B))), 1, True),
        # Evaluation short-circuits: this operand could not be compared.
        (AnyOf((Truth(A), Compare("gt", A, Inline("x")))), 1, True),
        (AllOf((Truth(A), Compare("gt", A, Inline("x")))), 0, False),
    ],
)
def test_a_step_runs_when_its_condition_holds(condition: Condition, a: Any, holds: bool) -> None:
    assert decided(condition, a) == ("1.requested.default" if holds else "skipped")


def test_a_false_condition_skips_the_step_with_its_values_and_the_run_succeeds() -> None:
    driver = when(AllOf((Compare("ge", Pick(A, ("auc",)), Inline(0.9)), Truth(B))))
    skip, after, over = driver.facts(end("b", result=1), end("a", result={"auc": 0.5}))
    assert skip == StepSkipped(
        run_id=R,
        key="c",
        reason="its condition is false: a.auc >= 0.9 and b (a.auc is 0.5, b is 1)",
        expected=True,
    )
    assert after == StepSkipped(run_id=R, key="d", reason="step 'c' was skipped", cause="c", expected=True)
    assert over.outcome is Outcome.SUCCEEDED  # type: ignore[union-attr]
    assert over.outputs == {"out": Inline(None)}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("a", "why"),
    [
        ("x", "a > 3: str > int cannot be compared"),
        (None, "a > 3: NoneType > int cannot be compared"),
    ],
)
def test_a_condition_that_cannot_be_evaluated_fails_the_step(a: Any, why: str) -> None:
    driver = RunDriver(pipeline(node("a"), replace(node("c"), when=Compare("gt", A, Inline(3)))), RUN)
    driver(end("a").__class__(run_id=R, key="a", attempt=1, outcome=Outcome.SUCCEEDED, outputs={"result": Inline(a)}))
    assert driver.statuses["c"] == "failed"
    assert driver.finished.error == f"step 'c' failed: ConditionError: its condition cannot be evaluated: {why}"


def test_a_condition_never_opens_an_artifact() -> None:
    stored = values.Stored(values.ArtifactRef(sha256="a" * 64, size=1, media_type="", format="pickle"))
    driver = RunDriver(pipeline(node("a"), replace(node("c"), when=Truth(A))), RUN)
    driver(replace(end("a"), outputs={"result": stored}))
    assert driver.statuses["c"] == "failed"
    assert "stored as an artifact" in str(driver.finished.error)


def deep(depth: int) -> Any:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    return data


@pytest.mark.parametrize("result", [10**5000, deep(900), {"$type": "int", "value": hex(10**5000)}], ids=type)
def test_very_large_results_never_break_a_decision(result: Any) -> None:
    driver = RunDriver(pipeline(node("a"), replace(node("c"), when=Not(Truth(A)))), RUN)
    driver(replace(end("a"), outputs={"result": Inline(result)}))
    assert driver.statuses["c"] in ("skipped", "failed")


# ------------------------------------------------------------------------------------------------- one of several


def test_one_of_takes_the_first_available_result() -> None:
    either = node("c", x=OneOf((A, B)))
    driver = RunDriver(pipeline(node("a"), node("b"), either), RUN)
    assert driver(end("a", FAILED)) == []
    (request,) = driver.facts(end("b", result=7))
    assert isinstance(request, AttemptRequested)
    assert request.inputs == {"x": Inline(7)}


def test_a_step_without_any_available_result_is_skipped() -> None:
    driver = RunDriver(pipeline(node("a"), node("b"), node("c", x=OneOf((A, B)))), RUN)
    skip, _ = driver.facts(end("a", FAILED), end("b", FAILED))
    assert skip == StepSkipped(run_id=R, key="c", reason="none of 'a', 'b' succeeded", cause="a")


def test_two_branches_of_a_condition_join() -> None:
    yes, no = replace(node("yes"), when=Truth(A)), replace(node("no"), when=Not(Truth(A)))
    joined = node("join", x=OneOf((Output("yes"), Output("no"))))
    driver = RunDriver(pipeline(node("a"), yes, no, joined), RUN)
    assert driver(end("a", result=0)) == ["step.yes.skipped", "step.no.1.requested.default"]
    (request,) = driver.facts(end("no"))
    assert request.inputs == {"x": Inline("no!")}  # type: ignore[union-attr]
    driver(end("join"))
    assert driver.finished.outcome is Outcome.SUCCEEDED


def test_a_constant_option_is_enough() -> None:
    driver = RunDriver(pipeline(node("a"), node("c", x=OneOf((A, Inline("otherwise"))))), RUN)
    (request,) = driver.facts(end("a", FAILED))
    assert isinstance(request, AttemptRequested)
    assert request.inputs == {"x": Inline("otherwise")}


def test_a_condition_can_read_one_of_several_results() -> None:
    driver = RunDriver(
        pipeline(node("a"), node("b"), replace(node("c"), when=Compare("gt", OneOf((A, B)), Inline(3)))), RUN
    )
    assert driver(end("a", FAILED)) == []
    assert driver(end("b", result=4)) == ["step.c.1.requested.default"]


def test_a_missing_item_fails_the_step_that_reads_it() -> None:
    driver = RunDriver(pipeline(node("a"), node("c", x=Pick(A, ("auc",)))), RUN)
    driver(end("a", result={"loss": 1}))
    assert driver.finished.error == (
        "step 'c' failed: InputError: an input is missing: a.auc: there is no field 'auc' (fields: 'loss')"
    )


def test_results_of_items_are_read_as_a_list() -> None:
    each = mapped_node(node("a", x=Inline([1, 2])), "x")
    driver = RunDriver(pipeline(each, replace(node("c"), when=Compare("eq", A, Inline([10, 20])))), RUN)
    assert driver(end("a[1]", result=20), end("a[0]", result=10)) == ["step.c.1.requested.default"]
