"""The platform of this machine: where its state lies, whether it runs, and how one is started for a while.

In: a state folder. Out: the `Address` of a living platform. Only the standard library's light parts are imported,
because `penstock run` starts an embedded platform with this module before anything else.

Promises: an embedded platform lives as long as one client holds its `clients.lock`, whatever happens to the client
that started it; two clients that start at once end up with one platform.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.client.errors import NoPlatformError, PlatformFailedError
from penstock_core.version import VERSION

READY_TIMEOUT = 20.0
"""Seconds an embedded platform may take until it answers."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for an embedded platform that is stopping."""

_POLL = 0.005
_MAX_SPAWNS = 3
_LOG_LIMIT = 16 * 1024 * 1024
_EXIT_LOCK_LOST = 3
"""Exit status of a platform that found the state folder held by another one."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a platform answers. `pid` is None for one that was named by URL."""

    url: str
    token: str
    pid: int | None = None
    ephemeral: bool = False

    def __repr__(self) -> str:
        return f"Address({self.url!r}, pid={self.pid})"


def state_folder(home: str | os.PathLike[str] | None = None) -> Path:
    """The state folder: `home`, else `$PENSTOCK_HOME`, else `.penstock` in the working directory; absolute."""
    return Path(os.path.abspath(home or os.environ.get("PENSTOCK_HOME") or ".penstock"))  # noqa: PTH100 - no symlinks resolved


