"""Windows: several events of a trigger with the same key become one run.

The events of a trigger and key are a log of numbered facts: `EventCollected` for each event, `WindowClosed` when the
run starts. The broker stores each number once, so replicas and redeliveries cannot count an event twice or close a
window twice. Times are those at which the events were stored, so a late delivery decides as an early one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from penstock_core import ids
from penstock_core.deployments.decisions import EventRef
from penstock_core.deployments.definition import Window, WindowKind, type_matches
from penstock_core.frozen import frozen

KEPT_WINDOWS = 20
"""Closed windows that a state remembers, for events that are delivered again."""

ERROR_LIMIT = 2_000
"""Maximum length of the error of a rejected window, in characters."""

BATCH_LIMIT = 10_000
"""Maximum number of events of a window, which closes when it is full."""


@frozen(kw_only=True)
class _InWindow:
    """The fields of all facts: trigger, key, number of the fact, number of the window, time in Unix seconds."""

    append_once: ClassVar[bool] = True

    project: str
    deployment: str
    trigger: str
    key: str
    number: int
    window: int
    at: float

    def __post_init__(self) -> None:
        ids.check_name(self.project, "project")
        ids.check_name(self.deployment, "deployment")
        ids.check_name(self.trigger, "trigger")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity."""
        return f"{self.project}.{self.deployment}.{self.trigger}.{key_digest(self.key)}.{self.number}"


@frozen(kw_only=True)
class EventCollected(_InWindow):
    """An event is part of a window. `revision` is that of the deployment."""

    ce_type: ClassVar[str] = "penstock.trigger.collected.v1"

    event: EventRef
    revision: int


@frozen(kw_only=True)
class WindowClosed(_InWindow):
    """A window is complete, and its run starts. `reason` is `time`, `count`, `complete` or `first`."""

    ce_type: ClassVar[str] = "penstock.trigger.window_closed.v1"

    reason: str
    revision: int


@frozen(kw_only=True)
class WindowRejected(_InWindow):
    """A closed window starts no run: a mapping failed, or the inputs do not fit the pipeline."""

    ce_type: ClassVar[str] = "penstock.trigger.window_rejected.v1"

    error: str
    revision: int


WindowFact: TypeAlias = EventCollected | WindowClosed | WindowRejected

WINDOW_FACTS: tuple[type[WindowFact], ...] = (EventCollected, WindowClosed, WindowRejected)


@dataclass(slots=True)
class WindowState:
    """The windows of a trigger and key. Read its attributes; change it through `evolve` only.

    Attributes:
        number: the last fact that is folded.
        window: the number of the open window, or of the last one if none is open; 0: there was none.
        open: the events of the open window, in the order of their arrival.
        closed: the last closed windows with their events, by number.
        known: the window of each of these events, by digest.
        rejected: why closed windows started no run, by number.
        last_at: when the latest event of the open window arrived.
        closed_at: when the last window closed.
        revision: the revision of the deployment of the last event.
    """

    project: str
    deployment: str
    trigger: str
    key: str
    number: int = 0
    window: int = 0
    open: list[EventRef] = field(default_factory=list[EventRef])
    closed: dict[int, tuple[EventRef, ...]] = field(default_factory=dict[int, tuple[EventRef, ...]])
    known: dict[str, int] = field(default_factory=dict[str, int])
    rejected: dict[int, str] = field(default_factory=dict[int, str])
    last_at: float = 0.0
    closed_at: float = 0.0
    revision: int = 0

    def window_of(self, digest: str) -> int:
        """Return the window that an event is part of; 0 if there is none."""
        return self.known.get(digest, 0)


