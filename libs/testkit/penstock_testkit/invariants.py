"""What must hold of the log of a run, whatever happened: the platform's promises as functions over facts.

They do not use the state machine: what must be true is worked out from the facts and the pipeline anew. `check` may be
called on a log of any length; each invariant raises `Violation` with the facts that break it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from penstock_core import values
from penstock_core.facts import (
    GOOD,
    AttemptFinished,
    AttemptRequested,
    CancelRequested,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
    StepSkipped,
)
from penstock_core.ir import Pipeline, dependencies
from penstock_core.retry import MAX_LOSSES
from penstock_core.values import Binding, Value


class Violation(AssertionError):
    """An invariant does not hold."""


class Log:
    """The facts of one run in log order, with indexes. Unreadable messages are given as what they stand for."""

    def __init__(self, pipeline: Pipeline, facts: Sequence[Fact]) -> None:
        self.pipeline = pipeline
        self.nodes = {node.key: node for node in pipeline.nodes}
        self.specs = {node.key: pipeline.steps[node.step] for node in pipeline.nodes}
        self.needs = {node.key: dependencies(node) for node in pipeline.nodes}
        self.facts = facts
        self.requests: dict[str, dict[int, int]] = defaultdict(dict)
        self.ends: dict[str, dict[int, tuple[int, AttemptFinished]]] = defaultdict(dict)
        self.skips: dict[str, tuple[int, StepSkipped]] = {}
        self.finished: list[tuple[int, RunFinished]] = []
        self.cancel: int | None = None
        self.run: RunRequested | None = None
        for index, fact in enumerate(facts):
            self._index(index, fact)

    def _index(self, index: int, fact: Fact) -> None:
        match fact:
            case AttemptRequested():
                self.requests[fact.key].setdefault(fact.attempt, index)
            case AttemptFinished():
                self.ends[fact.key].setdefault(fact.attempt, (index, fact))
            case StepSkipped():
                self.skips.setdefault(fact.key, (index, fact))
            case RunFinished():
                self.finished.append((index, fact))
            case CancelRequested():
                self.cancel = index
            case RunRequested():
                self.run = fact
            case _:
                pass

    def good_end(self, key: str, before: int | None = None) -> AttemptFinished | None:
        """The end that gives a step its results, if it is in the log (before index `before`)."""
        for index, end in self.ends[key].values():
            if end.outcome in GOOD and end.attempt in self.requests[key] and (before is None or index < before):
                return end
        return None

    def final(self, key: str, before: int) -> bool:
        """Whether nothing more may come of a step, by the facts before index `before`."""
        if key in self.skips and self.skips[key][0] < before:
            return True
        ends = {n: end for n, (index, end) in self.ends[key].items() if index < before}
        if any(end.outcome is Outcome.CANCELLED for end in ends.values()) or self.good_end(key, before):
            return True
        return bool(ends) and not self.tried_again(key, max(ends))

    def tried_again(self, key: str, attempt: int) -> bool:
        """Whether the step's policy asks for another attempt after the end of `attempt`."""
        retry = self.specs[key].retry
        past = [end for n, (_, end) in self.ends[key].items() if n <= attempt]
        last = self.ends[key][attempt][1]
        if last.outcome is Outcome.LOST:
            return sum(end.outcome is Outcome.LOST for end in past) <= MAX_LOSSES
        if last.outcome not in (Outcome.FAILED, Outcome.TIMED_OUT):
            return False
        kinds = {last.error.type, *last.error.bases} if last.error else set[str]()
        wanted = not retry.on or any(kind in retry.on for kind in kinds)
        failures = sum(end.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) for end in past)
        return wanted and failures <= retry.retries


def one_fact_a_place(log: Log) -> None:
    """At most one end counts for each attempt: append-once places are written once."""
    seen: set[str] = set()
    for fact in log.facts:
        if fact.append_once and fact.tail in seen:
            raise Violation(f"{fact.tail} is in the log twice")
        seen.add(fact.tail)


def attempts_are_consecutive(log: Log) -> None:
    """Attempt 1 comes first, and attempt n + 1 is asked for only after attempt n ended in a way that is tried again."""
    for key, requests in log.requests.items():
        if sorted(requests) != list(range(1, len(requests) + 1)):
            raise Violation(f"step {key} has attempts {sorted(requests)}")
        for attempt, index in requests.items():
            if attempt == 1:
                continue
            end = log.ends[key].get(attempt - 1)
            if end is None or end[0] > index or not log.tried_again(key, attempt - 1):
                raise Violation(f"attempt {attempt} of {key} was requested though {attempt - 1} ended with {end}")


