"""What becomes of a run that is asked for while others of its pipeline are under way. Pure, on the book of limits.

The runs of a pipeline that may be under way are the slots of a limit of its own, `run_limit`.
"""

from __future__ import annotations

from penstock_core.facts import Limit
from penstock_core.limits import slot_ledger
from penstock_core.limits.slot_ledger import LimitsLedger, Waiter
from penstock_core.pipeline.ir import Overlap

RUNS = "runs:"
"""Before `project/pipeline`, in the name of the limit that is how many runs may be under way."""


def run_limit(project: str, pipeline: str, most: int) -> Limit:
    """The limit that the runs of a pipeline share."""
    return Limit(name=f"{RUNS}{project}/{pipeline}", most=most)


def run_waiter(run_id: str, limit: Limit, priority: int, since: float) -> Waiter:
    """A run that waits to be admitted."""
    return Waiter((run_id, "", 0), (limit,), priority, since)


def admit(ledger: LimitsLedger, run: Waiter, overlap: Overlap) -> str | None:
    """Have a run wait for its place, or say why it is skipped. `limits.serve` gives out places afterwards.

    A run that is known already stays as it is. What has to make room keeps its place until it is over, so there are
    never more runs under way than may be.
    """
    if run.place in ledger.holders or run.place in ledger.waiters:
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
            return f"{_as_many(most)} under way, and the pipeline skips what would be one more (overlap=skip)"
        case Overlap.BUFFER_ONE if not free and waiting:
            return f"{_as_many(most)} under way and another run waits already (overlap=buffer_one)"
        case Overlap.CANCEL_PREVIOUS:
            # By when they were asked for: replicas may bring them in another order.
            known = [(holder.asked, holder.place) for holder in under_way if not holder.cancel_requested]
            known += [(waiter.since, waiter.place) for waiter in (*waiting, run)]
            slot_ledger.ask(ledger, run)
            for _, place in sorted(known)[: max(0, len(known) - most)]:
                slot_ledger.dismiss(ledger, place)
        case _:
            pass
    slot_ledger.ask(ledger, run)
    return None


def _as_many(most: int) -> str:
    return "another run of the pipeline is" if most == 1 else f"{most} runs of the pipeline are"
