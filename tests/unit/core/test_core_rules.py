"""When steps may run: outcomes of their dependencies, and the phase of the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_core.facts import AttemptRequested, Outcome, RunFinished, StepReused
from penstock_core.pipeline.conditions import Truth
from penstock_core.pipeline.ir import Node, Phase, Rule
from penstock_core.pipeline.values import Ending, Inline, Output
from penstock_testkit.run_driver import (
    CANCEL,
    FAILED,
    OK,
    RUN,
    R,
    RunDriver,
    cancel,
    clock,
    end,
    mapped_node,
    node,
    pipeline,
)


def by(rule: Rule, made: Node) -> Node:
    return replace(made, rule=rule)


def at_end(phase: Phase, made: Node) -> Node:
    return replace(made, phase=phase)


DONE, ANY = Rule.ALL_DONE, Rule.ANY_FAILED
EXIT, FAILURE = Phase.ON_EXIT, Phase.ON_FAILURE


@pytest.mark.parametrize(("a", "b"), [(OK, OK), (OK, FAILED), (FAILED, OK), (FAILED, FAILED)])
def test_trigger_rules(a: Outcome, b: Outcome) -> None:
    nodes = (node("a"), node("b"), node("all", "a", "b"), by(DONE, node("done", "a", "b")))
    driver = RunDriver(pipeline(*nodes, by(ANY, node("any", "a", "b"))), RUN)
    driver(end("a", a), end("b", b))
    good = [a, b].count(OK)
    assert driver.statuses["all"] == ("queued" if good == 2 else "skipped")
    assert driver.statuses["done"] == "queued"
    assert driver.statuses["any"] == ("skipped" if good == 2 else "queued")
    driver(*(end(key) for key in ("all", "done", "any")))
    assert driver.finished.outcome is (OK if good == 2 else FAILED)


def test_any_failed_waits_for_all_and_counts_steps_skipped_by_failures() -> None:
    driver = RunDriver(pipeline(node("a"), node("b", "a"), node("c"), by(ANY, node("d", "b", "c"))), RUN)
    assert driver(end("a", FAILED)) == ["step.b.skipped"]
    assert driver(end("c")) == ["step.d.1.requested.default"]


def test_any_failed_ignores_steps_skipped_by_conditions() -> None:
    optional = replace(node("b"), when=Truth(Output("a")))
    driver = RunDriver(pipeline(node("a"), optional, by(ANY, node("d", "b"))), RUN)
    assert driver(end("a", result=0)) == ["step.b.skipped", "step.d.skipped", "finished"]
    assert driver.finished.outcome is OK


def test_all_done_steps_get_none_for_missing_results() -> None:
    driver = RunDriver(pipeline(node("a"), by(DONE, node("d", x=Output("a")))), RUN)
    (request,) = driver.facts(end("a", FAILED))
    assert isinstance(request, AttemptRequested)
    assert request.inputs == {"x": Inline(None)}


# -------------------------------------------------------------------------------------------------------------- phases


def closing(*more: Node) -> RunDriver:
    tidy = at_end(EXIT, node("tidy", how=Ending("outcome"), why=Ending("error"), x=Output("a")))
    alert = at_end(FAILURE, node("alert", why=Ending("error")))
    return RunDriver(pipeline(node("a"), node("b", "a"), tidy, alert, *more), RUN)


def test_exit_handlers_receive_the_outcome_of_the_run() -> None:
    driver = closing()
    assert driver(end("a")) == ["step.b.1.requested.default"]
    request, skip = driver.facts(end("b"))
    assert isinstance(request, AttemptRequested)
    assert request.inputs == {"how": Inline("succeeded"), "why": Inline(None), "x": Inline("a!")}
    assert request.closing
    assert skip.tail == "step.alert.skipped"
    driver(end("tidy"))
    assert driver.finished == RunFinished(run_id=R, outcome=OK)


def test_failure_handlers_run_on_failure() -> None:
    driver = closing()
    said = driver.facts(end("a", FAILED))
    requests = {fact.key: fact.inputs for fact in said if isinstance(fact, AttemptRequested)}
    why = Inline("step 'a' failed: ValueError: no rows")
    assert requests == {"tidy": {"how": Inline("failed"), "why": why, "x": Inline(None)}, "alert": {"why": why}}
    assert driver(end("tidy")) == []
    driver(end("alert"))
    assert driver.finished.outcome is FAILED


def test_exit_handlers_run_after_a_cancel() -> None:
    driver = closing()
    said = driver(CANCEL)
    assert "step.tidy.1.requested.default" in said
    assert "step.alert.skipped" in said
    assert driver(end("tidy")) == ["finished"]
    assert driver.finished.outcome is Outcome.CANCELLED


def test_a_cancel_during_exit_handlers_changes_nothing() -> None:
    driver = closing()
    driver(end("a", FAILED))
    assert driver(CANCEL) == []
    assert driver(end("tidy"), end("alert")) == ["finished"]
    assert driver.finished.outcome is FAILED, "the outcome that the exit handlers received"


def test_a_failing_exit_handler_fails_the_run() -> None:
    driver = closing()
    driver(end("a"), end("b"))
    driver(end("tidy", FAILED))
    assert driver.finished.error == "step 'tidy' failed: ValueError: no rows"


def test_an_exit_handler_can_be_cancelled_alone_even_before_it_starts() -> None:
    driver = closing(at_end(EXIT, node("after", "tidy")))
    assert driver(cancel("tidy")) == ["step.tidy.1.finished", "step.after.skipped"]
    driver(end("a"), end("b"))
    assert driver.finished.outcome is Outcome.CANCELLED


def test_exit_handlers_can_be_mapped() -> None:
    driver = RunDriver(pipeline(node("a"), at_end(EXIT, mapped_node(node("tidy", x=Output("a")), "x"))), RUN)
    assert driver(end("a", result=[1, 2]))[1:] == [
        "step.tidy[0].1.requested.default",
        "step.tidy[1].1.requested.default",
    ]
    driver(end("tidy[0]"), end("tidy[1]"))
    assert driver.finished.outcome is OK


def test_exit_handlers_run_after_the_deadline() -> None:
    driver = RunDriver(pipeline(node("a"), at_end(EXIT, node("tidy"))), replace(RUN, deadline=50.0))
    assert driver(clock(49.0)) == []
    assert driver(clock(50.0)) == ["step.a.1.finished", "step.tidy.1.requested.default"]
    assert driver.state.alarm() is None
    driver(end("tidy"))
    assert driver.finished == RunFinished(run_id=R, outcome=FAILED, error="the run did not finish by its deadline")


# -------------------------------------------------------------------------------------------------------------- reuse


def test_reused_results_count_as_succeeded() -> None:
    reused = StepReused(run_id=R, key="a", from_run="r0", outputs={"result": Inline(7)}, metrics={"loss": 0.5})
    driver = RunDriver(pipeline(node("a"), node("b", x=Output("a"))), reused)
    (request,) = driver.facts(RUN)
    assert isinstance(request, AttemptRequested)
    assert request.inputs == {"x": Inline(7)}
    a = driver.state.steps["a"]
    assert (a.status, a.metrics, a.reason) == ("cached", {"loss": 0.5}, "reused its result from run r0")
