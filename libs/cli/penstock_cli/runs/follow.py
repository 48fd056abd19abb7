"""Follows a run until it finishes, through Ctrl-C, `--timeout` and restarts of the platform."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from penstock_cli.display import output
from penstock_cli.errors import DetachedError

if TYPE_CHECKING:
    from penstock_cli.display.live import Live
    from penstock_cli.display.plain import Plain
    from penstock_cli.display.progress import Progress
    from penstock_cli.platform.session import Session


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is displayed and limited; `timeout` is in seconds."""

    json: bool
    quiet: bool
    logs: bool
    timeout: float | None


class _Interrupted(Exception):
    """Ctrl-C was pressed, or `--timeout` has passed."""


class _InterruptHandler:
    """Raises `_Interrupted` for Ctrl-C and `--timeout`, but only while the command waits for the platform.

    So neither can interrupt the processing of an event; a signal at another time is deferred until the next wait.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._pending: str | None = None
        self._waiting = False

    def __enter__(self) -> _InterruptHandler:
        self._before = (signal.signal(signal.SIGINT, self._caught), signal.signal(signal.SIGALRM, self._caught))
        if self._timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, self._timeout)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, self._before[0])
        signal.signal(signal.SIGALRM, self._before[1])

    def _caught(self, number: int, frame: FrameType | None) -> None:
        self._pending = "Ctrl-C" if number == signal.SIGINT else f"--timeout of {self._timeout:g} s has passed"
        if self._waiting:
            self._raise()

    def _raise(self) -> None:
        why, self._pending = self._pending, None
        self._waiting = False
        raise _Interrupted(why)

    @contextlib.contextmanager
    def wait(self) -> Generator[None]:
        """Allow interruption while the block runs."""
        self._waiting = True
        try:
            if self._pending is not None:
                self._raise()
            yield
        finally:
            self._waiting = False


def display(progress: Progress, *, show: bool) -> Live | Plain:
    """Return the display of a run: redrawn on a terminal, lines elsewhere, nothing unless `show`."""
    if show and output.terminal():
        # Rich is imported only on terminals.
        from penstock_cli.display.live import Live

        return Live(progress)
    from penstock_cli.display.plain import Plain

    return Plain(progress, quiet=not show)


def follow(
    connected: Session, progress: Progress, display: Live | Plain, options: Options, *, cancel: bool = True
) -> None:
    """Follow the run until it finishes. The first Ctrl-C cancels it, the second leaves at once.

    Without `cancel`, the first one leaves.

    Raises:
        DetachedError: the user left.
    """
    cancelled = False
    connected.client.transport.on_retry = display.connection_state
    with _logs(connected, progress, display, options), _InterruptHandler(options.timeout) as stops:
        while True:
            try:
                _show_events(connected, progress, display, stops)
                return
            except _Interrupted as stop:
                if not cancel or (cancelled and str(stop) == "Ctrl-C"):
                    raise _detached(connected, progress) from None
                if not cancelled:
                    cancelled = True
                    _cancel(connected, progress, display, stops, str(stop))


def _show_events(connected: Session, progress: Progress, display: Live | Plain, stops: _InterruptHandler) -> None:
    """Apply and show events until the run finishes."""
    events = connected.client.runs.events(progress.run_id, after=progress.last_seq)
    while True:
        with stops.wait():
            event = next(events, None)
        display.connection_state(None)
        if event is None:
            return
        for change in progress.apply(event):
            display.on_change(change)


def _cancel(connected: Session, progress: Progress, display: Live | Plain, stops: _InterruptHandler, why: str) -> None:
    display.note(f"cancelling ({why}); press Ctrl-C again to leave")
    try:
        with stops.wait():
            connected.client.runs.cancel(progress.run_id, reason=why)
    except _Interrupted:
        raise _detached(connected, progress) from None


def _detached(connected: Session, progress: Progress) -> DetachedError:
    return DetachedError(progress.run_id, stops=connected.idle == 0)


@contextlib.contextmanager
def _logs(connected: Session, progress: Progress, display: Live | Plain, options: Options) -> Generator[None]:
    """Show output, metrics and progress of the steps in a background thread while the block runs."""
    if not (display.live or options.logs) or options.quiet or options.json:
        yield
        return
    # Imported only when logs are shown.
    import threading

    from penstock.client.client import Client
    from penstock.errors import ClientError

    # A separate client, whose connection errors are not reported.
    transport = connected.client.transport
    client = Client(home=connected.client.home, locate=transport.locate, project=transport.project)

    def read() -> None:
        with contextlib.suppress(ClientError):
            for line in client.runs.logs(progress.run_id):
                progress.record(line)
                if options.logs:
                    display.on_log_line(line)

    thread = threading.Thread(target=read, name="logs", daemon=True)
    thread.start()
    yield
    # The last lines arrive when the run finishes.
    thread.join(5.0 if options.logs else 0.0)
