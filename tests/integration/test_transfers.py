"""Large objects and folders between an executor and a real S3 server: parts, resumption, rejections, store outages."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from penstock import serialize
from penstock.store import FolderStore
from penstock_adapters import transfers
from penstock_adapters.mirror import Mirror
from penstock_adapters.s3 import S3Artifacts
from penstock_adapters.s3 import store as s3_store
from penstock_adapters.transfers import TransferError
from penstock_artifacts.app import build
from penstock_artifacts.settings import ArtifactsSettings
from penstock_contracts import subjects
from penstock_contracts.commands import Complete, Locate, Location, StoreInfo
from penstock_core.errors import UnavailableError
from penstock_core.pipeline.values import ArtifactRef, Stored
from penstock_servicekit import app
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.proxy import Proxy
from penstock_testkit.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

MIB = 1024 * 1024
PART = 5 * MIB
"""The minimum part size of S3."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "GRANTED_WHOLE", PART)
    monkeypatch.setattr(s3_store, "GRANTED_PART", PART)
    monkeypatch.setattr(asyncio, "sleep", _short_sleep)


_sleep = asyncio.sleep


async def _short_sleep(seconds: float, result: Any = None) -> Any:
    """Shortens the delays between retries."""
    return await _sleep(min(seconds, 0.05), result)


@asynccontextmanager
async def service(
    nats: NatsServer, endpoint: str, home: Path, prefix: str, limit: int | None = None
) -> AsyncIterator[app.RunningServices]:
    settings = ArtifactsSettings(
        home=home,
        artifacts_url=f"s3://{BUCKET}/{prefix}",
        s3_endpoint=endpoint,
        s3_access_key=SecretStr(ACCESS_KEY),
        s3_secret_key=SecretStr(SECRET_KEY),
        artifact_limit=limit,
    )
    parts = await app.compose(nats.url, settings, {"artifacts": lambda link: build(link, settings)})
    try:
        yield parts
    finally:
        await app.stop(parts, 5)


def made(home: Path, size: int, seed: int) -> tuple[ArtifactRef, bytes]:
    """An object in the local store of an executor."""
    data = random.Random(seed).randbytes(size)
    sha256, size = FolderStore(home / "artifacts").put_bytes(data)
    return ArtifactRef(sha256=sha256, size=size, media_type="application/octet-stream", format="bytes"), data


def open_uploads(server: S3Server, prefix: str) -> list[str]:
    uploads = server.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return [one["Key"] for one in uploads if one["Key"].startswith(f"{prefix}/")]


