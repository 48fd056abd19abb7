"""Invariants of the log of a run under any failure: the platform's guarantees as functions over facts.

They do not use the state machine: `log_index` derives the expected values independently from facts and pipeline.
`check` may be called on a log of any length; each invariant raises `InvariantError` with the facts that break it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    Fact,
    Outcome,
)
from penstock_core.pipeline.ir import Kind, Phase, Pipeline, Rule
from penstock_core.run.retry import MAX_LOSSES
from penstock_testkit.checks.log_index import NEVER, InvariantError, Log, index_of, node_of
from penstock_testkit.checks.plain_data import MISSING, unreadable
from penstock_testkit.checks.value_invariants import counts_match_lists, inputs_match_results, outputs_match_results

__all__ = ["INVARIANTS", "InvariantError", "check", "node_of", "unreadable"]

_BAD = (Outcome.FAILED, Outcome.TIMED_OUT)


def one_fact_per_subject(log: Log) -> None:
    """Each append-once subject has one fact, so each attempt has at most one end."""
    seen: set[str] = set()
    for fact in log.facts:
        if fact.append_once and fact.tail in seen:
            raise InvariantError(f"{fact.tail} is in the log twice")
        seen.add(fact.tail)


def attempts_are_consecutive(log: Log) -> None:
    """Attempt 1 comes first; attempt n + 1 begins only after attempt n ended with an outcome that is retried."""
    for key, begun in list(log.begun.items()):
        if sorted(begun) != list(range(1, len(begun) + 1)):
            raise InvariantError(f"step {key} has attempts {sorted(begun)}")
        for attempt, index in begun.items():
            if attempt == 1:
                continue
            end = log.ends[key].get(attempt - 1)
            if end is None or end[0] > index or not log.is_retried(key, attempt - 1):
                raise InvariantError(f"attempt {attempt} of {key} began though {attempt - 1} ended with {end}")


def starts_only_when_ready(log: Log) -> None:
    """A step begins only when its trigger rule and condition hold, an item only after its step is expanded."""
    first = {key: min(begun.values()) for key, begun in list(log.begun.items()) if begun}
    first |= {key: index for key, (index, fact) in log.expanded.items() if fact.error is None}
    for key, index in first.items():
        node = log.nodes[node_of(log.nodes, key)]
        if node.key != key:
            count = log.count(node.key, index)
            if count is None or index_of(key) >= count:
                raise InvariantError(f"item {key} began, of {count}")
        elif not log.may_run(node, index):
            raise InvariantError(f"step {key} began at {index}, which its rule or condition does not let it")


def requests_have_slots(log: Log) -> None:
    """An attempt that needs slots is requested only after it acquired them."""
    for key, requests in list(log.requests.items()):
        if log.spec(key).concurrency is None:
            continue
        for attempt, index in requests.items():
            if log.granted[key].get(attempt, NEVER) > index and not unreadable(log.facts[index]):
                raise InvariantError(f"attempt {attempt} of {key} was requested without its slots")


def window_is_respected(log: Log) -> None:
    """The number of unfinished items of a mapped step never exceeds its window."""
    for node in log.nodes.values():
        if node.mapped is None:
            continue
        begun = sorted((min(log.begun[item].values()), item) for item in log.items(node.key) if log.begun[item])
        if len(begun) <= node.mapped.window:
            continue
        for number, (index, item) in enumerate(begun):
            open_now = [other for _, other in begun[:number] if not log.final(other, index)]
            # An attempt fenced before it began is finished, although an unaware replica requested it.
            if len(open_now) >= node.mapped.window and not log.final(item, index):
                raise InvariantError(f"{item} began while {open_now} were under way")


def requests_are_complete(log: Log) -> None:
    """A request names the step's entry point and pool and respects the bounds of the retry delay."""
    for fact in log.facts:
        if not isinstance(fact, AttemptRequested) or unreadable(fact):
            continue
        spec = log.spec(fact.key)
        if (fact.entrypoint, fact.pool, fact.outputs) != (spec.entrypoint, spec.pool, spec.outputs):
            raise InvariantError(f"{fact.tail} does not fit its step: {fact}")
        past = [end for n, (_, end) in log.ends[fact.key].items() if n < fact.attempt]
        short = sum(end.error is not None and end.error.type == "OutOfMemory" for end in past)
        needs = spec.resources
        if needs.memory is not None and fact.resources.memory != needs.memory * needs.memory_growth**short:
            raise InvariantError(f"{fact.tail} has {fact.resources.memory} bytes after {short} shortages")
        previous = log.ends[fact.key].get(fact.attempt - 1)
        delayed = previous is not None and previous[1].outcome is not Outcome.LOST and spec.retry.delay > 0
        if previous is None or not delayed or not previous[1].finished_at:
            if fact.not_before is not None:
                raise InvariantError(f"{fact.tail} waits for no reason until {fact.not_before}")
            continue
        failures = sum(end.outcome in _BAD for end in past)
        longest = min(spec.retry.delay * spec.retry.backoff ** (failures - 1), spec.retry.max_delay)
        waits = (fact.not_before or 0.0) - previous[1].finished_at
        if not longest * (1 - spec.retry.jitter) - 1e-6 <= waits <= longest + 1e-6:
            raise InvariantError(f"{fact.tail} waits {waits} s; the policy says at most {longest}")


