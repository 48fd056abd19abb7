"""Admission of runs to the active runs of their pipeline and of their deployment, on the limits ledger. Pure.

Active runs hold a slot of each of these limits. Both limits have an overlap policy of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_core.facts import Limit, RunRequested
from penstock_core.limits import slot_ledger
from penstock_core.limits.slot_ledger import RUNS, LimitsLedger, Waiter
from penstock_core.pipeline.ir import Overlap, Pipeline

DEPLOYMENT = "deployment:"
"""Prefix of `project/deployment` in the name of the limit of its active runs."""


@dataclass(frozen=True, slots=True)
class RunLimit:
    """A limit of active runs, and what happens to further runs."""

    limit: Limit
    overlap: Overlap


def limits_of(request: RunRequested, pipeline: Pipeline) -> tuple[RunLimit, ...]:
    """Return the limits of active runs that a run needs a slot of. A shadow run needs none."""
    if request.shadow:
        return ()
    found: list[RunLimit] = []
    if pipeline.max_active is not None:
        limit = Limit(name=f"{RUNS}{request.project}/{request.pipeline}", most=pipeline.max_active)
        found.append(RunLimit(limit, pipeline.overlap))
    if (own := request.deployment_limit) is not None:
        limit = Limit(name=f"{DEPLOYMENT}{request.project}/{own.deployment}", most=own.most)
        found.append(RunLimit(limit, own.overlap))
    return tuple(found)


def run_waiter(run_id: str, limits: Sequence[RunLimit], priority: int, since: float) -> Waiter:
    """Return the waiter of a run that waits to be admitted."""
    return Waiter((run_id, "", 0), tuple(one.limit for one in limits), priority, since)


def admit(ledger: LimitsLedger, run: Waiter, policies: Sequence[Overlap]) -> str | None:
    """Queue a run, or return why it is skipped. `slot_ledger.serve` admits runs afterwards.

    A run that is known already stays as it is. A run that has to make room keeps its slot until it has finished, so
    there are never more active runs than allowed. `policies` are those of its limits, in their order.
    """
    if run.slot_key in ledger.holders or run.slot_key in ledger.waiters:
        return None
    for limit, policy in zip(run.needs, policies, strict=True):
        if (reason := _reason_to_skip(ledger, limit, policy)) is not None:
            return reason
    _queue(ledger, run, policies)
    return None


def restore(ledger: LimitsLedger, run: Waiter, policies: Sequence[Overlap]) -> None:
    """Queue a run that waits to be admitted by its log but not in the ledger, whether or not it was ever in it."""
    if all(policy is Overlap.SKIP for policy in policies):
        return  # such a run never waits: its request, which is not handled yet, decides
    if run.slot_key not in ledger.holders and run.slot_key not in ledger.waiters:
        # One queued run too many is better than one that nobody ever admits.
        _queue(ledger, run, policies)


def _reason_to_skip(ledger: LimitsLedger, limit: Limit, policy: Overlap) -> str | None:
    active, waiting = _runs(ledger, limit)
    most = limit.most or 0
    if len(active) + len(waiting) < most:
        return None
    owner = "pipeline" if limit.name.startswith(RUNS) else "deployment"
    runs = f"another run of the {owner} is" if most == 1 else f"{most} runs of the {owner} are"
    match policy:
        case Overlap.SKIP:
            return f"{runs} active, and the {owner} skips further runs (overlap=skip)"
        case Overlap.BUFFER_ONE if waiting:
            return f"{runs} active and another run is queued (overlap=buffer_one)"
        case _:
            return None


def _queue(ledger: LimitsLedger, run: Waiter, policies: Sequence[Overlap]) -> None:
    """Queue a run, and ask those to leave that it replaces."""
    previous = [limit for limit, policy in zip(run.needs, policies, strict=True) if policy is Overlap.CANCEL_PREVIOUS]
    known = [_by_request(ledger, limit, run) for limit in previous]
    slot_ledger.enqueue(ledger, run)
    for limit, runs in zip(previous, known, strict=True):
        most = limit.most or 0
        for _, slot_key in runs[: max(0, len(runs) - most)]:
            slot_ledger.ask_to_leave(ledger, slot_key)
        if not _is_new(ledger, limit.name, run.since, most):
            slot_ledger.ask_to_leave(ledger, run.slot_key)  # newer ones may have finished already


def _by_request(ledger: LimitsLedger, limit: Limit, run: Waiter) -> list[tuple[float, slot_ledger.SlotKey]]:
    """Return the runs of a limit that were not asked to leave, and this one.

    In the order of their requests, because replicas may handle requests in another order.
    """
    active, waiting = _runs(ledger, limit)
    known = [(holder.asked, holder.slot_key) for holder in active if not holder.cancel_requested]
    return sorted([*known, *((waiter.since, waiter.slot_key) for waiter in (*waiting, run))])


def _runs(ledger: LimitsLedger, limit: Limit) -> tuple[list[slot_ledger.Holder], list[Waiter]]:
    """Return the runs that hold a slot of a limit, and those that wait for one."""
    active = [holder for holder in ledger.holders.values() if limit.name in holder.limits]
    waiting = [
        waiter
        for waiter in ledger.waiters.values()
        if not waiter.cancel_requested and any(need.name == limit.name for need in waiter.needs)
    ]
    return active, waiting


def _is_new(ledger: LimitsLedger, name: str, since: float, most: int) -> bool:
    """Record a run of a limit whose newest runs cancel previous ones; return whether it is one of the newest."""
    newest = tuple(sorted({*ledger.newest.get(name, ()), since})[-most:])
    ledger.newest[name] = newest
    return since >= newest[0]
