"""Moves the facts and the output of finished runs from the log to the artifact store.

For each run: the facts are written to an object; a note in the store refers to it, in case the log is lost; the fact
`archived` refers to it in the log; the object is read back and compared; only then the facts that it has are purged
from the log. Each step is idempotent, for any number of janitors: the first `archived` counts, and a repeated purge
does nothing.

The facts `requested`, `finished` and `archived` stay in the log, so that no run id and no idempotency key is reused.
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
from penstock_adapters.nats.bus import Bus
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
"""Facts of an archived run that are purged from the log."""

_YOUNG = 300.0


class ArchiveNotFoundError(PenstockError):
    """A run, or its archive, does not exist."""


class Archiver:
    """Archives runs into a store.

    Args:
        bus: connection to the log.
        store: store of the archives.
        folder: folder for archives before their upload.
        source: writer of facts, for their envelopes.
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
        """Archive a finished run. The log gets the fact `archived`; nothing is purged yet.

        Raises:
            ArchiveNotFoundError: the log has no such run.
            ArtifactError: the store refuses the archive.
            UnavailableError: the log or the store does not answer.
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
            raise ArchiveNotFoundError(f"the log has no facts of run {note.run_id}")
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
            # Another janitor was faster: its fact counts, and the note must refer to the same archive.
            known = await self.log.archived(note.run_id)
            fact = known or fact
            await self._store.put_note(name, fact_codec.encode(fact))
        try:
            await self._version(note.run_id)
        except ArchiveNotFoundError:
            # The run was deleted meanwhile.
            await self._store.delete_note(name)
            await self._purge(subjects.RUNS, subjects.run(note.run_id, "archived"))
            raise
        return fact

    async def purge(self, archived: RunArchived) -> bool:
        """Purge the facts that the archive has from the log, after reading it back; False when none were left.

        Raises:
            ArchiveDamagedError, ArtifactError: the archive is damaged; nothing is purged.
            UnavailableError: the log or the store does not answer.
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
        """Read an archive back and verify it. Raises as `purge` does."""
        facts = await self.archives.read_back(archived)
        if facts[-1].seq != archived.last_seq or not any(isinstance(record.fact, RunFinished) for record in facts):
            raise ArchiveDamagedError(
                f"the archive of run {archived.run_id} lacks the end of the run: nothing is purged"
            )
        async for _ in self.archives.output(archived):
            pass

    async def restore(self, archived: RunArchived) -> bool:
        """Restore an archived run that the log has lost; False when the log has it.

        The log gets the facts that it has of any archived run. The request comes last, so that its readers find that
        the run has finished.

        Raises: as `purge` does.
        """
        place = subjects.run(archived.run_id, "requested")
        if place in await self.log.last([place]):
            return False
        facts = [record.fact for record in await self.archives.facts(archived)]
        requested = next((fact for fact in facts if isinstance(fact, RunRequested)), None)
        finished = next((fact for fact in facts if isinstance(fact, RunFinished)), None)
        if requested is None or finished is None:
            raise ArchiveDamagedError(f"the archive of run {archived.run_id} lacks the request or the end of the run")
        if time.time() - requested.requested_at < _YOUNG:
            # A scheduler takes a request written a moment ago for that of a new run.
            raise ArchiveNotFoundError(
                f"run {archived.run_id} was requested a moment ago: restore it in {_YOUNG / 60:.0f} minutes"
            )
        await self.log.append([finished, archived])
        return (await self.log.append([requested]))[0]

    async def noted(self) -> AsyncGenerator[RunArchived]:
        """Yield all archives that the store has notes of; unreadable notes are skipped."""
        async for name, data in self._store.notes(NOTES):
            fact = fact_codec.decode(subjects.run(name.rpartition("/")[2], "archived"), data)
            if isinstance(fact, RunArchived):
                yield fact

    # ---------------------------------------------------------------------------------------------------- reading

    async def _version(self, run_id: str) -> int:
        place = subjects.run(run_id, "requested")
        record = (await self.log.last([place])).get(place)
        if record is None or not isinstance(record.fact, RunRequested):
            raise ArchiveNotFoundError(f"the log has no request of run {run_id}")
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
            found = await self._bus.next_seq(subjects.RUNS, f"{run}{tail}", 0)
            if found is not None and found <= archived.last_seq:
                return True
        return False

    async def _purge(self, stream: str, subject: str, below: int = 0) -> None:
        body = {"filter": subject} | ({"seq": below} if below else {})
        await self._bus.api(f"STREAM.PURGE.{stream}", body, timeout=60.0)

    # ---------------------------------------------------------------------------------------------------- objects

    async def _stored(self, form: str, lines: AsyncGenerator[tuple[int, bytes]]) -> tuple[ArtifactRef, _Counted]:
        """Store lines as a compressed object."""
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
        file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - the caller closes it
        try:
            async for chunk in self._store.open(ref.sha256):
                await threads.run(None, file.write, chunk)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


class _Counted:
    """Counts the written lines, and collects the digests in them."""

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
    """Name of the note that refers to the archive of a run: by project, and the month of the end of the run."""
    month = datetime.fromtimestamp(archived.finished_at, UTC).strftime("%Y/%m")
    return f"{NOTES}{note.project}/{month}/{note.run_id}"
