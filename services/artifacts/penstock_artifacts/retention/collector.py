"""Sweeps objects of the artifact store that nothing names: mark, grace, sweep.

An object goes when nothing named it for the whole grace period, at the end of it, and nobody put it, found it there or
said that it is about to be named meanwhile. What an attempt that is still under way may have stored, however long ago,
is not touched. What is older than the log itself is not either, unless that is asked for: the log that named it may be
the one that was lost.

So it is safe at any time, beside runs that write and beside other collectors; what keeps a look and a removal together
is the store's (`penstock_adapters.files.garbage_collection`, `penstock_adapters.s3.garbage_collection`).
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
"""Seconds by which clocks of machines may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a collection is to do.

    Attributes:
        going: runs that go, each with its pipeline. In a dry run they are still in the log.
        over: runs that are over.
        dry_run: whether only to tell.
        older_than_log: whether to sweep what is older than the log.
        log_created: when the log was made, as the server tells it.
    """

    going: Mapping[str, str]
    over: set[str]
    dry_run: bool
    older_than_log: bool
    log_created: str


class Collector:
    """Collects; `grace` is in seconds."""

    def __init__(self, store: ArtifactStore, roots: Roots, grace: float) -> None:
        self._store = store
        self._roots = roots
        self._grace = grace

    async def collect(
        self, wanted: Collection, report: JanitorReport, notify: Callable[[], Awaitable[None]]
    ) -> JanitorReport:
        """Sweep, and say in the report what was found. `notify` is called now and then.

        Raises:
            Unavailable: something could not be read to its end: nothing is swept.
            ArtifactError: the store, or something in it, cannot be read.
        """
        begun = time.time()
        named = await self._roots.find(wanted.going, wanted.over)
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