def prepare_home(home: Path) -> None:
    """Make the state folder, ignored by Git.

    Raises:
        PlatformFailed: it cannot be made or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        ignore = home / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise PlatformFailedError(
            f"the state folder {home} cannot be written ({error.strerror or error}): "
            "set PENSTOCK_HOME to a folder that you may write, or make room on its disk"
        ) from error


def is_locked(home: Path) -> bool:
    """Whether a platform process holds the state folder. Probes with a shared lock: two probes do not meet."""
    try:
        handle = os.open(home / "platform.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def is_stopping(home: Path) -> bool:
    """Whether an embedded platform holds `clients.lock` alone, because its last client has gone."""
    try:
        handle = os.open(home / "clients.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def read_info(home: Path) -> dict[str, Any] | None:
    """What `platform.json` says, or None when there is none or its process is gone."""
    try:
        info = json.loads((home / "platform.json").read_bytes())
        os.kill(int(info["pid"]), 0)
    except PermissionError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return info if is_locked(home) else None


def find(home: Path) -> Address | None:
    """The platform that is up for this state folder, or None."""
    info = read_info(home)
    if info is None:
        return None
    try:
        token = (home / "token").read_text().strip()
    except OSError:
        return None
    return Address(info["url"].rstrip("/"), token, int(info["pid"]), bool(info.get("ephemeral", False)))


def from_environment() -> Address | None:
    """The platform that `$PENSTOCK_URL` and `$PENSTOCK_TOKEN` name, or None."""
    url = os.environ.get("PENSTOCK_URL", "").strip().rstrip("/")
    return Address(url, os.environ.get("PENSTOCK_TOKEN", "").strip()) if url else None


def locator(url: str | None, token: str | None, home: str | os.PathLike[str] | None) -> Callable[[], Address]:
    """A function that says where the platform is now: asked again whenever a connection breaks.

    Order: `url` given, `home` given, `$PENSTOCK_URL`, the default state folder.
    """
    if url:
        fixed = Address(url.rstrip("/"), token or os.environ.get("PENSTOCK_TOKEN", ""))
        return lambda: fixed
    named = from_environment() if home is None else None
    if named is not None:
        chosen = Address(named.url, token or named.token)
        return lambda: chosen
    folder = state_folder(home)

    def locate() -> Address:
        address = find(folder)
        if address is None:
            raise NoPlatformError(
                f"no platform is running here (state folder {folder}): start one with `penstock up`, "
                "or set PENSTOCK_URL and PENSTOCK_TOKEN to use one that runs elsewhere"
            )
        return Address(address.url, token, address.pid, address.ephemeral) if token else address

    return locate


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


class EmbeddedPlatform:
    """Holds a platform up for as long as this object is open: the one that is up, or an own one.

    Use: `start()` as early as possible, other work meanwhile, `wait()` for its address, `close()` at the end.
    """

    def __init__(self, home: str | os.PathLike[str] | None = None) -> None:
        self.home = state_folder(home)
        self.spawned = 0
        self._child: int | None = None
        self._exit: int | None = None
        self._last: Address | None = None
        prepare_home(self.home)
        self._lock = self._hold()

    def _hold(self) -> int:
        """Take the shared lock on `clients.lock`; waits while an ephemeral platform is stopping."""
        try:
            handle = os.open(self.home / "clients.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PlatformFailedError(
                f"the state folder {self.home} cannot be written ({error.strerror or error}): "
                "set PENSTOCK_HOME to a folder that you may write"
            ) from error
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(handle)
                    raise PlatformFailedError(
                        f"an embedded platform is stopping since {LOCK_TIMEOUT:.0f} s and does not end: "
                        f"see {self.home / 'platform.log'}{self._holder()}"
                    ) from None
                time.sleep(_POLL)
            else:
                return handle

    def _holder(self) -> str:
        info = read_info(self.home)
        return f" (pid {info['pid']})" if info else ""

    def start(self) -> None:
        """Start an own platform when none holds the state folder. Returns at once; a second call does nothing.

        Raises:
            PlatformFailedError: this environment has no platform to start.
        """
        if self._child is None and not is_locked(self.home):
            self._spawn()

    def _spawn(self) -> None:
        check_installed()
        log = self.home / "platform.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        # -P keeps the user's working directory off the module path: a file of theirs may be called queue.py.
        argv = [sys.executable, "-P", "-m", "penstock_standalone", "--ephemeral", "--home", str(self.home)]
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        self._child = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions, setsid=True)
        self._exit = None
        self.spawned += 1

    def _child_ended(self) -> bool:
        if self._child is not None and self._exit is None:
            try:
                pid, status = os.waitpid(self._child, os.WNOHANG)
            except ChildProcessError:
                pid, status = self._child, 0
            if pid:
                self._exit = os.waitstatus_to_exitcode(status)
        return self._child is None or self._exit is not None

    def wait(self, limit: float = READY_TIMEOUT) -> Address:
        """The address of the platform, as soon as it answers.

        Raises:
            PlatformFailed: it ended, or was not ready within `limit` seconds; with the end of its log.
        """
        deadline = time.monotonic() + limit
        while True:
            address = find(self.home)
            if address is not None:
                self._last = address
                return address
            if self._child_ended() and not is_locked(self.home) and find(self.home) is None:
                # Nobody is there: ours failed, or it lost the folder to another one that is gone by now.
                if self._exit not in (None, 0, _EXIT_LOCK_LOST) or self.spawned >= _MAX_SPAWNS:
                    how = (
                        f"with exit code {self._exit}" if (self._exit or 0) >= 0 else f"by signal {-(self._exit or 0)}"
                    )
                    raise PlatformFailedError(f"the embedded platform ended {how} while starting{self._tail()}")
                self._spawn()
            if time.monotonic() > deadline:
                raise PlatformFailedError(f"the embedded platform was not ready within {limit:.0f} s{self._tail()}")
            time.sleep(_POLL)

    def locate(self) -> Address:
        """The address now; restarts an embedded platform that died. Never waits.

        Raises:
            NoPlatform: it is not there yet: ask again.
        """
        address = find(self.home)
        if address is not None:
            self._last = address
            return address
        if not self.embedded:
            raise NoPlatformError(
                f"the platform of {self.home} is gone: start it again with `penstock up`; its runs then go on"
            )
        if self._child_ended() and not is_locked(self.home):
            self._spawn()
        raise NoPlatformError(
            f"the embedded platform has stopped, and is started again (log: {self.home / 'platform.log'})"
        )

    @property
    def embedded(self) -> bool:
        """Whether the platform in use ends with its clients."""
        return self.spawned > 0 or (self._last is not None and self._last.ephemeral)

    def _tail(self) -> str:
        return log_tail(self.home)

    def close(self) -> None:
        """Let go: an embedded platform without clients stops by itself."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> EmbeddedPlatform:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def log_tail(home: Path, lines: int = 12) -> str:
    """The last lines of the platform's log as the end of an error message."""
    log = home / "platform.log"
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            text = file.read().decode(errors="replace").strip()
    except OSError:
        return ""
    if not text:
        return f" (its log {log} is empty)"
    return f"; the end of {log}:\n" + "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])
