"""Which reasons `penstock runs explain` shows."""

from __future__ import annotations

import pytest

from penstock.client.views import Reasons, StepReason
from penstock_cli.errors import UsageError
from penstock_cli.runs import explain


def reasons(*steps: StepReason) -> Reasons:
    return Reasons("r", "p", 1, "running", 0.0, {step.key: step for step in steps})


def reason(key: str, state: str = "waiting", *caused_by: str) -> StepReason:
    return StepReason(key, state, "why", caused_by)


def test_causes_are_listed_once_nearest_first() -> None:
    found = reasons(
        reason("a", "running"),
        reason("b", "waiting", "a"),
        reason("c", "waiting", "a", "b"),
        reason("d", "waiting", "b", "c", "gone"),
        reason("e", "waiting"),
    )
    assert [step.key for step in explain.chain(found, "d")] == ["d", "b", "c", "a"]
    assert [step.key for step in explain.chain(found, "e")] == ["e"]
    with pytest.raises(UsageError, match="has no step 'x'; it has: a, b, c, d, e"):
        explain.chain(found, "x")


def test_circular_and_long_cause_chains_are_cut_off() -> None:
    assert len(explain.chain(reasons(reason("a", "skipped", "b"), reason("b", "skipped", "a")), "a")) == 2
    many = [reason(f"n{at}") for at in range(500)]
    assert len(explain.chain(reasons(*many, reason("end", "waiting", *(step.key for step in many))), "end")) == 20


def test_a_short_run_is_shown_completely_in_order() -> None:
    steps = [reason("a", "succeeded"), reason("b", "failed")]
    assert explain.fit_to_screen(steps) == (steps, {})


def test_a_long_run_shows_relevant_steps_first() -> None:
    steps = [reason(f"n{at}", "succeeded") for at in range(50)]
    steps += [reason("w", "waiting"), reason("r", "running"), reason("f", "failed"), reason("new", "of the future")]
    shown, left = explain.fit_to_screen(steps)
    assert [step.key for step in shown[:5]] == ["f", "new", "r", "w", "n0"]
    assert len(shown) == 30 and left == {"succeeded": 24}
