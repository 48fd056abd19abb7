"""The platform that a command talks to: the one that is named, the one that is up, or an embedded one for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import dataclass

from penstock.client import platform
from penstock.client.client import Client
from penstock.client.errors import NoPlatformError
from penstock_cli.platform import prestart


@dataclass(slots=True)
class Session:
    """A client, and what holds its platform up (None for one that was named by URL)."""

    client: Client
    embedded: platform.EmbeddedPlatform | None

    @property
    def local(self) -> bool:
        """Whether the platform's files lie on this machine."""
        return self.embedded is not None


@contextlib.contextmanager
def ensure_platform() -> Generator[platform.EmbeddedPlatform | None]:
    """Hold a platform up while the block lasts, starting one when none is; None when one is named by URL."""
    if os.environ.get("PENSTOCK_URL"):
        yield None
        return
    embedded = prestart.embedded() or platform.EmbeddedPlatform()
    try:
        embedded.start()
        yield embedded
    finally:
        embedded.close()


def open_session(embedded: platform.EmbeddedPlatform | None) -> Session:
    """A client of the platform that is held, once it answers."""
    if embedded is None:
        return Session(Client(), None)
    embedded.wait()
    return Session(Client(home=embedded.home, locate=embedded.locate), embedded)


@contextlib.contextmanager
def connect() -> Generator[Session]:
    """A session for a command that looks at what is there.

    Raises:
        NoPlatform: no platform was ever used in this folder, so there is nothing to look at.
    """
    home = platform.state_folder()
    if not os.environ.get("PENSTOCK_URL") and not home.exists():
        raise NoPlatformError(
            f"there is no state folder at {home}: change to the folder where you ran `penstock run`, "
            "set PENSTOCK_HOME, or set PENSTOCK_URL and PENSTOCK_TOKEN to use a platform elsewhere"
        )
    with ensure_platform() as embedded:
        yield open_session(embedded)
