"""Counters for Prometheus of what processes append to logs. Every label has few values, whatever users do."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Histogram

from penstock_core.facts import AttemptFinished, Fact, RunFinished

FACTS = Counter("penstock_facts_appended", "Facts that this process appended to the log of runs.", ["fact"])
RUNS_FINISHED = Counter("penstock_runs_finished", "Runs whose end this process appended.", ["outcome"])
ATTEMPTS_FINISHED = Counter("penstock_attempts_finished", "Attempts whose end this process appended.", ["outcome"])
ATTEMPT_SECONDS = Histogram(
    "penstock_attempt_seconds",
    "Time in the functions of steps.",
    buckets=(0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
DECISIONS = Counter("penstock_trigger_decisions", "Decisions on events that this process appended.", ["outcome"])


def count_facts(facts: Iterable[Fact], written: Iterable[bool]) -> None:
    """Count the facts that were written; the others were known before."""
    for fact, was_written in zip(facts, written, strict=True):
        if not was_written:
            continue
        FACTS.labels(type(fact).__name__).inc()
        if isinstance(fact, AttemptFinished):
            ATTEMPTS_FINISHED.labels(fact.outcome.value).inc()
            if fact.started_at and fact.finished_at:
                ATTEMPT_SECONDS.observe(max(0.0, fact.finished_at - fact.started_at))
        elif isinstance(fact, RunFinished):
            RUNS_FINISHED.labels(fact.outcome.value).inc()
