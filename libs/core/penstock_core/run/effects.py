"""Effects: what a run needs done outside its log, as data.

`evolve` puts effects into the state's `outbox`, in the order of the facts that require them. The scheduler carries them
out before it acknowledges those facts, and then empties the outbox. Any replica that folds the log may carry out an
effect again at any time, so every effect is idempotent.
"""

from __future__ import annotations

from typing import TypeAlias

from penstock_core.frozen import frozen


@frozen()
class AdmitRun:
    """Admit the run to the active runs of its pipeline and deployment. `RunAdmitted` records when it is admitted."""


@frozen()
class ReleaseRun:
    """Give up the run's place among the active runs of its pipeline."""


@frozen()
class AcquireSlots:
    """Acquire a slot of each limit in the attempt's `AttemptQueued`. `SlotGranted` records when it has them."""

    key: str
    attempt: int


@frozen()
class ReleaseSlots:
    """Release the slots of a finished attempt, or remove it from the queues for them.

    Its slots stay taken while a process of it may be left: if an executor owned it, until that one has recorded its end
    or `AttemptStopped`.
    """

    key: str
    attempt: int


@frozen()
class SubscribeEvent:
    """Subscribe the attempt to the event in its `StepSuspended`, which ends the attempt. Earlier events count."""

    key: str
    attempt: int


@frozen()
class UnsubscribeEvent:
    """Unsubscribe the attempt from its event."""

    key: str
    attempt: int


@frozen()
class StartChildRun:
    """Start the child run that the suspended attempt waits for. Its end ends the attempt."""

    key: str
    attempt: int


@frozen()
class CancelChildRun:
    """Cancel the child run of the attempt unless it has finished."""

    key: str
    attempt: int


@frozen()
class KillAttempt:
    """Kill the attempt's process: its end is recorded whatever the process still does."""

    key: str
    attempt: int


@frozen()
class RegisterModels:
    """Register the model versions in `AttemptFinished.models` of a successful attempt."""

    key: str
    attempt: int


@frozen()
class PublishEvents:
    """Publish the events in `AttemptFinished.events` of a successful attempt, and those about its artifacts."""

    key: str
    attempt: int


@frozen()
class NotifyCaller:
    """End the attempt of another run that waits for this one (`RunRequested.caller`)."""


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
    | PublishEvents
    | NotifyCaller
)
