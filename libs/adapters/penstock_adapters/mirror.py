"""Downloads and uploads artifacts between this machine and a remote store.

User code always works on the local folder store. With a remote store the executor downloads an attempt's inputs before
it starts and uploads its outputs before its end is reported, through presigned locations from the artifacts service:
it has no credentials of the store. With the folder store there is nothing to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import IO, TypeVar

import pydantic

from penstock_adapters import transfers
from penstock_adapters.nats.bus import Bus
from penstock_adapters.transfers import TransferError
from penstock_contracts import subjects
from penstock_contracts.commands import Complete, Locate, Location, StoreInfo
from penstock_core.artifacts import folders
from penstock_core.errors import UnavailableError
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef, Value

_KNOWN_FOR = 300.0
"""Longest time in seconds for which an uploaded object is assumed to be in the store."""

_OF_GRACE = 4.0
"""That time is at most the grace period of garbage collection divided by this."""

_KNOWN = 100_000
_OBJECTS_AT_ONCE = 4

Command = TypeVar("Command", Locate, Complete)


class Mirror:
    """Local files of the artifacts of a store."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self._bus = bus
        self._mirror = home / "artifacts"
        self._info: StoreInfo | None = None
        self._known: dict[str, float] = {}

    async def local_file(self, sha256: str) -> Path:
        """Return the object as a file on this machine; downloads it if needed.

        Raises:
            TransferError: it does not exist, or is damaged.
            UnavailableError: the store does not answer.
        """
        await self._store()
        path = self._path(sha256)
        if path.is_file():
            return path
        location: Location | None = await self._locate(Locate(sha256=sha256))
        if location.path is not None:
            return Path(location.path)
        download = transfers.Download(sha256, path)

        async def once() -> None:
            nonlocal location
            granted = location or await self._locate(Locate(sha256=sha256))
            location = None  # the next try requests another one: locations expire
            if granted.url is None:
                raise TransferError(granted.error or f"artifact {sha256} is not in the store")
            await asyncio.to_thread(download.run, granted)

        try:
            await transfers.retry(once)
        finally:
            download.close()
        return path

    async def opened(self, ref: ArtifactRef) -> IO[bytes]:
        """Open the object for reading. Raises as `local_file` does."""
        path = await self.local_file(ref.sha256)
        return await asyncio.to_thread(path.open, "rb")

    async def root(self) -> Path:
        """Return the folder of artifacts on this machine: the store itself, where that is a folder."""
        await self._store()
        return self._root

    @property
    def _root(self) -> Path:
        root = self._info.root if self._info is not None and self._info.kind == "folder" else None
        return Path(root) if root is not None else self._mirror

    async def limit(self) -> int | None:
        """Return the size in bytes of the largest artifact; None without a limit."""
        return (await self._store()).limit

    async def fetch(self, wanted: Iterable[Value]) -> None:
        """Download all artifacts among values, folders with their files.

        Raises:
            TransferError: one does not exist, or is damaged.
            UnavailableError: the store does not answer.
        """
        references = _references(wanted)
        if not references:
            return
        remote = await self._remote()
        await self._fetch({ref.sha256 for ref in references}, remote)
        await self._fetch({sha256 for ref in references for sha256 in self._parts(ref)}, remote)

    async def _fetch(self, objects: set[str], remote: bool) -> None:
        needed = [sha256 for sha256 in objects if remote or not self._path(sha256).is_file()]
        await _run_transfers(self.local_file(sha256) for sha256 in needed)

    async def put(self, made: Iterable[Value]) -> None:
        """Upload all artifacts among values; the manifest of a folder after its files.

        Raises:
            TransferError: one cannot be uploaded.
            UnavailableError: the store does not answer.
        """
        if not await self._remote():
            return
        known_for = min(_KNOWN_FOR, (await self._store()).grace / _OF_GRACE)
        references = _references(made)
        parts = {sha256 for ref in references for sha256 in self._parts(ref)}
        for objects in (parts, {ref.sha256 for ref in references}):
            now = time.monotonic()
            new = [sha256 for sha256 in objects if now - self._known.get(sha256, float("-inf")) >= known_for]
            await _run_transfers(self._put(sha256) for sha256 in new)
            self._known |= dict.fromkeys(new, now)
            while len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]

    async def _put(self, sha256: str) -> None:
        path = self._path(sha256)
        size = path.stat().st_size
        location = await self._locate(Locate(sha256=sha256, write=True, size=size, parts=True))
        if location.error is not None:
            raise TransferError(location.error)
        if location.size is not None:  # the store has it already
            return
        if location.parts:
            await self._put_parts(location, path, sha256, size)
        elif location.url is not None:
            await transfers.retry(lambda: asyncio.to_thread(transfers.put, location, path))

    async def _put_parts(self, location: Location, path: Path, sha256: str, size: int) -> None:
        done = Complete(sha256=sha256, upload=location.upload, size=size)
        try:
            tags = await transfers.put_parts(location, path, sha256)
        except BaseException:
            with contextlib.suppress(UnavailableError):  # an upload that is not aborted now is cleaned up later
                await self._bus.request(subjects.ARTIFACTS_COMPLETE, done.model_dump_json().encode())
            raise
        answer = await self._ask(subjects.ARTIFACTS_COMPLETE, done.model_copy(update={"tags": tags}))
        if answer.error is not None:
            raise TransferError(answer.error)

    def _parts(self, ref: ArtifactRef) -> list[str]:
        """The objects that a folder's manifest, which is on this machine, refers to."""
        if ref.media_type != folders.MEDIA_TYPE:
            return []
        path = self._path(ref.sha256)
        if path.stat().st_size > folders.MANIFEST_LIMIT:
            raise TransferError(f"artifact {ref.sha256} is too large for a folder manifest")
        return folders.decode(path.read_bytes()).objects()

    async def missing(self, wanted: Iterable[Value]) -> set[str]:
        """Return the artifacts among values that the store lacks.

        Raises:
            UnavailableError: the store does not answer.
        """
        references = _references(wanted)
        await self._store()
        gone = {sha256 for sha256 in {ref.sha256 for ref in references} if not await self._is_stored(sha256)}
        folders_ = [ref for ref in references if ref.media_type == folders.MEDIA_TYPE and ref.sha256 not in gone]
        await self._fetch({ref.sha256 for ref in folders_}, await self._remote())
        parts = {sha256 for ref in folders_ for sha256 in self._parts(ref)}
        return gone | {sha256 for sha256 in parts if not await self._is_stored(sha256)}

    async def check(self, wanted: Iterable[Value]) -> None:
        """Check that the store has all artifacts among values.

        Raises:
            TransferError: one does not exist.
            UnavailableError: the store does not answer.
        """
        missing = await self.missing(wanted)
        if missing:
            raise TransferError(f"artifact {min(missing)} is not in the store")

    async def is_folder(self) -> bool:
        """Whether the store is a folder, which only processes on its machine can reach."""
        return not await self._remote()

    async def _is_stored(self, sha256: str) -> bool:
        question = Locate(sha256=sha256, keep=True).model_dump_json().encode()
        reply = await self._bus.request(subjects.ARTIFACTS_STAT, question)
        try:
            location = Location.model_validate_json(reply.data)
        except pydantic.ValidationError as error:
            raise UnavailableError("the artifacts service sent an invalid reply") from error
        if location.unavailable or location.error:
            raise UnavailableError(location.error or "the artifact store is unavailable")
        return location.size is not None

    async def _remote(self) -> bool:
        return (await self._store()).kind != "folder"

    async def _store(self) -> StoreInfo:
        if self._info is None:
            reply = await self._bus.request(subjects.ARTIFACTS_STORE, b"{}")
            try:
                self._info = StoreInfo.model_validate_json(reply.data)
            except pydantic.ValidationError as error:
                raise UnavailableError("the artifacts service sent an invalid reply about its store") from error
        return self._info

    async def _locate(self, command: Locate) -> Location:
        return await self._ask(subjects.ARTIFACTS_LOCATE, command)

    async def _ask(self, subject: str, command: Command) -> Location:
        """Request a location; retries for about a minute while the store is unavailable."""
        for attempt in range(transfers.TRIES):
            why = ""
            try:
                reply = await self._bus.request(subject, command.model_dump_json().encode())
                location = Location.model_validate_json(reply.data)
                if not location.unavailable:
                    return location
                why = location.error or "the artifact store is unavailable"
            except UnavailableError as error:
                why = str(error)
            except pydantic.ValidationError as error:
                raise TransferError(f"the artifacts service sent an invalid reply: {error}") from error
            if attempt == transfers.TRIES - 1:
                raise UnavailableError(why)
            await asyncio.sleep(min(0.25 * 2**attempt, 10.0))
        raise AssertionError("unreachable: the last try returns or raises")

    def _path(self, sha256: str) -> Path:
        return self._root / "sha256" / sha256[:2] / sha256


async def _run_transfers(transfers_: Iterable[Awaitable[object]]) -> None:
    """Run a few at the same time. The first error is raised after all that started have ended."""
    slots = asyncio.Semaphore(_OBJECTS_AT_ONCE)
    failed: list[BaseException] = []

    async def one(transfer: Awaitable[object]) -> None:
        async with slots:
            if failed:
                asyncio.ensure_future(transfer).cancel()
                return
            try:
                await transfer
            except Exception as error:
                failed.append(error)

    await asyncio.gather(*(one(transfer) for transfer in transfers_))
    if failed:
        raise failed[0]


def _references(given: Iterable[Value]) -> list[ArtifactRef]:
    return [ref for value in given for ref in values.references(value)]
