"""Past events through a definition of a deployment: what its triggers decide, and which runs they start. Pure.

Windows are folded as when the events arrived; after the last event, those close whose time is up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from penstock_core.deployments import decisions, matching, windows
from penstock_core.deployments.decisions import Outcome
from penstock_core.deployments.definition import Definition, Subscription, Window, subscription
from penstock_core.deployments.events import Event
from penstock_core.deployments.matching import Clause, Evaluator, ExpressionError, Failed, Filtered, Matched
from penstock_core.deployments.windows import WindowClosed, WindowFact, WindowState
from penstock_core.frozen import frozen


@frozen(kw_only=True)
class Decided:
    """The decision of a trigger on an event. `key` and `window` are those of its window, if it is part of one."""

    trigger: str
    event: Event
    outcome: Outcome
    error: str = ""
    clauses: tuple[Clause, ...] = ()
    key: str = ""
    window: int = 0


@frozen(kw_only=True)
class Start:
    """A run that a trigger starts: for its events, oldest first. `identity` is that of the event or the window."""

    subscription: Subscription
    events: tuple[Event, ...]
    identity: str


@frozen(kw_only=True)
class Replayed:
    """What a definition makes of events, in their order."""

    decisions: tuple[Decided, ...]
    starts: tuple[Start, ...]


def replay(
    project: str, deployment: str, definition: Definition, events: Sequence[Event], evaluator: Evaluator, now: float
) -> Replayed:
    """Return what the triggers of a definition decide on events.

    Args:
        project: the project.
        deployment: the name of the deployment.
        definition: one of its definitions.
        events: past events, oldest first.
        evaluator: of the expressions.
        now: the time, in Unix seconds, by which windows close.
    """
    shapes = [subscription(deployment, trigger) for trigger in definition.triggers]
    replaying = [_Replay(project, deployment, shape, definition, evaluator) for shape in shapes]
    for event in events:
        for one in replaying:
            if one.shape.takes(event):
                one.take(event)
    for one in replaying:
        one.expire(now)
    order = {event.sequence: n for n, event in enumerate(events)}
    found = [decided for one in replaying for decided in one.decided]
    starts = [start for one in replaying for start in one.starts]
    found.sort(key=lambda decided: order[decided.event.sequence])
    starts.sort(key=lambda start: order[start.events[-1].sequence])
    return Replayed(decisions=tuple(found), starts=tuple(starts))


class _Replay:
    """The decisions of one trigger."""

    def __init__(
        self, project: str, deployment: str, shape: Subscription, definition: Definition, evaluator: Evaluator
    ) -> None:
        self.shape = shape
        self.decided: list[Decided] = []
        self.starts: list[Start] = []
        self._project = project
        self._deployment = deployment
        self._definition = definition
        self._evaluator = evaluator
        self._windows: dict[str, WindowState] = {}
        self._events: dict[str, Event] = {}

    def take(self, event: Event) -> None:
        """Decide on an event."""
        found = matching.match(self.shape, event, self._evaluator)
        match found:
            case Filtered():
                self._decide(event, Outcome.FILTERED, clauses=found.clauses)
            case Failed():
                self._decide(event, Outcome.REJECTED, error=f"{found.where}: {found.error}", clauses=found.clauses)
            case Matched() if self.shape.publish:
                self._decide(event, Outcome.BUILDING)
            case Matched() if self.shape.window is not None:
                self._collect(event, found.key, self.shape.window)
            case Matched():
                # Times to start at are in the past.
                error = self._start((event,), event.digest)
                self._decide(event, Outcome.REJECTED if error else Outcome.STARTED, error=error)

    def expire(self, now: float) -> None:
        """Close the windows whose time is up."""
        for key, state in self._windows.items():
            if self.shape.window is not None:
                facts = windows.expire(state, self.shape.window, now)
                windows.fold(state, facts)
                self._close(key, state, facts, self.shape.window)

    def _collect(self, event: Event, key: str, window: Window) -> None:
        state = self._windows.setdefault(key, WindowState(self._project, self._deployment, self.shape.trigger, key))
        reference = decisions.event_ref(event)
        self._events[event.digest] = event
        if windows.throttled(state, window, reference):
            self._decide(event, Outcome.THROTTLED, key=key, window=state.window)
            return
        facts = windows.collect(state, window, reference, 0, self.shape.types)
        windows.fold(state, facts)
        self._decide(event, Outcome.COLLECTED, key=key, window=state.window_of(event.digest))
        self._close(key, state, facts, window)

    def _close(self, key: str, state: WindowState, facts: Sequence[WindowFact], window: Window) -> None:
        for number in _closed(facts):
            references = state.closed.get(number, ())
            if windows.starts_run(window, references, self.shape.types):
                events = sorted((self._events[one.digest] for one in references), key=lambda one: one.sequence)
                error = self._start(tuple(events), windows.window_identity(key, number))
                if error:
                    self._decide(events[-1], Outcome.REJECTED, error=error, key=key, window=number)

    def _start(self, events: tuple[Event, ...], identity: str) -> str:
        """Start a run, or return the error of a mapping."""
        try:
            matching.run_inputs(self.shape, events, self._definition.inputs, self._evaluator)
        except ExpressionError as error:
            return str(error)
        self.starts.append(Start(subscription=self.shape, events=events, identity=identity))
        return ""

    def _decide(
        self,
        event: Event,
        outcome: Outcome,
        *,
        error: str = "",
        clauses: tuple[Clause, ...] = (),
        key: str = "",
        window: int = 0,
    ) -> None:
        if outcome is Outcome.REJECTED and window:  # of the last event of a window, which is decided already
            self.decided = [one for one in self.decided if one.event.sequence != event.sequence]
        self.decided.append(
            Decided(
                trigger=self.shape.trigger,
                event=event,
                outcome=outcome,
                error=error,
                clauses=clauses,
                key=key,
                window=window,
            )
        )


def _closed(facts: Sequence[WindowFact]) -> Iterator[int]:
    return (fact.window for fact in facts if isinstance(fact, WindowClosed))