def skipped_or_run(log: Log) -> None:
    """A skipped step was never begun and has no result."""
    for key, (index, _) in log.skips.items():
        begun = list(log.begun[key].values())
        if key in log.expanded and log.expanded[key][1].error is None:
            begun.append(log.expanded[key][0])
        # A replica unaware of the cancel may request an exit handler late.
        late = log.nodes[node_of(log.nodes, key)].phase is not Phase.MAIN and log.cancel is not None
        if begun and not (late and min(begun) > index):
            raise InvariantError(f"step {key} is both skipped and begun")


def skips_have_causes(log: Log) -> None:
    """A skipped step records its true cause, and whether the pipeline's conditions led to it."""
    for key, (index, skip) in log.skips.items():
        if unreadable(skip) or skip.error is not None or log.final(key, index):
            continue  # a skip of a finished step by an unaware replica has no effect
        node = log.nodes[key]
        cause = skip.cause
        if cause is not None:
            if cause not in log.needs[key] or not log.final(cause, index) or log.good(cause):
                raise InvariantError(f"step {key} is skipped because of {cause}: {skip.reason}")
            if skip.expected == log.failed(cause, index):
                raise InvariantError(f"step {key} is skipped as {skip.expected=} because of {cause}")
            continue
        calm = node.rule is Rule.ANY_FAILED and not any(log.failed(other, index) for other in log.needs[key])
        quiet = node.phase is Phase.ON_FAILURE
        refused = node.when is not None and log.holds(node.when) is False
        if not skip.expected or not (calm or quiet or refused):
            raise InvariantError(f"step {key} is skipped for no reason: {skip.reason}")


def ends_have_starts(log: Log) -> None:
    """An attempt ends only if it had begun, or if a cancel or deadline prevented its beginning."""
    for key, ends in list(log.ends.items()):
        for attempt, (index, end) in ends.items():
            spoilt = end.error is not None and end.error.type == "CorruptEvent"
            stopped = log.stopped(key, index) or _failure_limit_reached(log, key, index)
            fence = end.outcome is Outcome.CANCELLED and stopped
            if log.begun[key].get(attempt, index) >= index and not fence and not spoilt:
                raise InvariantError(f"{end.tail} came before its request")


def _failure_limit_reached(log: Log, key: str, index: int) -> bool:
    """Whether so many items failed that no further ones may begin."""
    node = node_of(log.nodes, key)
    count = log.count(node, index) if node != key else None
    if count is None:
        return False
    bad = sum(log.final(item, index) and not log.good(item, index) for item in log.items(node))
    return bad > count - log.must(node, count)


def timeouts_follow_clock(log: Log) -> None:
    """Timeouts follow the recorded clock, and an attempt that started in time does not time out in the queue."""
    for key, ends in list(log.ends.items()):
        for attempt, (index, end) in ends.items():
            wait = log.suspended[key].get(attempt)
            timed = (
                wait is not None and end.executor != "answer" and (wait.kind is Kind.SLEEP or _timed_out_by_clock(end))
            )
            timed = timed and end.outcome in (Outcome.SUCCEEDED, Outcome.TIMED_OUT)
            if timed and wait is not None and wait.until and log.clock(wait.until) > index:
                raise InvariantError(f"{end.tail} came before its time {wait.until}")
            if end.error is None or end.error.type != "QueueTimeout" or "late" in end.error.message:
                continue
            due = _start_by(log, key, attempt)
            if due is None or log.clock(due) > index or log.started[key].get(attempt, NEVER) < log.clock(due):
                raise InvariantError(
                    f"{end.tail} is a queue time-out, due {due}, started {log.started[key].get(attempt)}"
                )


def _timed_out_by_clock(end: AttemptFinished) -> bool:
    return end.error is not None and end.error.type == "Timeout"


def _start_by(log: Log, key: str, attempt: int) -> float | None:
    found = [
        fact.start_by
        for fact in log.facts
        if isinstance(fact, AttemptRequested | AttemptQueued) and (fact.key, fact.attempt) == (key, attempt)
    ]
    return next((at for at in found if at is not None), None)


def attempts_are_bounded(log: Log) -> None:
    """A step has at most retries + 1 attempts, not counting lost ones; lost attempts are bounded too."""
    for key, begun in list(log.begun.items()):
        losses = sum(end.outcome is Outcome.LOST for _, end in log.ends[key].values())
        if len(begun) > log.spec(key).retry.retries + 1 + losses or losses > MAX_LOSSES + 1:
            raise InvariantError(f"step {key} was tried {len(begun)} times with {losses} losses")