async def test_a_large_object_is_uploaded_in_parts_without_resending(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    ref, data = made(tmp_path / "here", 6 * PART + 777, 1)
    async with Proxy(s3_server.endpoint) as proxy, service(nats_server, proxy.endpoint, tmp_path, "parts") as parts:
        proxy.close_idle()
        proxy.cuts = [3 * MIB, 4 * MIB, 100]
        before = proxy.passed
        await Mirror(parts.bus, tmp_path / "here").put([Stored(ref)])
        assert proxy.cuts == []
        assert proxy.passed - before < ref.size + 2 * PART, "what was stored is not sent again"
        there = Mirror(parts.bus, tmp_path / "there")
        await there.fetch([Stored(ref)])
        assert FolderStore(tmp_path / "there" / "artifacts").check(ref.sha256).read_bytes() == data
        before = proxy.passed
        await Mirror(parts.bus, tmp_path / "here").put([Stored(ref)])
        assert proxy.passed - before < MIB, "what is there is not sent"
    assert open_uploads(s3_server, "parts") == []


async def test_a_download_resumes_where_it_broke(nats_server: NatsServer, s3_server: S3Server, tmp_path: Path) -> None:
    ref, data = made(tmp_path / "here", 4 * PART + 5, 2)
    async with Proxy(s3_server.endpoint) as proxy, service(nats_server, proxy.endpoint, tmp_path, "resume") as parts:
        await Mirror(parts.bus, tmp_path / "here").put([Stored(ref)])
        proxy.close_idle()
        there = Mirror(parts.bus, tmp_path / "there")
        location = await there._locate(Locate(sha256=ref.sha256))
        proxy.close_idle()
        proxy.cuts = [8 * MIB, 8 * MIB]
        before = proxy.passed
        download = transfers.Download(ref.sha256, tmp_path / "there" / "artifacts" / "sha256" / "xx" / ref.sha256)
        await transfers.retry(lambda: asyncio.to_thread(download.run, location))
        assert proxy.cuts == []
        assert proxy.passed - before < ref.size + MIB
        assert (tmp_path / "there" / "artifacts" / "sha256" / "xx" / ref.sha256).read_bytes() == data
        assert list((tmp_path / "there" / "artifacts" / "tmp").iterdir()) == []


async def test_corrupted_downloads_fail_and_are_never_visible(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    ref, _ = made(tmp_path / "here", 3 * PART, 3)
    store = FolderStore(tmp_path / "here" / "artifacts")
    path = store.path(ref.sha256)
    path.chmod(0o644)
    with path.open("rb+") as file:
        file.seek(2 * PART)
        file.write(b"flipped")
    async with service(nats_server, s3_server.endpoint, tmp_path, "wrong") as parts:
        mirror = Mirror(parts.bus, tmp_path / "here")
        with pytest.raises(TransferError, match=f"{ref.sha256} is damaged on this machine"):
            await mirror.put([Stored(ref)])
        assert await mirror._locate(Locate(sha256=ref.sha256)) == Location(
            error=f"artifact {ref.sha256} is not in the store"
        )
    assert open_uploads(s3_server, "wrong") == []


async def test_mismatched_parts_are_rejected(s3_server: S3Server) -> None:
    store = S3Artifacts(s3_server.options("refused"))
    await store.prepare()
    sha256 = "0" * 63 + "1"
    assert await store.locate_parts(sha256, PART) is None, "one piece is enough"
    granted = await store.locate_parts(sha256, 2 * PART + 1)
    assert granted is not None
    assert len(granted["parts"]) == 3
    assert granted["part_size"] == PART
    tags = [await asyncio.to_thread(transfers._send, url, {}, _Zeros(PART), PART) for url in granted["parts"][:2]]
    with pytest.raises(Exception, match=r"2 parts .* not the 2 parts with 10485761 bytes.* nothing was stored"):
        await store.complete_parts(sha256, granted["upload"], tags, 2 * PART + 1)
    assert await store.stat(sha256) is None
    assert open_uploads(s3_server, "refused") == []
    # Completing again after a lost answer succeeds.
    again = await store.locate_parts(sha256, 2 * PART)
    assert again is not None
    tags = [await asyncio.to_thread(transfers._send, url, {}, _Zeros(PART), PART) for url in again["parts"]]
    for _ in range(2):
        await store.complete_parts(sha256, again["upload"], tags, 2 * PART)
    assert await store.stat(sha256) == 2 * PART
    await store.delete(sha256)
    await store.close()


class _Zeros:
    def __init__(self, left: int) -> None:
        self.left = left

    def read(self, size: int = -1) -> bytes:
        count = self.left if size < 0 else min(size, self.left)
        self.left -= count
        return bytes(count)


async def test_a_store_restart_only_delays_a_transfer(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    ref, data = made(tmp_path / "here", 5 * PART, 4)
    async with service(nats_server, s3_server.endpoint, tmp_path, "killed") as parts:
        mirror = Mirror(parts.bus, tmp_path / "here")
        putting = asyncio.create_task(mirror.put([Stored(ref)]))
        await _sleep(0.05)
        s3_server.kill()
        await _sleep(0.3)
        s3_server.start()  # not in a thread: the server would exit with it
        try:
            await putting
        except UnavailableError:  # retries are quick here: the server took longer to start
            await mirror.put([Stored(ref)])
        assert await mirror.local_file(ref.sha256)
        there = Mirror(parts.bus, tmp_path / "there")
        assert (await there.local_file(ref.sha256)).read_bytes() == data


async def test_a_store_outage_fails_with_a_clear_error(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    ref, _ = made(tmp_path / "here", 2 * PART, 5)
    async with Proxy(s3_server.endpoint) as proxy, service(nats_server, proxy.endpoint, tmp_path, "gone") as parts:
        mirror = Mirror(parts.bus, tmp_path / "here")
        location = await mirror._locate(Locate(sha256=ref.sha256, write=True, size=ref.size, parts=True))
        await proxy.stop()
        with pytest.raises(UnavailableError, match="the artifact store does not answer"):
            await transfers.put_parts(location, Path(await mirror.local_file(ref.sha256)), ref.sha256)
        await proxy.start()
        given_up = Complete(sha256=ref.sha256, upload=location.upload, size=ref.size)
        await mirror._ask(subjects.ARTIFACTS_COMPLETE, given_up)
    assert open_uploads(s3_server, "gone") == []


async def test_a_folder_is_transferred_completely_and_once(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    for n in range(300):
        (folder / "deep" / f"{n}").write_text(str(n))
    (folder / "weights").write_bytes(os.urandom(MIB))
    here = FolderStore(tmp_path / "here" / "artifacts")
    saved = serialize.save(folder, Path, here)
    ref = ArtifactRef(**saved["artifact"])
    async with service(nats_server, s3_server.endpoint, tmp_path, "folders") as parts:
        await Mirror(parts.bus, tmp_path / "here").put([Stored(ref)])
        await Mirror(parts.bus, tmp_path / "there").fetch([Stored(ref)])
        there = FolderStore(tmp_path / "there" / "artifacts")
        found = serialize.load(saved, Path, there, folder=tmp_path)
        assert {p.relative_to(found): p.read_bytes() for p in found.rglob("*") if p.is_file()} == {
            p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }


async def test_an_object_over_the_limit_is_rejected(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    ref, _ = made(tmp_path / "here", 1001, 6)
    async with service(nats_server, s3_server.endpoint, tmp_path, "limit", limit=1000) as parts:
        mirror = Mirror(parts.bus, tmp_path / "here")
        assert await mirror.limit() == 1000
        with pytest.raises(TransferError, match="larger than the limit of 1000 bytes"):
            await mirror.put([Stored(ref)])
        info = StoreInfo.model_validate_json((await parts.bus.request(subjects.ARTIFACTS_STORE, b"{}")).data)
        assert info == StoreInfo(kind="granted", limit=1000)


async def test_a_full_local_disk_is_not_reported_as_a_store_failure(tmp_path: Path) -> None:
    async def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(TransferError, match=r"no room is left on this machine.*free some space"):
        await transfers.retry(full)
