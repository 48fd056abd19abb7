"""The log of runs with archived runs: facts that were purged from the stream are read from the artifact store.

The log of an archived run has its request, its end, and the fact that refers to its archive. So a reader of a run sees
whether there is an archive, and a run without one costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import IO, TypeVar

from penstock_adapters import threads
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import archives, fact_codec, subjects
from penstock_contracts.archives import ArchiveDamagedError, OutputLine
from penstock_contracts.run_history import HistoryHeader
from penstock_core.facts import RunArchived, RunDeleted
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.ports import Recorded

Opener = Callable[[ArtifactRef], Awaitable[IO[bytes]]]
"""Opens an object of the artifact store, to be read and closed in a thread."""

_KEPT = 100_000
"""Facts of all archives together that are cached; about a kilobyte each."""

_PART = 1000

T = TypeVar("T")


class Archives:
    """Reads archives of runs; the latest ones are cached in memory."""

    def __init__(self, opener: Opener) -> None:
        self._open = opener
        self._kept: OrderedDict[str, list[Recorded]] = OrderedDict()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def read_back(self, archived: RunArchived) -> list[Recorded]:
        """The same as `facts`, always read from the store."""
        return await self._whole(archived.history, lambda file: _facts(file, _what(archived), archived))

    async def facts(self, archived: RunArchived) -> list[Recorded]:
        """The facts of a run, in log order.

        Raises:
            ArchiveDamagedError: the object is not what was archived.
            PenstockError: it does not exist.
            UnavailableError: the store does not answer.
        """
        sha256 = archived.history.sha256
        async with self._locks[sha256]:
            found = self._kept.get(sha256)
            if found is None:
                found = await self.read_back(archived)
                self._kept[sha256] = found
                self._shrink()
            self._kept.move_to_end(sha256)
        self._locks.pop(sha256, None)
        return found

    async def header(self, archived: RunArchived) -> HistoryHeader:
        """The header of a run's history, with its pipeline. Raises as `facts` does."""
        return await self._whole(archived.history, lambda file: _header(file, _what(archived)))

    async def history(self, archived: RunArchived) -> AsyncGenerator[bytes]:
        """The history as `penstock runs export` writes it, in parts. Raises as `facts` does."""
        parts = self._parts(archived.history, lambda file: archives.lines(file, _what(archived)))
        async with contextlib.aclosing(parts):
            async for part in parts:
                yield b"".join(part)

    async def output(self, archived: RunArchived) -> AsyncGenerator[list[OutputLine]]:
        """The output of the steps, in parts. Raises as `facts` does."""
        if archived.output is not None:
            what = f"the archived output of run {archived.run_id}"
            parts = self._parts(archived.output, lambda file: archives.read_output(file, what))
            async with contextlib.aclosing(parts):
                async for part in parts:
                    yield part

    async def _whole(self, ref: ArtifactRef, read: Callable[[IO[bytes]], T]) -> T:
        file = await self._open(ref)
        return await threads.run(None, _checked, file, ref, read)

    async def _parts(self, ref: ArtifactRef, read: Callable[[IO[bytes]], Iterator[T]]) -> AsyncGenerator[list[T]]:
        file = await self._open(ref)
        with file:
            await threads.run(None, _check, file, ref)
            entries = read(file)
            while part := await threads.run(None, _take, entries):
                yield part

    def _shrink(self) -> None:
        facts = sum(map(len, self._kept.values()))
        while len(self._kept) > 1 and facts > _KEPT:
            facts -= len(self._kept.popitem(last=False)[1])


class ArchivedLog(NatsRunLog):
    """The log, with archived runs read from the artifact store."""

    def __init__(self, bus: Bus, source: str, archives: Archives) -> None:
        super().__init__(bus, source)
        self.archives = archives

    async def read(self, run_id: str, after: int = 0) -> list[Recorded]:
        """The facts of a run above `after`; those of an archived run have their original sequence numbers.

        Raises:
            ArchiveDamagedError: the archive is not what was stored.
            UnavailableError: the log or the store does not answer.
        """
        found = await super().read(run_id, after)
        archived = next((record.fact for record in found if isinstance(record.fact, RunArchived)), None)
        if archived is None or any(isinstance(record.fact, RunDeleted) for record in found):
            return found
        # Facts later than the archive are later than the end of the run: they change nothing.
        if after >= archived.last_seq:
            return []
        return [record for record in await self.archives.facts(archived) if record.seq > after]

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        """The facts at these subjects, wildcards allowed; those of archived runs from their archives."""
        signs: dict[str, str] = {}
        for place in places:
            head, _, tail = place.partition(".step.")
            if tail:
                signs[head] = f"{head}.archived"
        if not signs:
            return await super().last(places)
        found = await super().last([*places, *signs.values()])
        for head, sign in signs.items():
            record = found.get(sign)
            if record is not None and isinstance(record.fact, RunArchived):
                wanted = [place for place in places if place.startswith(f"{head}.step.") and place not in found]
                if wanted:
                    found |= _at(wanted, await self.archives.facts(record.fact))
            if sign not in places:
                found.pop(sign, None)
        return found

    async def archived(self, run_id: str) -> RunArchived | None:
        """The fact that refers to the archive of a run; None without one."""
        place = subjects.run(run_id, "archived")
        record = (await super().last([place])).get(place)
        return record.fact if record is not None and isinstance(record.fact, RunArchived) else None


def _at(places: Sequence[str], facts: Sequence[Recorded]) -> dict[str, Recorded]:
    exact = {place for place in places if "*" not in place}
    patterns = [place.split(".") for place in places if "*" in place]
    found: dict[str, Recorded] = {}
    for record in facts:
        subject = fact_codec.subject(record.fact)
        if subject in exact or any(_matches(pattern, subject.split(".")) for pattern in patterns):
            found[subject] = record
    return found


def _matches(pattern: Sequence[str], subject: Sequence[str]) -> bool:
    return len(pattern) == len(subject) and all(
        token in ("*", found) for token, found in zip(pattern, subject, strict=True)
    )


def _what(archived: RunArchived) -> str:
    return f"the archive of run {archived.run_id}, artifact {archived.history.sha256},"


def _checked(file: IO[bytes], ref: ArtifactRef, read: Callable[[IO[bytes]], T]) -> T:
    with file:
        _check(file, ref)
        return read(file)


def _check(file: IO[bytes], ref: ArtifactRef) -> None:
    """Verify the digest, and seek to the start."""
    found = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type] - it is asked to read only
    if found != ref.sha256:
        raise ArchiveDamagedError(
            f"artifact {ref.sha256}, an archive of a run, is damaged: its bytes have the SHA-256 {found}"
        )
    file.seek(0)


def _facts(file: IO[bytes], what: str, archived: RunArchived) -> list[Recorded]:
    found = [entry for entry in archives.read_history(file, what) if isinstance(entry, Recorded)]
    if len(found) != archived.facts or any(record.fact.run_id != archived.run_id for record in found):
        raise ArchiveDamagedError(f"{what} does not hold the {archived.facts} facts of the run")
    return found


def _header(file: IO[bytes], what: str) -> HistoryHeader:
    first = next(archives.read_history(file, what))
    assert isinstance(first, HistoryHeader)  # noqa: S101 - what `read_history` gives first
    return first


def _take(entries: Iterator[T]) -> list[T]:
    part: list[T] = []
    for entry in entries:
        part.append(entry)
        if len(part) == _PART:
            break
    return part
