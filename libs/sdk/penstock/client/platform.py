"""Finds the local platform of a state folder, or starts an embedded one.

This module imports only light parts of the standard library, because `penstock run` starts an embedded platform with
it before it imports anything else.

An embedded platform runs as long as any client holds a shared lock on `clients.lock`, even if the client that started
it has exited. Clients that start at the same time share one platform.
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

from penstock.errors import NoPlatformError, PlatformFailedError
from penstock_core.version import VERSION

READY_TIMEOUT = 20.0
"""Seconds until an embedded platform must be ready."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for an embedded platform that is stopping."""

_POLL = 0.005
_MAX_SPAWNS = 3
_LOG_LIMIT = 16 * 1024 * 1024
_EXIT_LOCK_LOST = 3
"""Exit status of a platform that found the state folder locked by another one."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a platform. `pid` is None for a platform given by URL."""

    url: str
    token: str
    pid: int | None = None
    ephemeral: bool = False

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
    return _has_exclusive_lock(home)


def is_stopping(home: Path) -> bool:
    """Whether an embedded platform holds `clients.lock` exclusively, because its last client has exited."""
    return _has_exclusive_lock(home / "clients.lock")


def _has_exclusive_lock(path: Path) -> bool:
    """Probe with a shared lock: probes do not collide."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
    return Address(info["url"].rstrip("/"), token, int(info["pid"]), bool(info.get("ephemeral", False)))


def from_environment() -> Address | None:
    """Return the address in `$PENSTOCK_URL` and `$PENSTOCK_TOKEN`, or None."""
    url = os.environ.get("PENSTOCK_URL", "").strip().rstrip("/")
    return Address(url, os.environ.get("PENSTOCK_TOKEN", "").strip()) if url else None


def locator(url: str | None, token: str | None, home: str | os.PathLike[str] | None) -> Callable[[], Address]:
    """Return a function that looks up the current address of the platform, called again when a connection breaks.

    Precedence: `url`, `home`, `$PENSTOCK_URL`, the default state folder.
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
    """Keeps a platform running while this object is open: the running one, or an embedded one that it starts.

    Call `start()` as early as possible, `wait()` for the address when it is needed, and `close()` at the end.
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
        """Take the shared lock on `clients.lock`; wait while an embedded platform is stopping."""
        try:
            handle = os.open(self.home / "clients.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PlatformFailedError(
                f"the state folder {self.home} cannot be written ({error.strerror or error}): "
                "set PENSTOCK_HOME to a writable folder"
            ) from error
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(handle)
                    raise PlatformFailedError(
                        f"an embedded platform has been stopping for {LOCK_TIMEOUT:.0f} s and does not exit: "
                        f"see {self.home / 'platform.log'}{self._holder()}"
                    ) from None
                time.sleep(_POLL)
            else:
                return handle

    def _holder(self) -> str:
        info = read_info(self.home)
        return f" (pid {info['pid']})" if info else ""

    def start(self) -> None:
        """Start an embedded platform unless one runs on the state folder. Returns at once; idempotent.

        Raises:
            PlatformFailedError: this environment has the client only.
        """
        if self._child is None and not is_locked(self.home):
            self._spawn()

    def _spawn(self) -> None:
        check_installed()
        log = self.home / "platform.log"
        if log.exists() and log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        # -P keeps the working directory off the module path: it may contain a user's queue.py.
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
        """Return the address of the platform once it is ready.

        Raises:
            PlatformFailedError: it exited, or was not ready within `limit` seconds; shows the end of its log.
        """
        deadline = time.monotonic() + limit
        while True:
            address = find(self.home)
            if address is not None:
                self._last = address
                return address
            if self._child_ended() and not is_locked(self.home) and find(self.home) is None:
                # No platform runs: ours failed, or another one had the folder and has stopped since.
                if self._exit not in (None, 0, _EXIT_LOCK_LOST) or self.spawned >= _MAX_SPAWNS:
                    how = (
                        f"with exit code {self._exit}" if (self._exit or 0) >= 0 else f"by signal {-(self._exit or 0)}"
                    )
                    raise PlatformFailedError(f"the embedded platform exited {how} while starting{self._tail()}")
                self._spawn()
            if time.monotonic() > deadline:
                raise PlatformFailedError(f"the embedded platform was not ready within {limit:.0f} s{self._tail()}")
            time.sleep(_POLL)

    def locate(self) -> Address:
        """Return the current address without waiting; restart an embedded platform that has stopped.

        Raises:
            NoPlatformError: it is not ready yet: call again.
        """
        address = find(self.home)
        if address is not None:
            self._last = address
            return address
        if not self.embedded:
            raise NoPlatformError(
                f"the platform of {self.home} has stopped: start it again with `penstock up` to continue its runs"
            )
        if self._child_ended() and not is_locked(self.home):
            self._spawn()
        raise NoPlatformError(
            f"the embedded platform has stopped and is being restarted (log: {self.home / 'platform.log'})"
        )

    @property
    def embedded(self) -> bool:
        """Whether the platform in use stops with its last client."""
        return self.spawned > 0 or (self._last is not None and self._last.ephemeral)

    def _tail(self) -> str:
        return log_tail(self.home)

    def close(self) -> None:
        """Release the lock: an embedded platform stops when it has no clients."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> EmbeddedPlatform:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def log_tail(home: Path, lines: int = 12) -> str:
    """Return the last lines of the platform's log as the end of an error message."""
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
