"""Imports the runs that plain scripts recorded in the state folder into the log, once each.

In: folders `tracked/<run id>` as `penstock.tracking` writes them. Out: metrics in their stream, then the
facts of the run; then the folder is removed. The folder of a running script is locked, and skipped; a script that was
killed left no `end.json`, and its run fails.

Promises: an interrupted import is repeated and idempotent; an invalid folder is renamed, with the reason in the log,
and does not affect the others. The files are not trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from penstock_adapters.files.growing_file import AppendedFile
from penstock_adapters.files.lock import try_lock
from penstock_adapters.mirror import Mirror
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_core import ids, script_runs
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import AttemptFinished
from penstock_core.shipping.messages import measurements
from penstock_core.shipping.tail import PointReader
from penstock_gateway.tracked import parser

PATIENCE = 5.0
"""Seconds that one import may take; the next one continues."""

UNUSABLE = ".unusable"
"""Suffix of the name of an invalid folder."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """The folder of a run whose script has finished."""

    path: Path

    @property
    def run_id(self) -> str:
        """ID of the run."""
        return self.path.name


class TrackedRunImporter:
    """Imports runs of scripts whenever runs are queried. Without recorded runs that costs one directory listing."""

    def __init__(self, home: Path, project: str, bus: Bus, runs: NatsRunLog, log: FilteringBoundLogger) -> None:
        self._root = home / "tracked"
        self._project = project
        self._bus = bus
        self._runs = runs
        self._log = log
        self._mirror = Mirror(bus, home)
        self._one = asyncio.Lock()

    async def import_runs(self, first: str = "") -> None:
        """Import the runs of finished scripts, `first` before the others. The next call continues after a failure."""
        if not _names(self._root):
            return
        until = time.monotonic() + PATIENCE
        async with self._one:
            for name in sorted(_names(self._root), key=lambda name: (name != first, name)):
                if time.monotonic() > until:
                    return
                with _locked(self._root / name) as folder:
                    if folder is not None:
                        await self._import(folder)

    async def _import(self, folder: _Folder) -> None:
        try:
            run = await asyncio.to_thread(parser.read, folder.path, self._project)
            await self._mirror.put(run.values())
            await self._publish_metrics(folder, run.end)
            await self._runs.append(run.facts())
        except UnavailableError as error:
            self._log.warning("run of a script not imported; will be retried", run=folder.run_id, error=str(error))
            return
        except (PenstockError, BusError, OSError, ValueError) as error:
            self._log.error("run of a script cannot be imported", run=folder.run_id, error=str(error))
            with contextlib.suppress(OSError):
                folder.path.rename(folder.path.with_name(folder.run_id + UNUSABLE))
            return
        self._log.info("imported the run of a script", run=folder.run_id)
        await asyncio.to_thread(shutil.rmtree, folder.path, True)

    async def _publish_metrics(self, folder: _Folder, end: AttemptFinished) -> None:
        """Publish the metrics of the script, in the same batches at each attempt."""
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


def _names(root: Path) -> list[str]:
    """Return the names of folders that may contain a run."""
    try:
        found = os.listdir(root)  # noqa: PTH208 - only names are needed, at every query of runs
    except OSError:
        return []
    return [name for name in found if name[0] != "." and ids.is_name(name)]


@contextlib.contextmanager
def _locked(path: Path) -> Generator[_Folder | None]:
    """Yield a run's folder while nobody else imports it; None if its script runs or somebody does."""
    with try_lock(path / "lock") as locked:
        # Another gateway may have imported it between the listing and the lock.
        yield _Folder(path) if locked and (path / "begin.json").exists() else None
