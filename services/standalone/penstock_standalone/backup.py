"""Backup and restore of a platform: its streams and buckets, and its artifacts.

A backup is taken while the platform runs. It has everything that was acknowledged before it began: streams are saved
before those that they refer to, so that a saved message refers to nothing that is missing. A backup folder has
`manifest.json`, `streams-TIME/`, and `artifacts/`, which the next backup into the same folder completes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Any

from penstock_adapters import threads
from penstock_adapters.nats import snapshots
from penstock_adapters.nats.bootstrap import streams
from penstock_adapters.nats.buckets.marks import NatsMarks
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.server import EmbeddedServer
from penstock_adapters.nats.stream_check import positions
from penstock_adapters.stores import open_store
from penstock_artifacts.settings import ArtifactsSettings
from penstock_contracts import subjects
from penstock_core.errors import PenstockError
from penstock_core.ports import ArtifactStore
from penstock_core.version import VERSION
from penstock_servicekit.nats_connection import connect, servers
from penstock_standalone.state import StateError, StateFolder

MANIFEST = "manifest.json"
_FORMAT = 1
_FIRST = (subjects.EVENTS, subjects.DECISIONS, subjects.RUNS)
"""An event is decided on before its run is requested, so each of these is saved before what follows from it."""

_INTEGRITY = f"KV_{subjects.INTEGRITY_BUCKET}"
_NOTES = "archives/"
_STOPPING = 15.0
"""Seconds until a platform that is starting or stopping must have done so."""


class BackupError(PenstockError):
    """A backup cannot be made or restored, for the reason in the message."""


async def back_up(home: Path, folder: Path, *, artifacts: bool = True) -> dict[str, Any]:
    """Save a platform, running or not, and return the manifest.

    Args:
        home: the state folder.
        folder: the folder of the backup; an earlier backup in it is replaced once this one is complete.
        artifacts: whether artifacts are copied; otherwise they are only listed.

    Raises:
        BackupError: the folder is not that of a backup.
        PenstockError: NATS or the artifact store does not answer.
        OSError: the folder cannot be written.
    """
    started = time.time()
    target = _prepare(folder, started)
    async with _platform(home) as (bus, store):
        saved = [await _save(bus, name, target) for name in await _names(bus)]
        stored = await _save_artifacts(store, folder, copy=artifacts)
        manifest = {
            "format": _FORMAT,
            "version": VERSION,
            "started_at": started,
            "finished_at": time.time(),
            "folder": target.name,
            "streams": saved,
            "artifacts": stored | {"copied": artifacts},
        }
    _complete(folder, manifest)
    return manifest


async def restore(home: Path, folder: Path, *, force: bool = False) -> dict[str, Any]:
    """Restore a backup into an empty platform that is not running, and return the manifest.

    Args:
        home: the state folder.
        folder: the folder of the backup.
        force: delete the streams and buckets of the platform first.

    Raises:
        BackupError: there is no complete backup, or the platform is not empty.
        PenstockError: NATS or the artifact store does not answer, or the platform is running.
    """
    manifest = await asyncio.to_thread(_read_manifest, folder)
    async with _platform(home, offline=True) as (bus, store):
        existing = await positions(bus, [str(one["name"]) for one in streams()])
        used = sorted(name for name, at in existing.items() if at.messages and name != _INTEGRITY)
        if used and not force:
            raise BackupError(
                f"the platform is not empty: {', '.join(used)} have messages; pass --force to delete all of its streams"
            )
        await _refuse_running_services(bus, existing)
        _put_aside(home / "read-model.db")
        for name in existing:
            await bus.api(f"STREAM.DELETE.{name}", timeout=30.0)
        replicas = ArtifactsSettings(home=home).replicas
        for one in manifest["streams"]:
            await snapshots.restore(bus, one, folder / manifest["folder"] / one["file"], replicas)
        for one in manifest["streams"]:
            await snapshots.restore_consumers(bus, one["config"]["name"], one["consumers"], replicas)
        if manifest["artifacts"]["copied"]:
            await _restore_artifacts(store, folder)
    return manifest


@contextlib.asynccontextmanager
async def _platform(home: Path, *, offline: bool = False) -> AsyncGenerator[tuple[Bus, ArtifactStore]]:
    """Connect to the NATS system of a platform; starts the embedded server if the platform is not running."""
    settings = ArtifactsSettings(home=home)
    state = StateFolder(home)
    server: EmbeddedServer | None = None
    try:
        if settings.nats_url is not None:
            url = settings.nats_url.get_secret_value()
        elif not offline and (note := await _running(state)):
            url = note["nats_url"]
        else:
            state.hold()
            server = EmbeddedServer(state.home)
            await server.start()
            url = server.url
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        broker, bus = await connect(servers(url, settings), "backup", failed)
        store = open_store(settings.artifacts_url, settings.home, settings.s3(), NatsMarks(bus))
        try:
            await store.prepare()
            yield bus, store
        finally:
            failed.cancel()
            await store.close()
            await broker.stop()
    finally:
        if server is not None:
            await server.stop()
        state.release()


async def _running(state: StateFolder) -> dict[str, Any]:
    """The address of the platform that runs on a state folder; empty if none runs, waits for one that stops."""
    deadline = time.monotonic() + _STOPPING
    while True:
        try:
            state.hold()
        except StateError:
            note = state.read_note()
            if note.get("nats_url"):
                return note
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            state.release()
            return {}


async def _refuse_running_services(bus: Bus, existing: Collection[str]) -> None:
    """Refuse if a service requests messages of the log: it would handle what is deleted and restored."""
    if subjects.RUNS in existing:
        consumers = (await bus.api(f"CONSUMER.LIST.{subjects.RUNS}", {"offset": 0})).get("consumers") or []
        waiting = [info["name"] for info in consumers if info.get("num_waiting")]
        if waiting:
            raise BackupError(
                f"services of the platform are running ({', '.join(waiting[:3])} …): stop all of them, then repeat this"
            )


def _put_aside(database: Path) -> None:
    """Rename the read model of the state that is replaced."""
    for ending in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            database.with_name(database.name + ending).replace(
                database.with_name(f"{database.stem}.before-restore.db{ending}")
            )


def _prepare(folder: Path, started: float) -> Path:
    """Create the folder of the streams of a new backup."""
    if folder.exists() and any(folder.iterdir()) and not any(folder.glob("streams-*")):
        raise BackupError(f"{folder} is not empty and has no backup: choose another folder")
    target = folder / f"streams-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(started))}"
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    return target


def _complete(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, which makes the backup the valid one, and remove the streams of earlier ones."""
    part = folder / f".{MANIFEST}"
    part.write_text(json.dumps(manifest, indent=1))
    part.replace(folder / MANIFEST)
    for old in folder.glob("streams-*"):
        if old.name != manifest["folder"]:
            shutil.rmtree(old)


