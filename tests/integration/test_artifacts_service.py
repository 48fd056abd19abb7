"""The artifacts service on a real nats-server, with a folder and with a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from penstock_adapters.errors import StoreFullError, StoreRefusedError
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.mirror import Mirror, TransferError
from penstock_adapters.nats.bus import Bus
from penstock_adapters.s3 import S3Artifacts
from penstock_artifacts.app import build
from penstock_artifacts.settings import ArtifactsSettings
from penstock_contracts import subjects
from penstock_contracts.commands import Locate, Location, StoreInfo
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptFinished, Outcome
from penstock_core.pipeline.values import ArtifactRef, Items, Stored
from penstock_servicekit import app
from penstock_testkit.servers.child import Child
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.ports import free_ports
from penstock_testkit.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

DATA = b"some artifact"
SHA256 = hashlib.sha256(DATA).hexdigest()
MISSING = hashlib.sha256(b"nowhere").hexdigest()


@asynccontextmanager
async def running(server: NatsServer, settings: ArtifactsSettings) -> AsyncIterator[app.RunningServices]:
    """The service in this process."""
    parts = await app.compose(server.url, settings, {"artifacts": lambda link: build(link, settings)})
    try:
        yield parts
    finally:
        await app.stop(parts, 5)


def on_s3(server: S3Server, home: Path, **more: Any) -> ArtifactsSettings:
    return ArtifactsSettings(
        home=home,
        artifacts_url=f"s3://{BUCKET}/service",
        s3_endpoint=server.endpoint,
        s3_access_key=SecretStr(ACCESS_KEY),
        s3_secret_key=SecretStr(SECRET_KEY),
        **more,
    )


async def ask(bus: Bus, subject: str, **question: Any) -> Location:
    reply = await bus.request(subject, Locate(**question).model_dump_json().encode())
    return Location.model_validate_json(reply.data)


async def store_info(bus: Bus) -> StoreInfo:
    return StoreInfo.model_validate_json((await bus.request(subjects.ARTIFACTS_STORE, b"{}")).data)


async def test_a_folder_store_returns_paths(nats_server: NatsServer, tmp_path: Path) -> None:
    settings = ArtifactsSettings(home=tmp_path, artifact_limit=1000)
    async with running(nats_server, settings) as parts:
        assert parts.ready() == {"nats": True, "streams": True, "artifacts": True}
        root = tmp_path / "artifacts"
        assert await store_info(parts.bus) == StoreInfo(kind="folder", root=str(root), limit=1000)
        await FolderArtifacts(root).put_bytes(DATA)
        there = root / "sha256" / SHA256[:2] / SHA256
        assert await ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=SHA256) == Location(size=len(DATA))
        assert await ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=MISSING) == Location()
        got = await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=SHA256)
        assert got == Location(path=str(there), size=len(DATA))
        none = await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=MISSING)
        assert none.path is None
        assert none.error == f"artifact {MISSING} is not in the store"
        new = await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=MISSING, write=True, size=1000)
        assert (new.path, new.size) == (str(root / "sha256" / MISSING[:2] / MISSING), None)
        large = await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=MISSING, write=True, size=1001)
        assert large.path is None
        assert "limit of 1000 bytes" in (large.error or "")


async def test_a_bucket_store_grants_presigned_urls_per_object(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    async with running(nats_server, on_s3(s3_server, tmp_path)) as parts:
        assert await store_info(parts.bus) == StoreInfo(kind="granted")
        put = await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=SHA256, write=True, size=len(DATA))
        assert put.size is None
        assert await http("PUT", put, DATA) == b""
        again = await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=SHA256, write=True, size=len(DATA))
        assert again.size == len(DATA), "a writer sees that the object exists"
        assert await ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=SHA256) == Location(size=len(DATA))
        assert await http("GET", await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=SHA256)) == DATA
        none = await ask(parts.bus, subjects.ARTIFACTS_LOCATE, sha256=MISSING)
        assert (none.url, none.error) == (None, f"artifact {MISSING} is not in the store")


async def test_an_executor_moves_artifacts_to_and_from_the_bucket(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    data = random.Random(3).randbytes(9_000_000)
    here, there = tmp_path / "here", tmp_path / "there"
    sha256 = await FolderArtifacts(here / "artifacts").put_bytes(data)
    reference = ArtifactRef(sha256=sha256, size=len(data), media_type="application/octet-stream", format="bytes")
    end = AttemptFinished(
        run_id="r", key="s", attempt=1, outcome=Outcome.SUCCEEDED, outputs={"result": Items((Stored(reference),))}
    )
    async with running(nats_server, on_s3(s3_server, tmp_path)) as parts:
        await Mirror(parts.bus, here).put([*end.outputs.values()])
        await Mirror(parts.bus, here).put([*end.outputs.values()])
        assert await ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=sha256) == Location(size=len(data))
        fetched = await Mirror(parts.bus, there).local_file(sha256)
        assert fetched == there / "artifacts" / "sha256" / sha256[:2] / sha256
        assert fetched.read_bytes() == data
        with pytest.raises(TransferError, match=f"artifact {MISSING} is not in the store"):
            await Mirror(parts.bus, there).local_file(MISSING)
        damaged = {"Bucket": BUCKET, "Key": f"service/sha256/{SHA256[:2]}/{SHA256}"}
        s3_server.client().put_object(**damaged, Body=b"other bytes")
        with pytest.raises(TransferError, match="damaged"):
            await Mirror(parts.bus, there).local_file(SHA256)
        assert list((there / "artifacts" / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[]", b'{"sha256": "../../etc/passwd"}', b'{"sha256": 1}', b"{" * 10_000]
)
async def test_an_invalid_request_is_answered_and_affects_no_other(
    nats_server: NatsServer, tmp_path: Path, body: bytes
) -> None:
    async with running(nats_server, ArtifactsSettings(home=tmp_path)) as parts:
        for subject in (subjects.ARTIFACTS_LOCATE, subjects.ARTIFACTS_STAT):
            reply = Location.model_validate_json((await parts.bus.request(subject, body)).data)
            assert "the request is not valid" in (reply.error or "")
        assert await ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=SHA256) == Location()


async def test_replicas_share_requests(nats_server: NatsServer, tmp_path: Path) -> None:
    settings = ArtifactsSettings(home=tmp_path)
    async with running(nats_server, settings) as one, running(nats_server, settings):
        replies = 0
        inbox = one.bus.client.new_inbox()

        async def count(_: object) -> None:
            nonlocal replies
            replies += 1

        await one.bus.subscribe(inbox, count)
        for _ in range(50):
            await one.bus.client.publish(subjects.ARTIFACTS_STORE, b"{}", reply=inbox)
        async with asyncio.timeout(5):
            while replies < 50:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert replies == 50, "each question is answered once"


async def test_an_unavailable_store_is_reported_and_recovers(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = True

    def call(real: Any) -> Any:
        async def called(self: S3Artifacts, *arguments: Any) -> Any:
            if away:
                raise UnavailableError("the artifact store cannot be reached: check that it runs")
            return await real(self, *arguments)

        return called

    monkeypatch.setattr(S3Artifacts, "prepare", call(S3Artifacts.prepare))
    monkeypatch.setattr(S3Artifacts, "stat", call(S3Artifacts.stat))
    monkeypatch.setattr("penstock_artifacts.app._FIRST_PAUSE", 0.05)
    async with running(nats_server, on_s3(s3_server, tmp_path)) as parts:
        assert parts.ready()["artifacts"] is False
        reply = await ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=MISSING)
        assert "check that it runs" in (reply.error or "")
        away = False
        async with asyncio.timeout(5):
            while not parts.ready()["artifacts"]:
                await asyncio.sleep(0.01)
        assert await ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=MISSING) == Location()


async def test_a_hanging_store_does_not_block_requests(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("penstock_artifacts.service.PATIENCE", 0.5)
    async with running(nats_server, ArtifactsSettings(home=tmp_path)) as parts:
        monkeypatch.setattr(FolderArtifacts, "stat", hang)
        started = time.monotonic()
        replies = await asyncio.gather(*(ask(parts.bus, subjects.ARTIFACTS_STAT, sha256=MISSING) for _ in range(20)))
        assert time.monotonic() - started < 20 * 0.5, "the requests wait for each other"
        assert {reply.error for reply in replies} == {"the artifact store did not answer within 0.5 s: try again"}


async def test_a_misconfigured_store_fails_the_start(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = on_s3(s3_server, tmp_path).model_copy(update={"artifacts_url": "s3://no-such-bucket"})
    with pytest.raises(StoreRefusedError, match="'no-such-bucket' does not exist"):
        async with running(nats_server, wrong):
            pass
    with pytest.raises(StoreRefusedError, match="not a URL"):
        async with running(nats_server, ArtifactsSettings(home=tmp_path, artifacts_url="ftp://x")):
            pass

    async def full(_: object) -> None:
        raise StoreFullError("no room is left")

    monkeypatch.setattr(FolderArtifacts, "prepare", full)
    with pytest.raises(StoreFullError):
        async with running(nats_server, ArtifactsSettings(home=tmp_path)):
            pass


def test_the_service_runs_alone_and_stops_gracefully(nats_server: NatsServer, tmp_path: Path) -> None:
    [health] = free_ports(1)
    env = {"PENSTOCK_NATS_URL": nats_server.url, "PENSTOCK_HEALTH_PORT": str(health), "PENSTOCK_HOME": str(tmp_path)}
    child = Child("artifacts", [sys.executable, "-m", "penstock_artifacts"], tmp_path / "log", tmp_path, env)

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{health}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    child.wait_until(ready, 20)
    child.process.send_signal(signal.SIGTERM)
    assert child.process.wait(10) == 0, child.tail()


def test_the_service_reports_why_it_cannot_start(nats_server: NatsServer, tmp_path: Path) -> None:
    env = {"PENSTOCK_NATS_URL": nats_server.url, "PENSTOCK_ARTIFACTS_URL": "nonsense", "PENSTOCK_HOME": str(tmp_path)}
    child = Child("artifacts", [sys.executable, "-m", "penstock_artifacts"], tmp_path / "log", tmp_path, env)
    assert child.process.wait(20) == 1
    assert "'nonsense' is not a URL of an artifact store" in child.tail()


async def http(method: str, place: Location, body: bytes | None = None) -> bytes:
    def send() -> bytes:
        request = urllib.request.Request(place.url or "", data=body, headers=place.headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.read()

    return await asyncio.to_thread(send)