def requested_after_dependencies(log: Log) -> None:
    """No attempt is asked for before every dependency has a good end in the log."""
    for key, requests in log.requests.items():
        for attempt, index in requests.items():
            for other in log.needs.get(key, ()):
                if log.good_end(other, before=index) is None:
                    raise Violation(f"attempt {attempt} of {key} was requested before {other} had succeeded")


def inputs_are_results(log: Log) -> None:
    """A request carries what its bindings name, from the attempts that count, and no more than a request may hold."""
    for fact in log.facts:
        if not isinstance(fact, AttemptRequested) or unreadable(fact):
            continue
        for name, binding in log.nodes[fact.key].inputs.items():
            if _followed(log, fact.inputs[name]) != _expected(log, binding):
                raise Violation(f"input {name} of {fact.tail} is {str(fact.inputs[name])[:200]}")
        if (size := sum(values.weight(value) for value in fact.inputs.values())) > values.REQUEST_LIMIT + 4096:
            raise Violation(f"the inputs of {fact.tail} weigh {size}")


def requests_are_whole(log: Log) -> None:
    """A request names the step's entry point and pool, and waits as long as the policy says, within its bounds."""
    for fact in log.facts:
        if not isinstance(fact, AttemptRequested) or unreadable(fact):
            continue
        spec = log.specs[fact.key]
        if (fact.entrypoint, fact.pool, fact.outputs) != (spec.entrypoint, spec.pool, spec.outputs):
            raise Violation(f"{fact.tail} does not fit its step: {fact}")
        previous = log.ends[fact.key].get(fact.attempt - 1)
        delayed = previous is not None and previous[1].outcome is not Outcome.LOST and spec.retry.delay > 0
        if previous is None or not delayed or not previous[1].finished_at:
            if fact.not_before is not None:
                raise Violation(f"{fact.tail} waits for no reason until {fact.not_before}")
            continue
        bad = (Outcome.FAILED, Outcome.TIMED_OUT)
        failures = sum(end.outcome in bad for n, (_, end) in log.ends[fact.key].items() if n < fact.attempt)
        longest = min(spec.retry.delay * spec.retry.backoff ** (failures - 1), spec.retry.max_delay)
        waits = (fact.not_before or 0.0) - previous[1].finished_at
        if not longest * (1 - spec.retry.jitter) - 1e-6 <= waits <= longest + 1e-6:
            raise Violation(f"{fact.tail} waits {waits} s; the policy says at most {longest}")


def skipped_or_run(log: Log) -> None:
    """A step that is skipped was never asked for, so it has no result."""
    for key in log.skips:
        if log.requests[key]:
            raise Violation(f"step {key} is both skipped and requested")


def skips_have_causes(log: Log) -> None:
    """A skipped step names a dependency that had ended badly before."""
    for key, (index, skip) in log.skips.items():
        if unreadable(skip):
            continue
        cause = skip.because
        if cause is None or cause not in log.needs[key] or not log.final(cause, index) or log.good_end(cause):
            raise Violation(f"step {key} is skipped because of {cause}: {skip.reason}")


def ends_have_requests(log: Log) -> None:
    """An attempt ends only when it was asked for, or when a cancel kept it from ever being asked for."""
    for key, ends in log.ends.items():
        for attempt, (index, end) in ends.items():
            cancelled = end.outcome is Outcome.CANCELLED and log.cancel is not None and log.cancel < index
            spoilt = end.error is not None and end.error.type == "CorruptEvent"
            if log.requests[key].get(attempt, index) >= index and not cancelled and not spoilt:
                raise Violation(f"{end.tail} came before its request")


def attempts_are_bounded(log: Log) -> None:
    """A step is tried at most retries + 1 times, not counting losses; losses are bounded too."""
    for key, requests in log.requests.items():
        losses = sum(end.outcome is Outcome.LOST for _, end in log.ends[key].values())
        if len(requests) > log.specs[key].retry.retries + 1 + losses or losses > MAX_LOSSES + 1:
            raise Violation(f"step {key} was tried {len(requests)} times with {losses} losses")