def run_finishes_last(log: Log) -> None:
    """The run finishes once, after all steps are terminal; every begun attempt has an end, even one begun late."""
    if len(log.finished) > 1:
        raise InvariantError("the run finished twice")
    for index, end in log.finished:
        if end.outcome is Outcome.SKIPPED:
            if log.admitted is not None or any(log.begun.values()):
                raise InvariantError("a run that was under way was skipped")
            continue
        still = [key for key in log.nodes if not log.final(key, index)]
        if still:
            raise InvariantError(f"the run finished while {still} were not final")
        for key, begun in list(log.begun.items()):
            for attempt in begun:
                if log.ends[key].get(attempt, (NEVER,))[0] > index and not _ended_by_other_fact(log, key):
                    raise InvariantError(f"the run finished while attempt {attempt} of {key} was under way")


def _ended_by_other_fact(log: Log, key: str) -> bool:
    """Whether a fact other than an end finished the step, unknown to the replica that began the attempt."""
    node = node_of(log.nodes, key)
    return any(one in log.skips or one in log.reused for one in (key, node))


def outcome_matches_steps(log: Log) -> None:
    """A run succeeds if all steps succeeded or were skipped by conditions; otherwise there is a reason."""
    for index, end in log.finished:
        if end.outcome is Outcome.SKIPPED:
            continue
        bad = [key for key in log.nodes if log.failed(key, index)]
        missing = any(_missing(log.expected(binding)) for binding in log.pipeline.outputs.values())
        true = {
            Outcome.SUCCEEDED: all(_skipped_by_cancel(log, key, index) for key in bad),
            Outcome.FAILED: bool(bad) or missing,
            Outcome.CANCELLED: bool(bad)
            and (log.cancel_index() < index or any(_cancelled(log, key, index) for key in bad)),
        }
        if not true.get(end.outcome):
            raise InvariantError(f"the run {end.outcome}: {bad} of {len(log.nodes)} steps did not succeed")
        if end.outcome is not Outcome.SUCCEEDED and not end.error:
            raise InvariantError(f"the run {end.outcome} without a reason")


def _skipped_by_cancel(log: Log, key: str, before: int) -> bool:
    """Whether a replica unaware of the step's cancel skipped it because of a condition."""
    index, skip = log.skips.get(key, (NEVER, None))
    return skip is not None and skip.expected and index < before and log.stopped(key, index)


def _missing(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_missing, value.values()))
    return any(map(_missing, value)) if isinstance(value, list) else value is MISSING


def branches_finish(log: Log) -> None:
    """Without a cancel, a step runs exactly when its rule and condition allow it; exit handlers always run."""
    if not log.finished or log.finished[0][1].outcome is Outcome.SKIPPED:
        return
    for node in log.nodes.values():
        key = node.key
        if log.stopped(key) or key in log.reused or (key in log.skips and unreadable(log.skips[key][1])):
            continue
        expanded = log.expanded.get(key)
        ran = bool(log.begun[key]) or expanded is not None
        failed = key in log.skips and log.skips[key][1].error is not None
        if node.phase is Phase.ON_FAILURE and (
            log.cancel is not None or any(_cancelled(log, one, NEVER) for one in log.nodes)
        ):
            continue  # such a run may either fail or be cancelled
        if log.may_run(node) and not (ran or failed):
            raise InvariantError(f"step {key} did not run, though nothing kept it from running")
        if not log.may_run(node) and ran and (expanded is None or expanded[1].error is None):
            raise InvariantError(f"step {key} ran, which its rule or condition does not let it")


INVARIANTS: tuple[Callable[[Log], None], ...] = (
    one_fact_per_subject,
    attempts_are_consecutive,
    starts_only_when_ready,
    requests_have_slots,
    window_is_respected,
    inputs_match_results,
    counts_match_lists,
    requests_are_complete,
    skipped_or_run,
    skips_have_causes,
    ends_have_starts,
    timeouts_follow_clock,
    attempts_are_bounded,
    run_finishes_last,
    outcome_matches_steps,
    outputs_match_results,
    branches_finish,
)


def check(pipeline: Pipeline, facts: Sequence[Fact]) -> None:
    """Check every invariant of a run's log, finished or not.

    Raises:
        Violation: one does not hold.
    """
    log = Log(pipeline, facts)
    for invariant in INVARIANTS:
        invariant(log)


def _cancelled(log: Log, key: str, before: int) -> bool:
    """Whether a step that did not succeed was cancelled: a mapped one also if a cancel came before its last item."""
    if log.is_mapped(key) and log.stopped(key, before):
        return True
    known = [key, *log.items(key)] if log.is_mapped(key) else [key]
    expanded = log.expanded.get(key)
    fenced = expanded is not None and expanded[1].error is not None and expanded[1].error.type == "Cancelled"
    return fenced or any(end.outcome is Outcome.CANCELLED for one in known for _, end in log.ends[one].values())
