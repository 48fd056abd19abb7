"""What a run needs done outside its log, as data.

`evolve` puts effects into a state's `outbox`, in the order of the facts that call for them; the scheduler carries them
out before it acknowledges, and empties the outbox then. Every effect may be carried out again at any time, by any
replica that folds the log anew, so each is idempotent: it brings about a state of affairs, and does nothing where that
is so already.
"""

from __future__ import annotations

from typing import TypeAlias

from penstock_core.frozen import frozen


@frozen()
class AdmitRun:
    """Get the run a place among the runs of its pipeline that may be under way; `RunAdmitted` says when it has one."""


@frozen()
class ReleaseRun:
    """The run is over: its place goes to the next."""


@frozen()
class AcquireSlots:
    """Get the held attempt a slot of each limit of its `AttemptQueued`; `SlotGranted` says when it has them."""

    key: str
    attempt: int


@frozen()
class ReleaseSlots:
    """The attempt is over: its slots, or its places in the queues for them, go to the next."""

    key: str
    attempt: int


@frozen()
class SubscribeEvent:
    """Have the event of its `StepSuspended` end the suspended attempt, also one that came before."""

    key: str
    attempt: int


@frozen()
class UnsubscribeEvent:
    """The attempt waits for no event any more."""

    key: str
    attempt: int


@frozen()
class StartChildRun:
    """Start the run that the suspended attempt waits for; its end ends the attempt."""

    key: str
    attempt: int


@frozen()
class CancelChildRun:
    """Cancel the run that the attempt had started, if it is not over."""

    key: str
    attempt: int


@frozen()
class KillAttempt:
    """The attempt's end is written, whatever its process still does: have the process ended."""

    key: str
    attempt: int


@frozen()
class RegisterModels:
    """The attempt ended well and wants versions of models registered: `AttemptFinished.models`."""

    key: str
    attempt: int


@frozen()
class NotifyCaller:
    """The run is over: tell the attempt of another run that waits for it (`RunRequested.caller`)."""


Effect: TypeAlias = (
    AdmitRun
    | ReleaseRun
    | AcquireSlots
    | ReleaseSlots
    | SubscribeEvent
    | UnsubscribeEvent
    | StartChildRun
    | CancelChildRun
    | KillAttempt
    | RegisterModels
    | NotifyCaller
)
