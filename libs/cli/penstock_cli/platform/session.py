"""The platform that a command uses: given by URL, running on the state folder, or embedded."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from penstock.client import platform
from penstock.client.client import Client
from penstock.client.embedded import EmbeddedPlatform
from penstock.errors import NoPlatformError
from penstock_cli.display import output
from penstock_cli.display.formats import duration
from penstock_cli.platform import prestart

_QUIET = 2.0
"""Seconds of repeated requests after which the user is notified."""


@dataclass(slots=True)
class Session:
    """A client, and the lock that keeps its platform running (None for a platform given by URL)."""

    client: Client
    embedded: EmbeddedPlatform | None

    @property
    def local(self) -> bool:
        """Whether the platform runs on this machine."""
        return self.embedded is not None

    @property
    def idle(self) -> float | None:
        """After how many seconds without use the platform stops; None if no command started it."""
        return self.embedded.idle if self.embedded is not None else None


@contextlib.contextmanager
def ensure_platform(*, steps: bool = True) -> Generator[EmbeddedPlatform | None]:
    """Keep a platform running during the block, starting one if none runs; yield None for one given by URL.

    `steps` is whether the command causes steps to run: their variables must be those of the command, then.
    """
    if os.environ.get("PENSTOCK_URL"):
        yield None
        return
    embedded = prestart.embedded() or EmbeddedPlatform(steps=steps)
    try:
        if embedded.differing:
            output.note(
                f"note: the embedded platform is in use, and was started with other values of "
                f"{', '.join(embedded.differing)}: this command uses those"
            )
        embedded.start()
        yield embedded
    finally:
        embedded.close()


def open_session(embedded: EmbeddedPlatform | None) -> Session:
    """Wait for the platform and return a session with it."""
    if embedded is None:
        return Session(Client(), None)
    embedded.wait()
    return Session(Client(home=embedded.home, locate=embedded.locate), embedded)


@contextlib.contextmanager
def connect(*, steps: bool = False) -> Generator[Session]:
    """Open a session for a command other than `penstock run`.

    Args:
        steps: see `ensure_platform`.

    Raises:
        NoPlatformError: there is no state folder, so no platform has ever run here.
    """
    home = platform.state_folder()
    if not os.environ.get("PENSTOCK_URL") and not home.exists():
        raise NoPlatformError(
            f"no state folder at {home}: change to the folder where you ran `penstock run`, "
            "set PENSTOCK_HOME, or set PENSTOCK_URL and PENSTOCK_TOKEN to use a platform elsewhere"
        )
    with ensure_platform(steps=steps) as embedded:
        opened = open_session(embedded)
        transport = opened.client.transport
        transport.on_retry = RetryNotice(lambda: transport.present_patience)
        yield opened


def note_triggers(session: Session) -> None:
    """Tell the user that triggers need a platform that stays up, if the one in use does not."""
    if session.idle == 0:
        output.note("no platform is running here, so deployments start no runs: start one with `penstock up`")
    elif session.idle is not None:
        output.note(
            f"the embedded platform stops after {duration(session.idle)} without use, and deployments start no runs "
            "then: keep one running with `penstock up`"
        )


class RetryNotice:
    """Tells the user once why a command takes long: the platform does not answer, and requests are repeated."""

    def __init__(self, patience: Callable[[], float]) -> None:
        self._patience = patience
        self._since: float | None = None
        self._printed = False

    def __call__(self, why: str) -> None:
        """To be called before each repetition, with the reason."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > _QUIET and not self._printed:
            self._printed = True
            output.note(f"the platform does not answer yet ({why}); trying for up to {self._patience():.0f} s")
