"""The state folder of a platform: its locks, its token, and the file with the address of the platform.

Only one platform may use a folder: it locks the folder itself while it runs, as a lock file could be deleted, and stops
when the folder is deleted or replaced. Commands that use an embedded platform share a lock on `clients.lock` while they
run, which the kernel releases when they exit for any reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import IO, Any

from penstock_core.errors import PenstockError

_LEAST_FREE = 64 * 1024 * 1024
_PROBES, _PROBE_PAUSE = 5, 0.05
_WATCH_INTERVAL = 1.0


class StateError(PenstockError):
    """The state folder cannot be used, for the reason in the message."""


class StateFolder:
    """A state folder locked by this process."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self._lock = -1
        self._alone: IO[str] | None = None
        self._note: dict[str, Any] = {}

    def hold(self) -> None:
        """Create the folder if needed and lock it.

        Raises:
            StateError: it is not writable, the disk is full, or another platform uses it.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            probe = self.home / ".writable"
            probe.write_bytes(b"x" * 4096)
            probe.unlink()
        except OSError as error:
            raise StateError(_explain(self.home, error)) from error
        try:
            self._acquire(lock)
        except OSError as error:
            os.close(lock)
            raise StateError(self._refusal(error)) from error
        self._lock = lock
        # A platform that was killed has left its address.
        (self.home / "platform.json").unlink(missing_ok=True)
        free = shutil.disk_usage(self.home).free
        if free < _LEAST_FREE:
            raise StateError(
                f"the disk of {self.home} has only {free // 1024**2} MiB left: free some space, or set PENSTOCK_HOME"
            )

    def _acquire(self, lock: int) -> None:
        for attempt in range(_PROBES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if attempt == _PROBES - 1:
                    raise
                time.sleep(_PROBE_PAUSE)  # a client may just be probing whether a platform runs

    def _refusal(self, error: OSError) -> str:
        if not isinstance(error, BlockingIOError):
            return f"the state folder {self.home} cannot be locked ({error.strerror}): put it on a local disk"
        note = self.read_note()
        where = f" (process {note.get('pid')}, {note.get('url')})" if note else ""
        return (
            f"a platform already runs on {self.home}{where}: use it, stop it, or set another folder with PENSTOCK_HOME"
        )

    async def watch(self) -> None:
        """Return never: check that the folder at its path stays the locked one, and write a deleted address again.

        Raises:
            StateError: the folder or all of its contents were deleted, moved or replaced.
        """
        note, token = self.home / "platform.json", self.home / "token"
        while True:
            in_place = self._is_in_place()
            if in_place and self._note and not note.exists() and token.exists():
                self.write_note(self._note)
            if not (in_place and note.exists()):
                raise StateError(f"the state folder {self.home} was deleted, moved or replaced while the platform ran")
            await asyncio.sleep(_WATCH_INTERVAL)

    def _is_in_place(self) -> bool:
        """Whether the locked folder is still the one at its path."""
        try:
            return os.path.samestat(os.fstat(self._lock), self.home.stat())
        except OSError:
            return False

    def token(self) -> str:
        """Return the token of the HTTP API; created at the first start, readable by its owner only."""
        path = self.home / "token"
        with contextlib.suppress(FileNotFoundError):
            if known := path.read_text().strip():
                return known
        # There is none, or an empty file left by a full disk or a kill. The new one is written atomically.
        token = secrets.token_urlsafe(32)
        part = self.home / f".token.{os.getpid()}"
        with open(part, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return token

    def write_note(self, note: dict[str, Any]) -> None:
        """Write the address of the platform atomically."""
        self._note = note
        part = self.home / f".platform.json.{os.getpid()}"
        with open(part, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump(note, file)
        part.replace(self.home / "platform.json")

    def read_note(self) -> dict[str, Any]:
        """Read the address of the platform; empty when there is none."""
        try:
            return json.loads((self.home / "platform.json").read_text())
        except (OSError, ValueError):
            return {}

    def release(self) -> None:
        """Remove the address and unlock."""
        if self._lock >= 0:
            if self._is_in_place():
                (self.home / "platform.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def wait_for_no_clients(self) -> None:
        """Block until no command uses the platform, and lock them out."""
        self._alone = (self.home / "clients.lock").open("a")
        fcntl.flock(self._alone, fcntl.LOCK_EX)

    def has_clients(self) -> bool:
        """Whether a command uses the platform."""
        with (self.home / "clients.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def lock_clients_out(self) -> bool:
        """Make commands that come from now on wait; return False if one uses the platform.

        The lock stays until `let_clients_in` or the end of the process: such a command then starts a new platform.
        """
        lock = (self.home / "clients.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._alone = lock
        return True

    def let_clients_in(self) -> None:
        """Undo `lock_clients_out`."""
        if self._alone is not None:
            self._alone.close()
            self._alone = None


def _explain(home: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk of {home} is full: free some space, or set PENSTOCK_HOME to a folder on another disk"
    return (
        f"the state folder {home} cannot be written ({error.strerror}): check its owner and mode, or set PENSTOCK_HOME"
    )
