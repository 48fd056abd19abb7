"""Admission of runs of a pipeline with `max_active_runs`, on the limits ledger. Pure.

The active runs of a pipeline hold slots of a limit of their own, `run_limit`.
"""

from __future__ import annotations

from penstock_core.facts import Limit
from penstock_core.limits import slot_ledger
from penstock_core.limits.slot_ledger import LimitsLedger, Waiter
from penstock_core.pipeline.ir import Overlap

RUNS = "runs:"
"""Prefix of `project/pipeline` in the name of the limit of active runs."""


def run_limit(project: str, pipeline: str, most: int) -> Limit:
    """Return the limit that the runs of a pipeline share."""
    return Limit(name=f"{RUNS}{project}/{pipeline}", most=most)


def run_waiter(run_id: str, limit: Limit, priority: int, since: float) -> Waiter:
    """Return the waiter of a run that waits to be admitted."""
    return Waiter((run_id, "", 0), (limit,), priority, since)


def admit(ledger: LimitsLedger, run: Waiter, overlap: Overlap) -> str | None:
    """Queue a run, or return why it is skipped. `slot_ledger.serve` admits runs afterwards.

    A run that is known already stays as it is. A run that has to make room keeps its slot until it has finished, so
    there are never more active runs than allowed.
    """
    if run.slot_key in ledger.holders or run.slot_key in ledger.waiters:
        return None
    [limit] = run.needs
    most = limit.most or 0
    under_way = [holder for holder in ledger.holders.values() if limit.name in holder.limits]
    waiting = [
        w for w in ledger.waiters.values() if not w.cancel_requested and any(n.name == limit.name for n in w.needs)
    ]
    free = len(under_way) + len(waiting) < most
    match overlap:
        case Overlap.SKIP if not free:
            return f"{_as_many(most)} active, and the pipeline skips further runs (overlap=skip)"
        case Overlap.BUFFER_ONE if not free and waiting:
            return f"{_as_many(most)} active and another run is queued (overlap=buffer_one)"
        case Overlap.CANCEL_PREVIOUS:
            # By the time of the request: replicas may process requests in another order.
            known = [(holder.asked, holder.slot_key) for holder in under_way if not holder.cancel_requested]
            known += [(waiter.since, waiter.slot_key) for waiter in (*waiting, run)]
            slot_ledger.enqueue(ledger, run)
            for _, slot_key in sorted(known)[: max(0, len(known) - most)]:
                slot_ledger.ask_to_leave(ledger, slot_key)
            if not _is_new(ledger, limit.name, run.since, most):
                slot_ledger.ask_to_leave(ledger, run.slot_key)  # newer ones may have finished already
        case _:
            pass
    slot_ledger.enqueue(ledger, run)
    return None


def restore(ledger: LimitsLedger, run: Waiter, overlap: Overlap) -> None:
    """Queue a run that waits to be admitted by its log but not in the ledger, whether or not it was ever in it."""
    match overlap:
        case Overlap.SKIP:
            pass  # such a run never waits: its request, which is not handled yet, decides
        case Overlap.CANCEL_PREVIOUS:
            admit(ledger, run, overlap)
        case _:
            # One buffered run too many is better than one that nobody ever admits.
            slot_ledger.enqueue(ledger, run)


def _is_new(ledger: LimitsLedger, name: str, since: float, most: int) -> bool:
    """Record a run of a pipeline whose newest runs cancel previous ones; return whether it is one of the newest."""
    newest = tuple(sorted({*ledger.newest.get(name, ()), since})[-most:])
    ledger.newest[name] = newest
    return since >= newest[0]


def _as_many(most: int) -> str:
    return "another run of the pipeline is" if most == 1 else f"{most} runs of the pipeline are"
