"""Brings artifacts to this machine and takes them from it, when the store is elsewhere.

User code always works on the local folder store. With a remote store the executor fetches an attempt's inputs before
it starts and puts its outputs before its end is reported, through presigned locations that the artifacts service
grants: it holds no credentials of the store. With the folder store all of this is nothing.
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
from penstock_core import folders
from penstock_core.errors import UnavailableError
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef, Value

_KNOWN_FOR = 300.0
"""Most seconds that an object which was put is known to be in the store."""

_OF_GRACE = 4.0
"""It is known for this part of the time at most for which nothing is removed that is named by nothing."""

_KNOWN = 100_000
_OBJECTS_AT_ONCE = 4

Command = TypeVar("Command", Locate, Complete)


class Mirror:
    """Artifacts of the store as local files."""

    def __init__(self, bus: Bus, home: Path) -> None:
        self._bus = bus
        self._mirror = home / "artifacts"
        self._info: StoreInfo | None = None
        self._known: dict[str, float] = {}

    async def local_file(self, sha256: str) -> Path:
        """The object as a file on this machine.

        Raises:
            TransferError: it is nowhere, or came damaged.
            Unavailable: the store does not answer.
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
            location = None  # the next try asks anew: grants end
            if granted.url is None:
                raise TransferError(granted.error or f"artifact {sha256} is not in the store")
            await asyncio.to_thread(download.run, granted)

        try:
            await transfers.again(once)
        finally:
            download.close()
        return path

    async def opened(self, ref: ArtifactRef) -> IO[bytes]:
        """The object, open for reading. Raises as `local_file` does."""
        path = await self.local_file(ref.sha256)
        return await asyncio.to_thread(path.open, "rb")

    async def root(self) -> Path:
        """The folder that holds artifacts on this machine: the store itself, where that is a folder."""
        await self._store()
        return self._root

    @property
    def _root(self) -> Path:
        root = self._info.root if self._info is not None and self._info.kind == "folder" else None
        return Path(root) if root is not None else self._mirror

    async def limit(self) -> int | None:
        """The largest artifact in bytes, None without a limit."""
        return (await self._store()).limit

    async def fetch(self, wanted: Iterable[Value]) -> None:
        """Have all artifacts among values here, folders with all that they name.

        Raises:
            TransferError: one is nowhere, or came damaged.
            Unavailable: the store does not answer.
        """
        remote = await self._remote()
        references = _references(wanted)
        await self._fetch({ref.sha256 for ref in references}, remote)
        await self._fetch({sha256 for ref in references for sha256 in self._parts(ref)}, remote)

    async def _fetch(self, objects: set[str], remote: bool) -> None:
        needed = [sha256 for sha256 in objects if remote or not self._path(sha256).is_file()]
        await _run_transfers(self.local_file(sha256) for sha256 in needed)

    async def put(self, made: Iterable[Value]) -> None:
        """Have all artifacts among values in the store; a folder's manifest comes after what it names.

        Raises:
            TransferError: one cannot be put.
            Unavailable: the store does not answer.
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
        if location.size is not None:  # it is there already
            return
        if location.parts:
            await self._put_parts(location, path, sha256, size)
        elif location.url is not None:
            await transfers.again(lambda: asyncio.to_thread(transfers.put, location, path))

    async def _put_parts(self, location: Location, path: Path, sha256: str, size: int) -> None:
        done = Complete(sha256=sha256, upload=location.upload, size=size)
        try:
            tags = await transfers.put_parts(location, path, sha256)
        except BaseException:
            with contextlib.suppress(UnavailableError):  # what is not given up now is cleaned up later
                await self._bus.request(subjects.ARTIFACTS_COMPLETE, done.model_dump_json().encode())
            raise
        answer = await self._ask(subjects.ARTIFACTS_COMPLETE, done.model_copy(update={"tags": tags}))
        if answer.error is not None:
            raise TransferError(answer.error)

    def _parts(self, ref: ArtifactRef) -> list[str]:
        """The objects that a folder's manifest names. The manifest is here."""
        if ref.media_type != folders.MEDIA_TYPE:
            return []
        path = self._path(ref.sha256)
        if path.stat().st_size > folders.MANIFEST_LIMIT:
            raise TransferError(f"artifact {ref.sha256} is too large to be a folder's manifest")
        return folders.decode(path.read_bytes()).objects()

    async def missing(self, wanted: Iterable[Value]) -> set[str]:
        """The artifacts among values that the store does not have.

        Raises:
            Unavailable: the store does not answer.
        """
        references = _references(wanted)
        await self._store()
        gone = {sha256 for sha256 in {ref.sha256 for ref in references} if not await self._is_stored(sha256)}
        folders_ = [ref for ref in references if ref.media_type == folders.MEDIA_TYPE and ref.sha256 not in gone]
        await self._fetch({ref.sha256 for ref in folders_}, await self._remote())
        parts = {sha256 for ref in folders_ for sha256 in self._parts(ref)}
        return gone | {sha256 for sha256 in parts if not await self._is_stored(sha256)}

    async def _is_stored(self, sha256: str) -> bool:
        question = Locate(sha256=sha256, keep=True).model_dump_json().encode()
        reply = await self._bus.request(subjects.ARTIFACTS_STAT, question)
        try:
            location = Location.model_validate_json(reply.data)
        except pydantic.ValidationError as error:
            raise UnavailableError("the artifacts service gave an unreadable answer") from error
        if location.unavailable or location.error:
            raise UnavailableError(location.error or "the artifact store is away")
        return location.size is not None

    async def _remote(self) -> bool:
        return (await self._store()).kind != "folder"

    async def _store(self) -> StoreInfo:
        if self._info is None:
            reply = await self._bus.request(subjects.ARTIFACTS_STORE, b"{}")
            try:
                self._info = StoreInfo.model_validate_json(reply.data)
            except pydantic.ValidationError as error:
                raise UnavailableError("the artifacts service cannot tell its store now") from error
        return self._info

    async def _locate(self, command: Locate) -> Location:
        return await self._ask(subjects.ARTIFACTS_LOCATE, command)

    async def _ask(self, subject: str, command: Command) -> Location:
        """Ask for a location, for about a minute when the store is away."""
        for attempt in range(transfers.TRIES):
            why = ""
            try:
                reply = await self._bus.request(subject, command.model_dump_json().encode())
                location = Location.model_validate_json(reply.data)
                if not location.unavailable:
                    return location
                why = location.error or "the artifact store is away"
            except UnavailableError as error:
                why = str(error)
            except pydantic.ValidationError as error:
                raise TransferError(f"the artifacts service gave an unreadable answer: {error}") from error
            if attempt == transfers.TRIES - 1:
                raise UnavailableError(why)
            await asyncio.sleep(min(0.25 * 2**attempt, 10.0))
        raise AssertionError("unreachable: the last try returns or raises")

    def _path(self, sha256: str) -> Path:
        return self._root / "sha256" / sha256[:2] / sha256


async def _run_transfers(transfers_: Iterable[Awaitable[object]]) -> None:
    """A few at the same time. The first failure is raised when all that began have ended."""
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
