"""The cache of previews: each is made once, by a child process, and stored as a file.

In: the description of an artifact. Out: its `Preview`. Promises: bytes of unsafe formats are not even opened; nothing
of an artifact is parsed in this process; a file that is damaged, huge or hostile gives a preview that says so; two
concurrent requests for one preview start one child, and at most a few children run at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pydantic

from penstock_adapters.files import FolderArtifacts
from penstock_artifacts.previews import readers, sandbox
from penstock_artifacts.previews.sandbox import Limits
from penstock_contracts.previews import MakePreview, Preview
from penstock_core.ports import ArtifactStore

VERSION = 1
"""Version of the format of previews; a change invalidates the cache."""

_CHILDREN = 2
_SWEEP = 50


class Previews:
    """Makes and caches previews.

    Args:
        store: the artifact store.
        folder: folder of the cache; created on demand, and may be deleted at any time.
        limits: limits of one child.
        largest: bytes of the largest object that is downloaded from a remote store.
        room: bytes of the cache; the oldest previews are removed first.
    """

    def __init__(self, store: ArtifactStore, folder: Path, limits: Limits, largest: int, room: int) -> None:
        self._store = store
        self._folder = folder
        self._limits = limits
        self._largest = largest
        self._room = room
        self._making: dict[str, asyncio.Task[Preview]] = {}
        self._free = asyncio.Semaphore(_CHILDREN)
        self._kept = 0

    async def get(self, command: MakePreview, size: int) -> Preview:
        """Return the preview of a stored object of this size.

        Raises:
            UnavailableError: the store does not answer.
            ArtifactError: the object cannot be read.
        """
        if command.unsafe or command.format in readers.UNSAFE:
            reason = readers.PICKLE if command.format == "pickle" else "loading its format could run code"
            return Preview(sha256=command.sha256, size=size, kind="none", reason=reason)
        key = _key(command)
        kept = await asyncio.to_thread(self._read, key)
        if kept is not None:
            return kept
        task = self._making.get(key)
        if task is None:
            task = self._making[key] = asyncio.create_task(self._make(command, key, size))
            task.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel the previews that are being made."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, command: MakePreview, key: str, size: int) -> Preview:
        about: dict[str, Any] = {"sha256": command.sha256, "size": size}
        if not isinstance(self._store, FolderArtifacts) and size > self._largest:
            reason = f"it has {size} bytes, and no more than {self._largest} are downloaded for a preview"
            return Preview(**about, kind="none", reason=reason)
        order = {"format": command.format, "media_type": command.media_type, "filename": command.filename, "size": size}
        async with self._free, self._bytes(command.sha256) as file:
            found, final = await sandbox.look(file.fileno(), order, self._limits, self._folder)
        try:
            preview = Preview.model_validate({**found, **about})
        except pydantic.ValidationError:
            # Whatever a hostile file makes the child reply is validated here.
            preview, final = Preview(**about, kind="none", reason="its reader gave an invalid reply"), False
        if final:
            await asyncio.to_thread(self._keep, key, preview)
        return preview

    @asynccontextmanager
    async def _bytes(self, sha256: str) -> AsyncGenerator[BinaryIO]:
        """Open the object's bytes as a file for reading."""
        await asyncio.to_thread(lambda: self._folder.mkdir(parents=True, exist_ok=True, mode=0o700))
        if isinstance(self._store, FolderArtifacts):
            file: Any = await asyncio.to_thread(self._store.path(sha256).open, "rb")
            with file:
                yield file
            return
        with tempfile.TemporaryFile(dir=self._folder) as copy:
            async for chunk in self._store.open(sha256):
                await asyncio.to_thread(copy.write, chunk)
            copy.flush()
            # Opened again, read-only.
            with await asyncio.to_thread(Path(f"/proc/self/fd/{copy.fileno()}").open, "rb") as file:
                yield file

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"

    def _read(self, key: str) -> Preview | None:
        try:
            return Preview.model_validate_json(self._path(key).read_bytes())
        except (OSError, pydantic.ValidationError):
            return None

    def _keep(self, key: str, preview: Preview) -> None:
        """Store a preview; on a full disk it is made again next time."""
        target = self._path(key)
        part = target.with_name(f".{target.name}.{os.getpid()}")
        with suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(preview.model_dump_json())
            part.replace(target)
        self._kept += 1
        if self._kept % _SWEEP == 1:
            self._sweep()

    def _sweep(self) -> None:
        found: list[tuple[float, int, Path]] = []
        for path in self._folder.glob("??/*.json"):
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        taken = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if taken <= self._room:
                return
            with suppress(OSError):
                path.unlink()
                taken -= size


def _key(command: MakePreview) -> str:
    """The cache key: the bytes, and what decides how they are read."""
    ending = command.filename.rpartition(".")[2].lower() if "." in command.filename else ""
    parts = [VERSION, command.sha256, command.format, command.media_type, ending]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
