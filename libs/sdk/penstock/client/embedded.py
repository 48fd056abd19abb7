"""Starts, shares, replaces and stops the embedded platform of a state folder.

A command that finds no platform starts an embedded one. It stops when nothing has used it for `PENSTOCK_IDLE` seconds:
no command holds the shared lock on `clients.lock`, no request arrives, and no run is active. A command that would start
it with other settings replaces it if nothing uses it (see `launch`).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from penstock.client import launch
from penstock.client.platform import (
    Address,
    check_installed,
    find,
    is_locked,
    last_log_line,
    log_tail,
    prepare_home,
    read_info,
    state_folder,
)
from penstock.errors import ClientError, NoPlatformError, PlatformFailedError

READY_TIMEOUT = 20.0
"""Seconds until an embedded platform must be ready."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for an embedded platform that is stopping."""

STOP_TIMEOUT = 25.0
"""Seconds that a platform may take to stop before it is killed."""

_POLL = 0.005
_MAX_SPAWNS = 3
_LOG_LIMIT = 16 * 1024 * 1024
_EXIT_WRONG_SETTINGS = 2
"""Exit status of a platform that found `PENSTOCK_…` variables with values that it cannot use."""
_EXIT_LOCK_LOST = 3
"""Exit status of a platform that found the state folder locked by another one."""


class EmbeddedPlatform:
    """Keeps a platform running while this object is open: the running one, or an embedded one that it starts.

    Call `start()` as early as possible, `wait()` for the address when it is needed, and `close()` at the end.

    Args:
        home: the state folder.
        steps: whether steps will run for this client: then a platform whose steps get other environment variables is
            replaced, too.

    Attributes:
        differing: what the platform in use was started with that this process would start it with otherwise, such as
            `PENSTOCK_SLOTS`. It was not replaced because others use it.

    Raises:
        PlatformFailedError: the state folder cannot be written, or the platform in use is of another version.
    """

    def __init__(self, home: str | os.PathLike[str] | None = None, *, steps: bool = True) -> None:
        self.home = state_folder(home)
        self.spawned = 0
        self.differing: list[str] = []
        self._steps = steps
        self._child: int | None = None
        self._exit: int | None = None
        self._last: Address | None = None
        prepare_home(self.home)
        self._lock = _open_clients_lock(self.home)
        try:
            self._share()
        except BaseException:
            self.close()
            raise

    def _share(self) -> None:
        """Take the shared lock; before, replace a platform that differs and that nothing uses."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            running = find(self.home)
            if running is not None and running.embedded:
                self.differing = launch.differences(running.launch, steps=self._steps)
                if self.differing and _try_lock(self._lock, fcntl.LOCK_EX):
                    if find(self.home) == running and not active_runs(running):
                        stop(self.home, running)
                        self.differing = []
                    fcntl.flock(self._lock, fcntl.LOCK_UN)
            else:
                self.differing = []
            # Refused while another command replaces the platform, or while it stops.
            if _try_lock(self._lock, fcntl.LOCK_SH):
                break
            if time.monotonic() > deadline:
                raise PlatformFailedError(
                    f"an embedded platform has been stopping for {LOCK_TIMEOUT:.0f} s and does not exit: "
                    f"see {self.home / 'platform.log'}{_process(self.home)}; `penstock down` stops it"
                )
            time.sleep(_POLL)
        if launch.is_other_version(self.differing):
            raise PlatformFailedError(
                f"the embedded platform on {self.home} was started by another version of Penstock, and is in use: "
                "try again when its runs and commands have finished, or stop it with `penstock down`"
            )

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
        argv = [sys.executable, "-P", "-m", "penstock_standalone", "--embedded", "--home", str(self.home)]
        actions: list[tuple[Any, ...]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        environment = {**os.environ, launch.VARIABLE: json.dumps(launch.fingerprint())}
        self._child = os.posix_spawn(sys.executable, argv, environment, file_actions=actions, setsid=True)
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
                if self._exit == _EXIT_WRONG_SETTINGS:
                    raise PlatformFailedError(last_log_line(self.home).removeprefix("penstock: "))
                # No platform runs: ours failed, or another one had the folder and has stopped since.
                if self._exit not in (None, 0, _EXIT_LOCK_LOST) or self.spawned >= _MAX_SPAWNS:
                    how = (
                        f"with exit code {self._exit}" if (self._exit or 0) >= 0 else f"by signal {-(self._exit or 0)}"
                    )
                    raise PlatformFailedError(f"the embedded platform exited {how} while starting{log_tail(self.home)}")
                self._spawn()
            if time.monotonic() > deadline:
                raise PlatformFailedError(
                    f"the embedded platform was not ready within {limit:.0f} s{log_tail(self.home)}"
                )
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
        """Whether the platform in use was started by a command."""
        return self.spawned > 0 or (self._last is not None and self._last.embedded)

    @property
    def idle(self) -> float | None:
        """After how many seconds without use the platform stops; None if it is not an embedded one."""
        return self._last.idle if self._last is not None else None

    def close(self) -> None:
        """Release the lock: an embedded platform stops when nothing has used it for its idle time."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> EmbeddedPlatform:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stop_unused(home: Path) -> bool:
    """Stop the embedded platform unless a command uses it; return whether it has stopped. Its runs continue later.

    Raises:
        PlatformFailedError: the state folder cannot be written, or the platform does not exit.
    """
    lock = _open_clients_lock(home)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not _try_lock(lock, fcntl.LOCK_EX):
            # A command shares the lock; a platform that stops, or a command that replaces it, does not.
            if _try_lock(lock, fcntl.LOCK_SH) or time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
        running = find(home)
        if running is not None and running.embedded:
            stop(home, running)
        return True
    finally:
        os.close(lock)


def stop(home: Path, address: Address) -> None:
    """Stop a platform gracefully, and kill it if it does not stop in time.

    Raises:
        PlatformFailedError: it does not exit.
    """
    if address.pid is None:
        raise PlatformFailedError(f"the platform at {address.url} runs elsewhere: stop it there")
    for number, limit in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + limit
        try:
            os.kill(address.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise PlatformFailedError(
                f"process {address.pid} of the platform on {home} belongs to another user"
            ) from error
        while is_locked(home):
            info = read_info(home)
            if info is not None and info["pid"] != address.pid:
                return  # another one has started
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
        else:
            return
    raise PlatformFailedError(f"the platform on {home} (process {address.pid}) does not exit")


def active_runs(address: Address) -> int:
    """Return how many runs of a platform have not finished; 0 if it does not answer."""
    # Needed only before a platform is stopped; HTTP takes long to import.
    from penstock.client.http.transport import Transport

    transport = Transport(lambda: address, timeout=5.0, patience=2.0)
    try:
        pages = [
            transport.json("GET", "/v1/runs", query={"state": state, "limit": 500}) for state in ("running", "queued")
        ]
        return sum(len(page["runs"]) for page in pages)
    except (ClientError, KeyError, TypeError):
        return 0


def _open_clients_lock(home: Path) -> int:
    try:
        return os.open(home / "clients.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PlatformFailedError(
            f"the state folder {home} cannot be written ({error.strerror or error}): "
            "set PENSTOCK_HOME to a writable folder"
        ) from error


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _process(home: Path) -> str:
    info = read_info(home)
    return f" (pid {info['pid']})" if info else ""
