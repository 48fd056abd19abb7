"""Takes the runs that scripts have recorded in the state folder into the log, once each.

In: folders `tracked/<run id>` as `penstock.tracking` writes them. Out: measurements in their stream, then
the facts of
the run, then the folder is removed. A script that still lives holds a lock and is left alone; one that was killed has
no `end.json`, and its run ends as failed.

Promises: whatever is cut off is done again, and done twice is done once; a folder that cannot be used is set aside with
the reason in the service's log, and hurts no other. Nothing in the files is trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from penstock_adapters.files.growing_file import AppendedFile
from penstock_adapters.mirror import Mirror
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_core import ids, script_runs
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptFinished
from penstock_core.ports import UnavailableError
from penstock_core.shipping.messages import measurements
from penstock_core.shipping.tail import PointReader
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.tracked import parser

PATIENCE = 5.0
"""Seconds that one look may take; what is left after them comes at the next one."""

UNUSABLE = ".unusable"
"""Ending of the name of a folder that was set aside."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """A run's folder, whose script is over."""

    path: Path

    @property
    def run_id(self) -> str:
        """The run."""
        return self.path.name


class TrackedRunImporter:
    """Looks for runs of scripts whenever somebody wants to see runs; where there are none this costs one look."""

    def __init__(self, home: Path, project: str, bus: Bus, runs: NatsRunLog, log: FilteringBoundLogger) -> None:
        self._root = home / "tracked"
        self._project = project
        self._bus = bus
        self._runs = runs
        self._log = log
        self._mirror = Mirror(bus, home)
        self._one = asyncio.Lock()

    async def import_runs(self, wanted: str = "") -> None:
        """Take in runs whose scripts are over, `wanted` first. What cannot be done now is left for the next time."""
        if not _names(self._root):
            return
        until = time.monotonic() + PATIENCE
        async with self._one:
            for name in sorted(_names(self._root), key=lambda name: (name != wanted, name)):
                if time.monotonic() > until:
                    return
                with _held(self._root / name) as folder:
                    if folder is not None:
                        await self._take(folder)

    async def _take(self, folder: _Folder) -> None:
        try:
            run = await asyncio.to_thread(parser.read, folder.path, self._project)
            await self._mirror.put(run.values())
            await self._measure(folder, run.end)
            await self._runs.append(run.facts())
        except UnavailableError as error:
            self._log.warning("the run of a script is taken in later", run=folder.run_id, error=str(error))
            return
        except (PenstockError, BusError, OSError, ValueError) as error:
            self._log.error("the run of a script cannot be taken in", run=folder.run_id, error=str(error))
            with contextlib.suppress(OSError):
                folder.path.rename(folder.path.with_name(folder.run_id + UNUSABLE))
            return
        self._log.info("the run of a script was taken in", run=folder.run_id)
        await asyncio.to_thread(shutil.rmtree, folder.path, True)

    async def _measure(self, folder: _Folder, end: AttemptFinished) -> None:
        """Publish what the script has measured, in the same parts however often this is begun."""
        points = PointReader(AppendedFile(str(folder.path / "run.points")))
        attempt = (folder.run_id, script_runs.STEP, end.attempt)
        first = 0
        while True:
            part = await asyncio.to_thread(points.read, True)
            if part:
                body = measurements(*attempt, first, part)
                name = f"{folder.run_id}.{script_runs.STEP}.{end.attempt}.{first}"
                await self._bus.publish(subjects.metrics(*attempt), body, {"Nats-Msg-Id": name})
                first += len(part)
            if points.exhausted:
                return


def no_pipeline(name: str) -> ProblemError:
    """The problem of asking for a run of what scripts run."""
    why = "the platform cannot run it: run the script again"
    return ProblemError(409, f"{name!r} is an experiment of a script", why)


def _names(root: Path) -> list[str]:
    """Names of folders that may hold a run."""
    try:
        found = os.listdir(root)  # noqa: PTH208 - names are all that is needed, at every look at runs
    except OSError:
        return []
    return [name for name in found if name[0] != "." and ids.is_name(name)]


@contextlib.contextmanager
def _held(path: Path) -> Generator[_Folder | None]:
    """A run's folder while nobody else takes it in; None where its script lives, or somebody does."""
    try:
        lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield None
    else:
        # Somebody may have taken it in between the look and the lock.
        yield _Folder(path) if (path / "begin.json").exists() else None
    finally:
        os.close(lock)
