"""Moves the facts of runs that are over from the log to the artifact store, and what their steps wrote.

For each run: the log is written to an object; a note in the store says where, for the day on which the log is lost;
the fact `archived` says so in the log; the object is read back whole and compared; only then the log is purged, of
what the object holds. All of it may be done again after any step, by any number of janitors: the first `archived` is
the one that counts, and purging what is purged does nothing.

What asked for the run, how it ended, and `archived` stay in the log: so no id and no idempotency key is free again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from penstock_adapters import threads
from penstock_adapters.nats.archived_log import ArchivedLog, Archives
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_contracts import archives, fact_codec, run_history, subjects
from penstock_contracts.archives import ArchiveDamagedError
from penstock_contracts.run_history import HistoryHeader
from penstock_core.errors import PenstockError
from penstock_core.facts import RunArchived, RunFinished, RunRequested
from penstock_core.facts.retention import NAMES_LIMIT
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.ports import ArtifactStore
from penstock_core.retention import RunRecord

NOTES = "archives/"
_MOVED = ("step.>", "clock.>", "admitted", "cancel")
"""What an archived run does not keep in the log."""

_NO_MESSAGE = 10037
_YOUNG = 300.0


class ArchiveNotFoundError(PenstockError):
    """A run, or its archive, is not there."""


class Archiver:
    """Archives runs into a store.

    Args:
        bus: where the log is.
        store: where archives go.
        folder: where archives are written before they are put.
        source: who appends, for the envelopes of facts.
    """

    def __init__(self, bus: Bus, store: ArtifactStore, folder: Path, source: str) -> None:
        self._bus = bus
        self._store = store
        self._folder = folder
        self._followers = Followers(bus)
        self._versions = Versions(bus)
        self.archives = Archives(self._fetched)
        self.log = ArchivedLog(bus, source, self.archives)

    async def archive(self, note: RunRecord) -> RunArchived:
        """Store what the log has of a run that is over; the log stays as it is but for the fact that says so.

        Raises:
            NotThere: the log does not hold the run.
            ArtifactError: the store does not take it.
            Unavailable: the log or the store does not answer.
        """
        known = await self.log.archived(note.run_id)
        if known is not None:
            return known
        version = await self._versions.get(note.project, note.pipeline, await self._version(note.run_id))
        pipeline = version.pipeline if version else Pipeline(name=note.pipeline)
        header = HistoryHeader(
            run_id=note.run_id, project=note.project, pipeline=pipeline, version=version.version if version else 0
        )
        history, facts = await self._stored(archives.HISTORY, self._facts(header))
        output, wrote = await self._stored(archives.OUTPUT, self._output(note.run_id))
        if not facts.last_seq:
            raise ArchiveNotFoundError(f"the log holds nothing of run {note.run_id}")
        digests = facts.digests
        few = len(digests) <= NAMES_LIMIT
        fact = RunArchived(
            run_id=note.run_id,
            history=history,
            facts=facts.lines - 1,
            last_seq=facts.last_seq,
            archived_at=time.time(),
            finished_at=note.finished_at,
            output=output if wrote.lines else None,
            output_seq=wrote.last_seq,
            digests=tuple(sorted(digests)) if few else None,
            folders=tuple(sorted(facts.folders)) if few else (),
        )
        name = note_name(note, fact)
        await self._store.put_note(name, fact_codec.encode(fact))
        [written] = await self.log.append([fact])
        if not written:
            # Another janitor was faster: what it says counts, and so the note has to say the same.
            known = await self.log.archived(note.run_id)
            fact = known or fact
            await self._store.put_note(name, fact_codec.encode(fact))
        try:
            await self._version(note.run_id)
        except ArchiveNotFoundError:
            # It was deleted meanwhile.
            await self._store.delete_note(name)
            await self._purge(subjects.RUNS, subjects.run(note.run_id, "archived"))
            raise
        return fact

    async def purge(self, archived: RunArchived) -> bool:
        """Remove from the log what the archive holds, once that was read back whole; False when nothing was left.

        Raises:
            ArchiveDamaged, ArtifactError: the archive is not what was stored; nothing is removed.
            Unavailable: the log or the store does not answer.
        """
        if not await self._is_left(archived):
            return False
        await self.check(archived)
        run = subjects.run(archived.run_id, "")
        for tail in _MOVED:
            await self._purge(subjects.RUNS, f"{run}{tail}", archived.last_seq + 1)
        if archived.output is not None:
            await self._purge(subjects.LOGS, subjects.logs_all(archived.run_id), archived.output_seq + 1)
        return True

    async def check(self, archived: RunArchived) -> None:
        """Read an archive back whole. Raises as `purge` does."""
        facts = await self.archives.read_back(archived)
        if facts[-1].seq != archived.last_seq or not any(isinstance(record.fact, RunFinished) for record in facts):
            raise ArchiveDamagedError(f"the archive of run {archived.run_id} does not hold its end: nothing is purged")
        async for _ in self.archives.output(archived):
            pass

    async def restore(self, archived: RunArchived) -> bool:
        """Put an archived run that the log has lost back into it; False when the log has it.

        What is put back is what the log of an archived run holds. The request comes last: whoever sees it finds that
        the run is over.

        Raises: as `purge` does.
        """
        place = subjects.run(archived.run_id, "requested")
        if place in await self.log.last([place]):
            return False
        facts = [record.fact for record in await self.archives.facts(archived)]
        requested = next((fact for fact in facts if isinstance(fact, RunRequested)), None)
        finished = next((fact for fact in facts if isinstance(fact, RunFinished)), None)
        if requested is None or finished is None:
            raise ArchiveDamagedError(f"the archive of run {archived.run_id} does not hold its request and its end")
        if time.time() - requested.requested_at < _YOUNG:
            # A scheduler takes the request of a moment ago for one of a run that has just begun.
            raise ArchiveNotFoundError(
                f"run {archived.run_id} was asked for a moment ago: restore it in {_YOUNG / 60:.0f} minutes"
            )
        await self.log.append([finished, archived])
        return (await self.log.append([requested]))[0]

    async def noted(self) -> AsyncGenerator[RunArchived]:
        """All archives of which the store has notes; what nobody can read is left out."""
        async for name, data in self._store.notes(NOTES):
            fact = fact_codec.decode(subjects.run(name.rpartition("/")[2], "archived"), data)
            if isinstance(fact, RunArchived):
                yield fact

    # ---------------------------------------------------------------------------------------------------- reading

    async def _version(self, run_id: str) -> int:
        place = subjects.run(run_id, "requested")
        record = (await self.log.last([place])).get(place)
        if record is None or not isinstance(record.fact, RunRequested):
            raise ArchiveNotFoundError(f"the log holds no request of run {run_id}")
        return record.fact.version

    async def _facts(self, header: HistoryHeader) -> AsyncGenerator[tuple[int, bytes]]:
        yield 0, run_history.header_line(header)
        async for item in self._items(subjects.RUNS, subjects.run_all(header.run_id)):
            if item.subject.rpartition(".")[2] not in ("archived", "deleted"):
                yield item.seq, run_history.fact_line(item.seq, item.at, item.subject, item.data)

    async def _output(self, run_id: str) -> AsyncGenerator[tuple[int, bytes]]:
        async for item in self._items(subjects.LOGS, subjects.logs_all(run_id)):
            yield item.seq, archives.output_line(item.seq, item.at, item.subject, item.data)

    async def _items(self, stream: str, subject: str) -> AsyncGenerator[StreamMessage]:
        async with self._followers.follow(stream, [subject], name="archiver") as follower:
            async for items in follower.read_to_end():
                for item in items:
                    yield item

    async def _is_left(self, archived: RunArchived) -> bool:
        run = subjects.run(archived.run_id, "")
        for tail in _MOVED:
            try:
                query = {"seq": 1, "next_by_subj": f"{run}{tail}"}
                found = (await self._bus.api(f"STREAM.MSG.GET.{subjects.RUNS}", query))["message"]
            except BusError as error:
                if error.code != _NO_MESSAGE:
                    raise
                continue
            if int(found["seq"]) <= archived.last_seq:
                return True
        return False

    async def _purge(self, stream: str, subject: str, below: int = 0) -> None:
        body = {"filter": subject} | ({"seq": below} if below else {})
        await self._bus.api(f"STREAM.PURGE.{stream}", body, timeout=60.0)

    # ---------------------------------------------------------------------------------------------------- objects

    async def _stored(self, form: str, lines: AsyncGenerator[tuple[int, bytes]]) -> tuple[ArtifactRef, _Counted]:
        """Put lines, compressed, as an object."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="archive-") as file:
            async with contextlib.aclosing(lines):
                counted = await _written(file, lines)
            size = file.tell()
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type] - it is asked to read
            ref = ArtifactRef(sha256=sha256, size=size, media_type=archives.MEDIA_TYPE, format=form)
            if counted.lines:
                await self._store.put_file(file.name, sha256, size)
            return ref, counted

    async def _fetched(self, ref: ArtifactRef) -> IO[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - whoever asked closes it
        try:
            async for chunk in self._store.open(ref.sha256):
                await threads.run(None, file.write, chunk)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


class _Counted:
    """What was written: how many lines, the place of the last one, the digests that they name."""

    def __init__(self) -> None:
        self.lines = 0
        self.last_seq = 0
        self.digests: set[str] = set()
        self.folders: set[str] = set()

    def take(self, seq: int, line: bytes) -> None:
        if line:
            found = archives.digests(line)
            self.lines += 1
            self.last_seq = seq
            self.digests.update(found)
            if archives.mentions_folder_manifest(line):
                self.folders.update(found)


async def _written(file: IO[bytes], lines: AsyncGenerator[tuple[int, bytes]]) -> _Counted:
    counted = _Counted()
    with archives.compressed(file) as packed:
        part: list[bytes] = []
        async for seq, line in lines:
            counted.take(seq, line)
            part.append(line)
            if len(part) >= 500:
                await threads.run(None, packed.write, b"".join(part))
                part.clear()
        await threads.run(None, packed.write, b"".join(part))
    await asyncio.to_thread(file.flush)
    return counted


def note_name(note: RunRecord, archived: RunArchived) -> str:
    """The name of the note that says where the archive of a run is: by project and the month of its end."""
    month = datetime.fromtimestamp(archived.finished_at, UTC).strftime("%Y/%m")
    return f"{NOTES}{note.project}/{month}/{note.run_id}"