async def _names(bus: Bus) -> list[str]:
    wanted = [str(one["name"]) for one in streams()]
    existing = await positions(bus, wanted)
    names = [*_FIRST, *(name for name in wanted if name not in (*_FIRST, _INTEGRITY))]
    return [name for name in names if name in existing]


async def _save(bus: Bus, name: str, target: Path) -> dict[str, Any]:
    path = target / f"{name}.snapshot"
    saved = await snapshots.save(bus, name, path)
    digest = await threads.run(None, _digest, path)
    return saved | {"file": path.name, "sha256": digest}


async def _save_artifacts(store: ArtifactStore, folder: Path, *, copy: bool) -> dict[str, Any]:
    """Copy the objects that the folder does not have yet, and list all of them with the notes on archives."""
    count = size = 0
    missing: list[str] = []
    part = folder / ".artifacts.jsonl"
    with part.open("w") as lines:
        async for page in store.listing():
            for one in page:
                target = folder / "artifacts" / one.sha256[:2] / one.sha256
                if copy and not (target.exists() and target.stat().st_size == one.size):
                    try:
                        await _copy(store, one.sha256, target)
                    except PenstockError as error:  # collected meanwhile, or damaged
                        missing.append(f"{one.sha256}: {error}")
                        continue
                lines.write(json.dumps({"sha256": one.sha256, "size": one.size}) + "\n")
                count, size = count + 1, size + one.size
        async for name, data in store.notes(_NOTES):
            lines.write(json.dumps({"note": name, "data": data.decode()}) + "\n")
    part.replace(folder / "artifacts.jsonl")
    return {"objects": count, "bytes": size, "missing": missing}


async def _copy(store: ArtifactStore, sha256: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{sha256}")
    with part.open("wb") as file:
        async for chunk in store.open(sha256):
            await threads.run(None, file.write, chunk)
    part.replace(target)


async def _restore_artifacts(store: ArtifactStore, folder: Path) -> None:
    with (folder / "artifacts.jsonl").open() as lines:
        for line in lines:
            entry = json.loads(line)
            if "note" in entry:
                await store.put_note(entry["note"], entry["data"].encode())
                continue
            sha256 = entry["sha256"]
            await store.put_file(str(folder / "artifacts" / sha256[:2] / sha256), sha256, entry["size"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest, and verify the files of the streams."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise BackupError(f"{folder} has no complete backup: {MANIFEST} is missing") from error
    except ValueError as error:
        raise BackupError(f"{folder / MANIFEST} is damaged: {error}") from error
    if manifest.get("format") != _FORMAT:
        raise BackupError(f"{folder} was made by another version of Penstock ({manifest.get('version')})")
    for one in manifest["streams"]:
        path = folder / manifest["folder"] / one["file"]
        if not path.exists() or _digest(path) != one["sha256"]:
            raise BackupError(f"{path} is missing or damaged: restore another backup")
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
