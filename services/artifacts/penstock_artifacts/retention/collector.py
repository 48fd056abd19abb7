"""Mark-and-sweep garbage collection of unreferenced objects of the artifact store, with a grace period.

An object is removed when it was unreferenced for the whole grace period, and nobody put, used or announced it in that
time. Objects that a running attempt may have stored are kept, however old they are. Objects that predate the log are
kept too, unless they are included explicitly: they may be referenced by a log that was lost.

So it is safe at any time, while runs write and other collectors work. The stores make each
check and removal atomic (`penstock_adapters.files.garbage_collection`, `penstock_adapters.s3.garbage_collection`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from penstock_artifacts.retention.roots import References, Roots
from penstock_contracts.retention import JanitorReport, Objects, Share
from penstock_core.ports import ArtifactStore, StoredObject

_MARGIN = 60.0
"""Seconds by which the clocks of machines may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Options of a collection.

    Attributes:
        deleted: deleted runs, each with its pipeline; in a dry run they are still in the log.
        finished: finished runs.
        dry_run: whether to list only what would be removed.
        older_than_log: whether to remove objects that predate the log, too.
        log_created: when the log was created, as the server reports it.
    """

    deleted: Mapping[str, str]
    finished: set[str]
    dry_run: bool
    older_than_log: bool
    log_created: str


class Collector:
    """Collects garbage; `grace` is in seconds."""

    def __init__(self, store: ArtifactStore, roots: Roots, grace: float) -> None:
        self._store = store
        self._roots = roots
        self._grace = grace

    async def collect(
        self, wanted: Collection, report: JanitorReport, notify: Callable[[], Awaitable[None]]
    ) -> JanitorReport:
        """Mark and sweep, and fill in the report; `notify` is called periodically.

        Raises:
            UnavailableError: something could not be read completely; nothing is removed.
            ArtifactError: the store, or something in it, cannot be read.
        """
        begun = time.time()
        named = await self._roots.find(wanted.deleted, wanted.finished)
        cutoff = min(begun - self._grace, named.busy_since - _MARGIN)
        born = datetime.fromisoformat(wanted.log_created).timestamp() - _MARGIN
        report.grace = self._grace
        async for part in self._store.marked():
            await notify()
            for sha256 in part:
                if bytes.fromhex(sha256) in named.retained and not wanted.dry_run:
                    await self._store.touch(sha256)
        marked: set[str] = set()
        async for part in self._store.marked():
            marked.update(part)
        async for part in self._store.listing():
            await notify()
            for found in part:
                _count(report.stored, found)
                await self._look(found, named, cutoff, born, marked, wanted, report)
        if not wanted.dry_run:
            await self._store.tidy()
        return report

    async def _look(
        self,
        found: StoredObject,
        named: References,
        cutoff: float,
        born: float,
        marked: set[str],
        wanted: Collection,
        report: JanitorReport,
    ) -> None:
        key = bytes.fromhex(found.sha256)
        if key in named.retained:
            return
        pipeline = named.freed.get(key)
        if pipeline is not None:
            share = report.pipelines.setdefault(pipeline, Share())
            share.objects += 1
            share.bytes += found.size
            return
        if found.modified < born and not wanted.older_than_log:
            report.predates_log += 1
            return
        old = found.modified < cutoff
        if wanted.dry_run:
            _count(report.removed if old and found.sha256 in marked else report.unreferenced, found)
        elif old and await self._store.sweep(found.sha256, cutoff):
            _count(report.removed, found)
        else:
            _count(report.unreferenced, found)


def _count(into: Objects, found: StoredObject) -> None:
    into.objects += 1
    into.bytes += found.size
