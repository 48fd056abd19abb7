"""Traces of runs: W3C Trace Context from facts alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import trace_context, tracing
from penstock_core.facts import AttemptFinished, ErrorInfo, Outcome, RunFinished, RunRequested

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def requested(run_id: str = "r", **trigger: str) -> RunRequested:
    return RunRequested(run_id=run_id, project="d", pipeline="p", version=1, requested_at=10.0, trigger=trigger)


def test_a_run_continues_the_trace_of_its_cause() -> None:
    own = tracing.of_run(requested(traceparent=PARENT))
    assert own.trace == "4bf92f3577b34da6a3ce929d0e0e4736" and own.span != "00f067aa0ba902b7"
    attempts = {tracing.of_attempt(requested(traceparent=PARENT), key, n) for key in "ab" for n in (1, 2)}
    assert len(attempts) == 4 and {one.trace for one in attempts} == {own.trace}


def test_without_a_cause_a_trace_begins_with_the_run() -> None:
    one, other = tracing.of_run(requested("a")), tracing.of_run(requested("b"))
    assert one.trace != other.trace and one == tracing.of_run(requested("a"))
    assert trace_context.parse(one.traceparent()) == one


@pytest.mark.parametrize(
    "text",
    [
        "", "x", PARENT + "0", PARENT.upper(), PARENT.replace("00-", "01-", 1),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01", PARENT + "\n",
    ],
)  # fmt: skip
def test_what_is_not_valid_is_ignored(text: str) -> None:
    assert trace_context.parse(text) is None and trace_context.given(text) == {}
    assert tracing.of_run(requested(traceparent=text)) == tracing.of_run(requested())


@given(st.text(max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    found = trace_context.parse(text)
    assert found is None or len(found.trace) == 32


def test_the_spans_of_a_run() -> None:
    bad = ErrorInfo(type="ValueError", message="bad")
    failed = AttemptFinished(
        run_id="r", key="a", attempt=1, outcome=Outcome.FAILED, error=bad, started_at=11, finished_at=12
    )
    ends = [failed, AttemptFinished(run_id="r", key="a", attempt=2, outcome=Outcome.CACHED, finished_at=13)]
    run = requested(traceparent=PARENT, type="event", event_type="com.acme.x")
    root, first, second = tracing.spans(run, RunFinished(run_id="r", outcome=Outcome.SUCCEEDED), ends, 14.0)
    assert (root.parent, root.started_at, root.finished_at, root.error) == ("00f067aa0ba902b7", 10.0, 14.0, "")
    assert root.attributes["penstock.event_type"] == "com.acme.x"
    assert first.parent == second.parent == root.id.span
    assert (first.started_at, first.finished_at, first.error) == (11, 12, "bad")
    assert second.started_at == second.finished_at == 13 and first.id != second.id