def run_finishes_last(log: Log) -> None:
    """The run ends once, after every step is final."""
    if len(log.finished) > 1:
        raise Violation("the run finished twice")
    for index, _ in log.finished:
        still = [key for key in log.nodes if not log.final(key, index)]
        if still:
            raise Violation(f"the run finished while {still} were not final")


def outcome_is_true(log: Log) -> None:
    """A run succeeded when all its steps did; it failed when one did; it was cancelled when someone asked for it."""
    for index, end in log.finished:
        good = [key for key in log.nodes if log.good_end(key, index)]
        cancelled = log.cancel is not None and log.cancel < index
        whole = len(good) == len(log.nodes)
        failed = any(log.ends[key] and key not in good and not _cancelled(log, key) for key in log.nodes)
        true = {
            Outcome.SUCCEEDED: whole,
            Outcome.FAILED: failed or any(unreadable(skip) for _, skip in log.skips.values()),
            Outcome.CANCELLED: cancelled and not whole,
        }
        if not true.get(end.outcome):
            raise Violation(f"the run {end.outcome}: {len(good)} of {len(log.nodes)} steps succeeded, {cancelled=}")
        if end.outcome is not Outcome.SUCCEEDED and not end.error:
            raise Violation(f"the run {end.outcome} without a reason")


def outputs_are_results(log: Log) -> None:
    """The outputs of a run that succeeded are the results of the attempts that count."""
    for _, end in log.finished:
        if end.outcome is not Outcome.SUCCEEDED:
            continue
        found = {name: _followed(log, value) for name, value in end.outputs.items()}
        if found != {name: _expected(log, binding) for name, binding in log.pipeline.outputs.items()}:
            raise Violation(f"the run's outputs are {str(found)[:300]}")
        if (size := sum(values.weight(value) for value in end.outputs.values())) > values.REQUEST_LIMIT + 4096:
            raise Violation(f"the outputs of the run weigh {size}")


def branches_finish(log: Log) -> None:
    """When nobody cancels, a step runs to its end exactly when all its dependencies succeeded; else it is skipped."""
    if not log.finished or log.cancel is not None:
        return
    for key in log.nodes:
        free = all(log.good_end(other) for other in log.needs[key])
        if free and (key not in log.skips or unreadable(log.skips[key][1])):
            continue
        if free or key not in log.skips:
            raise Violation(
                f"step {key}: its dependencies {'succeeded' if free else 'did not succeed'}, yet it did not"
            )


INVARIANTS: tuple[Callable[[Log], None], ...] = (
    one_fact_a_place,
    attempts_are_consecutive,
    requested_after_dependencies,
    inputs_are_results,
    requests_are_whole,
    skipped_or_run,
    skips_have_causes,
    ends_have_requests,
    attempts_are_bounded,
    run_finishes_last,
    outcome_is_true,
    outputs_are_results,
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


def unreadable(fact: AttemptRequested | StepSkipped) -> bool:
    """Whether a fact only stands for an unreadable message (`penstock_contracts.events.stand_in`)."""
    return fact.project == "unreadable" if isinstance(fact, AttemptRequested) else "unreadable" in fact.reason


def _cancelled(log: Log, key: str) -> bool:
    return any(end.outcome is Outcome.CANCELLED for _, end in log.ends[key].values())


def _expected(log: Log, binding: Binding) -> object:
    """What a binding stands for, with the results of good ends in it; artifacts and inline values as they are."""
    match binding:
        case values.Output(node, output):
            end = log.good_end(node)
            return end.outputs.get(output) if end else None
        case values.Param(name):
            return log.run.inputs.get(name) if log.run else None
        case values.BoundItems(items):
            return [_expected(log, item) for item in items]
        case values.BoundFields(fields):
            return {name: _expected(log, item) for name, item in fields.items()}
        case values.Inline():
            return binding
        case _:
            raise Violation(f"no pipeline of these tests has a {type(binding).__name__}")


def _followed(log: Log, value: Value) -> object:
    """A value with its references into the log followed."""
    match value:
        case values.Earlier(ref):
            end = log.ends[ref.key].get(ref.attempt)
            return end[1].outputs.get(ref.output) if end else None
        case values.Items(items):
            return [_followed(log, item) for item in items]
        case values.Fields(fields):
            return {name: _followed(log, item) for name, item in fields.items()}
        case _:
            return value