def key_digest(key: str) -> str:
    """Return a key as a token of a subject."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def window_identity(key: str, window: int) -> str:
    """Return what identifies a window of a trigger, for the id of its run."""
    return f"{key_digest(key)}:{window}"


def fold(state: WindowState, facts: Iterable[WindowFact]) -> WindowState:
    """Fold facts in the order of their numbers. Takes ownership of `state` and returns it."""
    for fact in facts:
        evolve(state, fact)
    return state


def evolve(state: WindowState, fact: WindowFact) -> WindowState:
    """Fold one fact; one that is known, or belongs to another window, changes nothing but the number."""
    if fact.number <= state.number:
        return state
    state.number = fact.number
    match fact:
        case EventCollected():
            state.last_at = max(state.last_at, fact.event.received_at) if state.open else fact.event.received_at
            state.window = fact.window
            state.open.append(fact.event)
            state.known[fact.event.digest] = fact.window
            state.revision = fact.revision
        case WindowClosed() if state.open and fact.window == state.window:
            state.closed[fact.window] = tuple(state.open)
            state.open = []
            state.closed_at = fact.at
            for old in [*state.closed][:-KEPT_WINDOWS]:
                for event in state.closed.pop(old):
                    del state.known[event.digest]
        case WindowRejected():
            state.rejected[fact.window] = fact.error
            for old in [*state.rejected][:-KEPT_WINDOWS]:
                del state.rejected[old]
        case _:
            pass
    return state


def due(state: WindowState, window: Window) -> float | None:
    """Return when the open window closes by itself, in Unix seconds; None if none is open, or it never does."""
    if not state.open:
        return None
    match window.kind:
        case WindowKind.DEBOUNCE:
            return state.last_at + window.seconds
        case WindowKind.BATCH | WindowKind.ALL_OF:
            return state.open[0].received_at + window.seconds
        case WindowKind.THROTTLE:
            return state.open[0].received_at


def throttled(state: WindowState, window: Window, event: EventRef) -> bool:
    """Whether an event arrives too soon after the one that started the last run."""
    return (
        window.kind is WindowKind.THROTTLE
        and bool(state.closed)
        and not state.window_of(event.digest)
        and event.received_at < state.closed_at + window.seconds
    )


def collect(
    state: WindowState, window: Window, event: EventRef, revision: int, types: tuple[str, ...] = ()
) -> list[WindowFact]:
    """Return the facts for an event that arrived: it is collected, windows close. None if it is known.

    Args:
        state: the windows of its trigger and key.
        window: how the trigger combines events.
        event: the event.
        revision: the revision of the deployment that is in force.
        types: the types of the trigger, all of which a window of kind `all_of` needs.
    """
    if state.window_of(event.digest):
        return []
    facts: list[WindowFact] = []
    number, window_number, events = state.number, state.window, [*state.open]
    closes_at = due(state, window)
    # The timer of the window may be late: an event that arrives after its end belongs to the next one.
    if events and closes_at is not None and event.received_at >= closes_at:
        number += 1
        facts.append(_close(state, number, window_number, closes_at, "time", state.revision))
        events = []
    if not events:
        window_number += 1
    events.append(event)
    number += 1
    facts.append(
        EventCollected(
            **_of(state), number=number, window=window_number, at=event.received_at, event=event, revision=revision
        )
    )
    reason = _complete(window, events, types)
    if reason:
        facts.append(_close(state, number + 1, window_number, event.received_at, reason, revision))
    return facts


def expire(state: WindowState, window: Window, now: float) -> list[WindowFact]:
    """Return the facts when the timer of a window fires; none if no window is due."""
    closes_at = due(state, window)
    if closes_at is None or now < closes_at:
        return []
    return [_close(state, state.number + 1, state.window, closes_at, "time", state.revision)]


def reject(state: WindowState, window: int, error: str, revision: int, at: float) -> list[WindowFact]:
    """Return the fact that a closed window starts no run; none if it is known."""
    if window in state.rejected:
        return []
    return [
        WindowRejected(
            **_of(state), number=state.number + 1, window=window, at=at, error=error[:ERROR_LIMIT], revision=revision
        )
    ]


def starts_run(window: Window, events: Sequence[EventRef], types: tuple[str, ...]) -> bool:
    """Whether a closed window starts a run: one of kind `all_of` whose time is up has not all types."""
    return window.kind is not WindowKind.ALL_OF or _complete(window, [*events], types) == "complete"


def _complete(window: Window, events: list[EventRef], types: tuple[str, ...]) -> str:
    """Return why a window with these events is complete; empty if it is not."""
    match window.kind:
        case WindowKind.THROTTLE:
            return "first"
        case WindowKind.BATCH if window.count and len(events) >= window.count:
            return "count"
        case WindowKind.ALL_OF if all(any(type_matches(type, event.type) for event in events) for type in types):
            return "complete"
        case _:
            return "count" if len(events) >= BATCH_LIMIT else ""


def _close(state: WindowState, number: int, window: int, at: float, reason: str, revision: int) -> WindowClosed:
    return WindowClosed(**_of(state), number=number, window=window, at=at, reason=reason, revision=revision)


def _of(state: WindowState) -> dict[str, str]:
    return {"project": state.project, "deployment": state.deployment, "trigger": state.trigger, "key": state.key}
