"""Finds the local platform of a state folder.

This module imports only light parts of the standard library, because `penstock run` starts an embedded platform with
it before it imports anything else.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from penstock.errors import NoPlatformError, PlatformFailedError
from penstock_core.version import VERSION


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a platform.

    Attributes:
        pid: its process; None for a platform given by URL.
        idle: for an embedded platform, after how many seconds without use it stops; None for others.
        launch: for an embedded platform, the fingerprint of what it was started with.
    """

    url: str
    token: str
    pid: int | None = None
    idle: float | None = None
    launch: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def embedded(self) -> bool:
        """Whether a command started it."""
        return self.idle is not None

    def __repr__(self) -> str:
        return f"Address({self.url!r}, pid={self.pid})"


def state_folder(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute state folder: `home`, else `$PENSTOCK_HOME`, else `.penstock` in the working directory."""
    return Path(os.path.abspath(home or os.environ.get("PENSTOCK_HOME") or ".penstock"))  # noqa: PTH100 - no symlinks resolved


def prepare_home(home: Path) -> None:
    """Create the state folder with a `.gitignore` for all its contents.

    Raises:
        PlatformFailedError: it cannot be created or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        ignore = home / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise PlatformFailedError(
            f"the state folder {home} cannot be written ({error.strerror or error}): "
            "set PENSTOCK_HOME to a writable folder, or free space on its disk"
        ) from error


def is_locked(home: Path) -> bool:
    """Whether a platform process has locked the state folder."""
    try:
        handle = os.open(home, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Probes with a shared lock do not collide.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def read_info(home: Path) -> dict[str, Any] | None:
    """Read `platform.json`; return None if there is none or its process has exited."""
    try:
        info = json.loads((home / "platform.json").read_bytes())
        os.kill(int(info["pid"]), 0)
    except PermissionError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return info if is_locked(home) else None


def find(home: Path) -> Address | None:
    """Return the address of the platform that runs on this state folder, or None."""
    info = read_info(home)
    if info is None:
        return None
    try:
        token = (home / "token").read_text().strip()
    except OSError:
        return None
    idle = info.get("idle")
    return Address(info["url"].rstrip("/"), token, int(info["pid"]), idle, info.get("launch") or {})


def from_environment() -> Address | None:
    """Return the address in `$PENSTOCK_URL` and `$PENSTOCK_TOKEN`, or None."""
    url = os.environ.get("PENSTOCK_URL", "").strip().rstrip("/")
    return Address(url, os.environ.get("PENSTOCK_TOKEN", "").strip()) if url else None


def locator(url: str | None, token: str | None, home: str | os.PathLike[str] | None) -> Callable[[], Address]:
    """Return a function that looks up the current address of the platform, called again when a connection breaks.

    Precedence: `url`, `home`, `$PENSTOCK_URL`, the default state folder.
    """
    named = from_environment() if home is None else None
    if url or named is not None:
        given = url.rstrip("/") if url else named.url if named is not None else ""
        sent = token or os.environ.get("PENSTOCK_TOKEN", "").strip()
        return (lambda: Address(given, sent)) if sent else (lambda: Address(given, _token_of_login(given)))
    folder = state_folder(home)

    def locate() -> Address:
        address = find(folder)
        if address is None:
            raise NoPlatformError(
                f"no platform is running here (state folder {folder}): start one with `penstock up`, "
                "or set PENSTOCK_URL and PENSTOCK_TOKEN to use one that runs elsewhere"
            )
        return replace(address, token=token) if token else address

    return locate


def _token_of_login(url: str) -> str:
    """Return the token that `penstock login` stored, renewed if necessary; empty without a login."""
    # It needs an HTTP client of the standard library, which takes long to import.
    from penstock.client import logins

    return logins.current_token(url)


def is_installed() -> bool:
    """Whether this environment has the platform, or its client only."""
    return importlib.util.find_spec("penstock_standalone") is not None


def check_installed() -> None:
    """Check that this environment can start a platform.

    Raises:
        PlatformFailedError: it has the client only.
    """
    if not is_installed():
        raise PlatformFailedError(
            f"the platform is not installed in the environment {sys.prefix}, only its client: "
            f"pip install penstock-platform=={VERSION}, or run `penstock up` in an environment that has it "
            "and set PENSTOCK_URL and PENSTOCK_TOKEN here"
        )


def log_tail(home: Path, lines: int = 12) -> str:
    """Return the last lines of the platform's log as the end of an error message."""
    log, text = home / "platform.log", _end_of_log(home)
    if text is None:
        return ""
    if not text:
        return f" (its log {log} is empty)"
    return f"; the end of {log}:\n" + "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])


def last_log_line(home: Path) -> str:
    """Return the last line of the platform's log; empty if there is none."""
    return ((_end_of_log(home) or "").splitlines() or [""])[-1]


def _end_of_log(home: Path) -> str | None:
    """Return the end of the platform's log; None if it cannot be read."""
    try:
        with (home / "platform.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return None
