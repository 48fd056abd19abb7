"""Finds and removes what a killed executor left behind: processes, and folders of attempts.

Every fork server, and so each of its descendants, has `PENSTOCK_FORKSERVER=<state folder>.<executor's folder>.<number>`
in its environment. An executor locks its folder under `<state folder>/work` for as long as it runs. A folder that is
missing or not locked means that the processes with its mark are orphans.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from penstock_adapters.files.lock import try_lock

VARIABLE = "PENSTOCK_FORKSERVER"

_ROUNDS = 250
_PAUSE = 0.02


class WorkFolder:
    """The folder of one executor under `<home>/work`, locked until `release`."""

    def __init__(self, home: Path) -> None:
        root = home / "work"
        root.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
            # A concurrent sweep removes a folder that is not locked yet: before it is opened, or before it is locked.
            with suppress(FileNotFoundError):
                self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if self.path.exists():
                    break
                os.close(self._lock)
        self.mark = f"{_digest(home)}.{self.path.name}"

    def release(self) -> None:
        """Remove the folder with its content."""
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            os.close(self._lock)


def sweep(home: Path) -> int:
    """Kill the processes and remove the folders of dead executors of this state folder.

    Returns:
        How many processes were killed.
    """
    prefix = _digest(home) + "."
    root = home / "work"
    locked: dict[str, bool] = {}

    def abandoned(mark: str) -> bool:
        folder = mark.removeprefix(prefix).partition(".")[0]
        if not mark.startswith(prefix):
            return False
        if folder not in locked:
            locked[folder] = is_locked(root / folder)
        return not locked[folder]

    killed = _kill(abandoned)
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.is_dir() and not is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
    return killed


def kill_marked(mark: str) -> int:
    """Kill every process with exactly this mark; returns how many."""
    return _kill(lambda found: found == mark)


def kill_marked_below(mark: str) -> int:
    """Kill every process of an executor with this mark, of any of its fork servers; returns how many."""
    return _kill(lambda found: found.startswith(f"{mark}."))


def _kill(wanted: Callable[[str], bool]) -> int:
    """Kill processes by mark until none is found: they may fork meanwhile."""
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        found = [pid for pid in _own_processes() if (mark := _mark(pid)) and wanted(mark) and not _is_ours(pid)]
        for pid in found:
            if _kill_if(pid, wanted):
                killed.add(pid)
        if not found:
            break
        time.sleep(_PAUSE)
    return len(killed)


def _kill_if(pid: int, wanted: Callable[[str], bool]) -> bool:
    """Kill a process if its id has not been reused since it was found."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        mark = _mark(pid)
        if mark is None or not wanted(mark):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(pidfd)


def _own_processes() -> Iterator[int]:
    uid = os.getuid()
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                with suppress(OSError):
                    if uid in (0, entry.stat().st_uid):  # root's steps may run as another user
                        yield int(entry.name)


def _mark(pid: int) -> str | None:
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    start = f"{VARIABLE}=".encode()
    return next((os.fsdecode(entry[len(start) :]) for entry in block.split(b"\0") if entry.startswith(start)), None)


def _is_ours(pid: int) -> bool:
    """Whether the process is this one or its descendant: this executor may itself run under an abandoned mark."""
    own = os.getpid()
    while pid > 1:
        if pid == own:
            return True
        try:
            # "pid (name) state ppid …", where the name may contain anything
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
    return False


def is_locked(folder: Path) -> bool:
    """Whether another process holds a lock on a folder."""
    with try_lock(folder) as locked:
        return folder.is_dir() and not locked


def _digest(home: Path) -> str:
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
