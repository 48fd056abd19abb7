"""Repairs the log of runs from its copy in the read model.

A run whose log lacks facts is written again as a whole, so that its facts stay in order: its copy is completed with
what the log still has, its facts are purged, and all are appended. They have the header `Penstock-Restored`, so that
executors look into the log before they run an attempt. Meanwhile the consumers of schedulers and executors are paused:
they resume by themselves if this process is killed, and the copy is marked until the run is complete again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock_adapters.nats.bootstrap import restore_consumer
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import fact_codec, subjects
from penstock_core import script_runs
from penstock_core.errors import UnavailableError
from penstock_core.facts import Fact, RunRequested
from penstock_gateway.read_model.database import ReadModel

if TYPE_CHECKING:
    from penstock_adapters.sql.fact_copy import CopiedFact

_PAUSE = 30.0
"""Seconds after which paused consumers resume by themselves."""

_PAUSED = ("scheduler-", "executor-")


@dataclass(frozen=True, slots=True)
class RepairReport:
    """How many lost facts were appended again, and what could not be restored."""

    restored: int
    notes: tuple[str, ...]


class RestoringLog(NatsRunLog):
    """Appends facts that the log has lost."""

    def _headers(self, fact: Fact) -> dict[str, str]:
        return super()._headers(fact) | {fact_codec.RESTORED: "1"}


class RunRepair:
    """Restores damaged runs.

    Args:
        bus: connection to the log.
        model: the read model, which has the copy.
        versions: the pipeline versions: a run without its version cannot be resumed.
        source: writer of the facts, for their envelopes.
    """

    def __init__(self, bus: Bus, model: ReadModel, versions: Versions, source: str) -> None:
        self._bus = bus
        self._model = model
        self._versions = versions
        self._log = RestoringLog(bus, source)

    async def repair(self, *, resume: bool) -> RepairReport:
        """Restore all damaged runs; with `resume`, write all unfinished runs again, so that they continue.

        Raises:
            UnavailableError: the log or the read model does not answer. Repeat the call.
        """
        damaged = {run.run_id: run.lost for run in await self._model.read(lambda model: model.damaged_runs())}
        unfinished = await self._model.read(lambda model: model.unfinished_runs()) if resume else []
        restored = 0
        notes: list[str] = []
        async with self._paused_consumers() as renew:
            for run_id in [*damaged, *(run_id for run_id in unfinished if run_id not in damaged)]:
                await renew()
                if note := await self._restore(run_id):
                    notes.append(note)
                else:
                    restored += damaged.get(run_id, 0)
        return RepairReport(restored, tuple(notes[:20]))

    async def _restore(self, run_id: str) -> str:
        """Write the log of a run again; returns why it cannot be restored."""
        survivors = await self._stored(run_id)
        copied = await self._model.write(lambda model: model.begin_restore(run_id, survivors))
        facts = [fact for one in copied if (fact := fact_codec.read(one.subject, one.data)) is not None]
        requested = next((fact for fact in facts if isinstance(fact, RunRequested)), None)
        if requested is None:
            return f"run {run_id}: its request is lost"
        if requested.version != script_runs.VERSION:
            version = await self._versions.get(requested.project, requested.pipeline, requested.version)
            if version is None:
                return f"run {run_id}: version {requested.version} of pipeline {requested.pipeline!r} is lost"
        # What was written since the copy was completed is moved to the end as well.
        while survivors:
            last = survivors[-1].seq
            purge = {"filter": subjects.run_all(run_id), "seq": last + 1}
            await self._bus.api(f"STREAM.PURGE.{subjects.RUNS}", purge, timeout=30.0)
            survivors = await self._stored(run_id)
            if survivors:
                await self._model.write(lambda model, late=survivors: model.begin_restore(run_id, late))
                known = {one.subject for one in copied}
                late = [fact_codec.read(one.subject, one.data) for one in survivors if one.subject not in known]
                facts += [fact for fact in late if fact is not None]
        await self._log.append(facts)
        await self._model.write(lambda model: model.end_restore(run_id))
        return ""

    async def _stored(self, run_id: str) -> Sequence[CopiedFact]:
        # Imported with the read model: see `database`.
        from penstock_adapters.sql.fact_copy import CopiedFact

        found = await self._bus.read(subjects.RUNS, subjects.run_all(run_id))
        headers = [message.headers or {} for message in found]
        return [
            CopiedFact(of["Nats-Subject"], int(of["Nats-Sequence"]), message.data)
            for message, of in zip(found, headers, strict=True)
        ]

    @contextlib.asynccontextmanager
    async def _paused_consumers(self) -> AsyncGenerator[Renewal]:
        for stream, name in list(self._bus.durable_consumers):
            if stream == subjects.RUNS:  # one that is missing would be created again unpaused
                await restore_consumer(self._bus, stream, name)
        names: list[str] = (await self._bus.api(f"CONSUMER.NAMES.{subjects.RUNS}")).get("consumers") or []
        renewal = Renewal(self._bus, [name for name in names if name.startswith(_PAUSED)])
        try:
            yield renewal
        finally:
            await renewal.resume()


class Renewal:
    """Pauses consumers of the log, and extends the pause when it is called."""

    def __init__(self, bus: Bus, names: Sequence[str]) -> None:
        self._bus = bus
        self._names = names
        self._until = 0.0

    async def __call__(self) -> None:
        """Pause, or extend the pause."""
        if time.time() > self._until - _PAUSE / 2:
            self._until = time.time() + _PAUSE
            await self._pause({"pause_until": subjects.rfc3339(int(self._until * 1000))})

    async def resume(self) -> None:
        """End the pause; without a server it ends by itself."""
        if self._until:
            with contextlib.suppress(UnavailableError, BusError):
                await self._pause({})

    async def _pause(self, body: dict[str, str]) -> None:
        subject = f"CONSUMER.PAUSE.{subjects.RUNS}"
        await asyncio.gather(*(self._bus.api(f"{subject}.{name}", body) for name in self._names))
