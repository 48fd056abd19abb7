"""The retry policy: which outcomes are retried, how often, and after which delay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import exhaustion
from penstock_core.facts import ErrorInfo, Outcome
from penstock_core.pipeline.ir import Retry
from penstock_core.run import retry
from penstock_core.run.retry import MAX_LOSSES, History
from penstock_testkit import strategies

VALUE_ERROR = ErrorInfo(type="ValueError", message="no", bases=("Exception",))
KEY_ERROR = ErrorInfo(type="KeyError", message="no", bases=("LookupError", "Exception"))
OOM = ErrorInfo(type="OutOfMemory", message="killed")


def history(failures: int = 1, losses: int = 0, attempt: int = 1, key: str = "a") -> History:
    return History(run_id="r", key=key, attempt=attempt, failures=failures, losses=losses)


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
@pytest.mark.parametrize("retries", [0, 1, 5])
def test_a_failure_is_retried_up_to_the_limit(outcome: Outcome, retries: int) -> None:
    again = [
        retry.decide(Retry(retries=retries), history(n), outcome, VALUE_ERROR).again for n in range(1, retries + 3)
    ]
    assert again == [True] * retries + [False, False]


def test_a_lost_attempt_uses_no_retry_and_no_delay() -> None:
    policy = Retry(retries=0, delay=60)
    for losses in range(1, MAX_LOSSES + 1):
        decision = retry.decide(policy, history(failures=0, losses=losses), Outcome.LOST, None)
        assert (decision.again, decision.delay) == (True, 0.0)
    last = retry.decide(policy, history(failures=0, losses=MAX_LOSSES + 1), Outcome.LOST, None)
    assert not last.again
    assert str(MAX_LOSSES) in last.reason


def test_losses_do_not_count_against_failures_nor_failures_against_losses() -> None:
    assert retry.decide(Retry(retries=1), history(failures=1, losses=MAX_LOSSES), Outcome.FAILED, VALUE_ERROR).again
    assert retry.decide(Retry(retries=0), history(failures=50, losses=1), Outcome.LOST, None).again


def test_a_cancelled_attempt_is_not_retried() -> None:
    decision = retry.decide(Retry(retries=9), history(failures=0), Outcome.CANCELLED, None)
    assert not decision.again
    assert decision.reason == "cancelled"


@pytest.mark.parametrize(
    ("on", "error", "again"),
    [
        ((), VALUE_ERROR, True),
        ((), None, True),
        (("ValueError",), VALUE_ERROR, True),
        (("KeyError",), VALUE_ERROR, False),
        (("LookupError",), KEY_ERROR, True),
        (("OSError", "Exception"), KEY_ERROR, True),
        (("Exception",), OOM, False),
        (("OutOfMemory",), OOM, True),
        (("Error",), VALUE_ERROR, False),
        (("ValueError",), None, False),
    ],
)
def test_retry_on_matches_the_type_and_its_bases(on: tuple[str, ...], error: ErrorInfo | None, again: bool) -> None:
    decision = retry.decide(Retry(retries=1, on=on), history(), Outcome.FAILED, error)
    assert decision.again is again
    if not again:
        assert on[0] in decision.reason


@pytest.mark.parametrize("name", ["Timeout", "TimeoutError", "Exception"])
def test_the_time_out_of_a_step_is_a_timeout_error(name: str) -> None:
    error = ErrorInfo(type="Timeout", message="too long")
    assert retry.decide(Retry(retries=1, on=(name,)), history(), Outcome.TIMED_OUT, error).again
    assert not retry.decide(Retry(retries=1, on=("ValueError",)), history(), Outcome.TIMED_OUT, error).again


def test_an_attempt_with_a_missing_environment_is_not_retried() -> None:
    error = ErrorInfo(type=retry.ENVIRONMENT_MISSING, message="numpy 2.0 is missing")
    assert not retry.decide(Retry(retries=9), history(), Outcome.FAILED, error).again


def test_retry_on_does_not_apply_to_lost_attempts() -> None:
    assert retry.decide(Retry(on=("ValueError",)), history(losses=1), Outcome.LOST, None).again


def test_reasons_show_how_many_retries_are_used() -> None:
    policy = Retry(retries=2)
    assert retry.decide(policy, history(1), Outcome.FAILED, VALUE_ERROR).reason == "retry 1 of 2"
    assert retry.decide(policy, history(3), Outcome.FAILED, VALUE_ERROR).reason == "failed, retries used: 2 of 2"


def test_delays_grow_by_the_backoff_up_to_the_maximum() -> None:
    policy = Retry(retries=9, delay=2, backoff=3, max_delay=100)
    assert [retry.delay(policy, history(n)) for n in range(1, 7)] == [2, 6, 18, 54, 100, 100]
    assert [retry.delay(Retry(delay=5), history(n)) for n in (1, 2, 50)] == [5, 5, 5]


def test_a_delay_stays_bounded_where_the_power_overflows() -> None:
    assert retry.delay(Retry(delay=1, backoff=1000, max_delay=60), history(10_000)) == 60
    assert retry.delay(Retry(delay=1e308, backoff=10, max_delay=60), history(3)) == 60
    assert retry.delay(Retry(delay=0, backoff=1000, max_delay=60), history(10_000)) == 0


@given(strategies.policies, st.integers(0, 10_000), st.integers(1, 10_000))
def test_every_delay_is_bounded_and_deterministic(policy: Retry, failures: int, attempt: int) -> None:
    past = history(failures=failures, attempt=attempt)
    delay = retry.delay(policy, past)
    assert delay == retry.delay(policy, past)
    without = retry.delay(Retry(delay=policy.delay, backoff=policy.backoff, max_delay=policy.max_delay), past)
    assert without * (1 - policy.jitter) * (1 - 1e-9) <= delay <= without <= policy.max_delay
    if policy.delay <= policy.max_delay:
        assert without >= policy.delay


def test_jitter_spreads_attempts_deterministically() -> None:
    policy = Retry(delay=100, jitter=0.5)
    delays = [retry.delay(policy, history(key=f"k{n}")) for n in range(1000)]
    assert all(50 <= delay <= 100 for delay in delays)
    assert len(set(delays)) > 990
    tenths = [sum(50 + 5 * part <= delay < 55 + 5 * part for delay in delays) for part in range(10)]
    assert min(tenths) > 60, tenths
    # A literal, so that a change of the jitter is detected: it would change the delays of running runs.
    assert retry.delay(policy, history()) == pytest.approx(64.1187, abs=0.0001)


@given(
    strategies.policies, st.sampled_from(Outcome), st.none() | strategies.errors, st.integers(0, 30), st.integers(0, 30)
)
def test_a_decision_is_total(
    policy: Retry, outcome: Outcome, error: ErrorInfo | None, failures: int, losses: int
) -> None:
    decision = retry.decide(policy, history(failures, losses), outcome, error)
    assert decision.reason
    assert decision.delay >= 0
    assert decision.again or decision.delay == 0


def test_a_shortage_of_the_machine_is_retried_later_and_later() -> None:
    short = ErrorInfo(type=exhaustion.OUT_OF_RESOURCES, message="no space left on device")
    histories = [history(failures=0, losses=losses) for losses in range(1, MAX_LOSSES + 1)]
    decisions = [retry.decide(Retry(), one, Outcome.LOST, short) for one in histories]
    assert all(decision.again for decision in decisions)
    assert [decision.delay for decision in decisions][:7] == [2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    ("now", "deliveries", "wait"),
    [
        (1000.0, 1, 10.0),
        (1004.0, 1, 6.0),
        (1011.0, 2, 0.0),
        (999.5, 1, 10.0),  # the clock of another machine is a little behind
        (1000.0 - 3600, 1, 10.0),  # the clock was set back by an hour
        (1010.0 - 3600, 2, 0.0),
    ],
)
def test_a_clock_that_is_set_back_does_not_delay_a_retry(now: float, deliveries: int, wait: float) -> None:
    assert retry.remaining_delay(1010.0, 1000.0, now, deliveries) == wait
