"""The artifact stores against their suite, and the faults and guarantees specific to each store."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock_adapters.errors import (
    ArtifactDamagedError,
    ArtifactError,
    ArtifactMissingError,
    ArtifactTooLargeError,
    StoreFullError,
    StoreRefusedError,
)
from penstock_adapters.files import FolderArtifacts
from penstock_adapters.s3 import S3Artifacts, S3Options
from penstock_adapters.stores import open_store
from penstock_core.errors import UnavailableError
from penstock_core.ports import ArtifactStore
from penstock_testkit.servers.ports import free_ports
from penstock_testkit.servers.proxy import Proxy
from penstock_testkit.servers.s3 import BUCKET, S3Server
from penstock_testkit.suites.artifact_store import LARGE, MIB, ArtifactStoreSuite, digest, make, pieces, read
from penstock_testkit.suites.garbage_collection import MemoryMarks, SweepingSuite


class TestFolderArtifacts(ArtifactStoreSuite, SweepingSuite):
    root: Path

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
        store = FolderArtifacts(tmp_path_factory.mktemp("artifacts") / "deep" / "root")
        cls.root = store.root
        asyncio.run(store.prepare())
        return store

    def _path(self, sha256: str) -> Path:
        return self.root / "sha256" / sha256[:2] / sha256

    def flip(self, sha256: str, at: int) -> None:
        path = self._path(sha256)
        path.chmod(0o644)
        with path.open("rb+") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    def cut(self, sha256: str, size: int) -> None:
        self._path(sha256).chmod(0o644)
        os.truncate(self._path(sha256), size)

    def changed(self, sha256: str) -> object:
        return self._path(sha256).stat().st_ino

    def half_written(self) -> list[str]:
        return [path.name for path in (self.root / "tmp").iterdir()]

    @pytest.mark.parametrize("put", ["bytes", "file", "stream"])
    async def test_a_damaged_object_is_replaced_by_the_next_good_copy(
        self, store: ArtifactStore, tmp_path: Path, put: str
    ) -> None:
        data, sha256 = make(3 * MIB)
        await store.put_bytes(data)
        self.flip(sha256, MIB)
        file = tmp_path / "file"
        file.write_bytes(data)
        if put == "bytes":
            await store.put_bytes(data)
        elif put == "file":
            await store.put_file(str(file), sha256, len(data))
        else:
            await store.put_stream(pieces(data, [MIB]), sha256)
        assert await read(store.open(sha256)) == data

    async def test_ranges_of_a_damaged_object_are_refused(self, store: ArtifactStore) -> None:
        data, sha256 = make(3 * MIB)
        await store.put_bytes(data)
        assert await read(store.open(sha256, 10, 20)) == data[10:20]
        self.flip(sha256, 2 * MIB)
        with pytest.raises(ArtifactDamagedError):
            await read(store.open(sha256, 10, 20))
        with pytest.raises(ArtifactMissingError):
            await read(store.open(sha256, 10, 20))

    async def test_a_damaged_object_is_set_aside_when_it_is_found(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        await store.put_bytes(data)
        self.flip(sha256, 5)
        with pytest.raises(ArtifactDamagedError):
            await read(store.open(sha256))
        assert await store.stat(sha256) is None
        assert (self.root / "damaged" / sha256).stat().st_size == 1000
        await store.put_bytes(data)
        assert await read(store.open(sha256)) == data

    async def test_a_good_copy_that_replaced_a_damaged_object_is_not_set_aside(self, store: ArtifactStore) -> None:
        data, sha256 = make(5 * MIB)
        await store.put_bytes(data)
        self.flip(sha256, MIB)
        reader = store.open(sha256)
        await anext(reader)
        await store.put_bytes(data)
        with pytest.raises(ArtifactDamagedError):
            await read(reader)
        assert await read(store.open(sha256)) == data

    async def test_location_is_the_path(self, store: ArtifactStore) -> None:
        sha256 = await store.put_bytes(b"here")
        assert store.locate(sha256) == {"path": str(self._path(sha256))}
        assert self._path(sha256).read_bytes() == b"here"

    async def test_objects_are_synced_before_they_are_visible(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = FolderArtifacts(tmp_path)
        done: list[str] = []
        sync, rename = os.fsync, Path.replace

        def fsync(descriptor: int) -> None:
            done.append("sync folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "sync file")
            sync(descriptor)

        def replace_(path: Path, target: Path) -> Path:
            done.append("rename")
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace_)
        await store.put_bytes(b"durable")
        assert done == ["sync file", "sync folder", "rename", "sync folder"]
        done.clear()
        await store.put_bytes(b"durable")
        assert done == []

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    async def test_disk_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        store = FolderArtifacts(tmp_path)
        data, sha256 = make(5 * MIB)

        def full(_: int) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreFullError, match=r"no room is left.*free some space") as caught:
                await store.put_bytes(data)
            with pytest.raises(StoreFullError):
                await store.put_stream(pieces(data, []), sha256)
        assert isinstance(caught.value.__cause__, OSError)
        assert await store.stat(sha256) is None
        assert list((tmp_path / "tmp").iterdir()) == []
        await store.put_bytes(data)
        assert await read(store.open(sha256)) == data

    async def test_a_full_file_system(self, tmp_path: Path) -> None:
        """Uses a small mounted file system, if possible: a put that does not fit frees the space again."""
        script = (
            "import asyncio, sys; from pathlib import Path\n"
            "from penstock_adapters.files import FolderArtifacts\n"
            "from penstock_adapters.errors import StoreFullError\n"
            "async def main():\n"
            "    store = FolderArtifacts(Path(sys.argv[1]))\n"
            "    await store.prepare()\n"
            "    try:\n"
            "        await store.put_bytes(bytes(8_000_000))\n"
            "    except StoreFullError:\n"
            "        await store.put_bytes(bytes(2_000_000))\n"
            "        print('full, then room')\n"
            "asyncio.run(main())\n"
        )
        mount = f'mount -t tmpfs -o size=4m tmpfs {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
        done = await asyncio.to_thread(
            subprocess.run,
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, script],
            capture_output=True,
            text=True,
            check=False,
        )
        if "unshare" in done.stderr or "mount:" in done.stderr:
            pytest.skip(f"no mounts of our own here: {done.stderr.strip()}")
        assert done.stdout == "full, then room\n", done.stderr

    async def test_a_folder_that_cannot_be_created(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        store = FolderArtifacts(tmp_path / "file" / "root")
        with pytest.raises(ArtifactError, match=r"file.*Not a directory"):
            await store.prepare()
        with pytest.raises(ArtifactError, match="Not a directory"):
            await store.put_bytes(b"x")

    async def test_a_read_only_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)  # root ignores permissions
        with pytest.raises(StoreRefusedError, match=r"cannot be written.*owner and permissions"):
            await FolderArtifacts(tmp_path).prepare()

    async def test_leftovers_are_removed_at_start_but_not_uploads_in_progress(self, tmp_path: Path) -> None:
        data, sha256 = make(3 * MIB)
        store = FolderArtifacts(tmp_path)
        code = (
            "import os, signal, sys; from pathlib import Path; from penstock_adapters.files.part import PartFile\n"
            "part = PartFile(Path(sys.argv[1])); part.write(b'x' * 1000); os.kill(os.getpid(), signal.SIGKILL)"
        )
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code, str(tmp_path)], check=False)
        (tmp_path / "tmp" / "of-a-step").write_bytes(b"x")
        (tmp_path / "tmp" / "of-a-dead-step").write_bytes(b"x")
        under_way, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> Any:
            yield data[: 2 * MIB]
            under_way.set()
            await go_on.wait()
            yield data[2 * MIB :]

        writer = asyncio.create_task(store.put_stream(slow(), sha256))
        await under_way.wait()
        for path in (tmp_path / "tmp").iterdir():
            age = 60 if path.name == "of-a-step" else 7200
            os.utime(path, (time.time() - age,) * 2)
        await FolderArtifacts(tmp_path).prepare()
        left = sorted(path.name for path in (tmp_path / "tmp").iterdir())
        assert len(left) == 2
        assert left[0] == "of-a-step"
        go_on.set()
        assert await writer == len(data)
        assert await read(store.open(sha256)) == data

    async def test_the_error_names_a_missing_source_file(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            await store.put_file(str(tmp_path / "nowhere"), digest(b"nowhere"), 7)


class TestS3Artifacts(ArtifactStoreSuite, SweepingSuite):
    server: S3Server

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, s3_server: S3Server) -> Iterator[ArtifactStore]:
        cls.server = s3_server
        store = S3Artifacts(s3_server.options("some/prefix"), MemoryMarks())
        asyncio.run(store.prepare())
        assert store.conditional, "this server enforces conditional writes"
        yield store
        asyncio.run(store.close())

    def _key(self, sha256: str) -> dict[str, str]:
        return {"Bucket": BUCKET, "Key": f"some/prefix/sha256/{sha256[:2]}/{sha256}"}

    def flip(self, sha256: str, at: int) -> None:
        client = self.server.client()
        data = bytearray(client.get_object(**self._key(sha256))["Body"].read())
        data[at] ^= 1
        client.put_object(**self._key(sha256), Body=bytes(data))

    def cut(self, sha256: str, size: int) -> None:
        client = self.server.client()
        data = client.get_object(**self._key(sha256))["Body"].read()
        client.put_object(**self._key(sha256), Body=data[:size])

    def changed(self, sha256: str) -> object:
        head = self.server.client().head_object(**self._key(sha256))
        return head["LastModified"], head["ETag"]

    def half_written(self) -> list[str]:
        answer = self.server.client().list_multipart_uploads(Bucket=BUCKET)
        return [upload["Key"] for upload in answer.get("Uploads", [])]

    async def test_presigned_locations_accept_only_the_requested_bytes(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        put = store.locate(sha256, write=True, size=len(data), expires=60)
        assert await http("PUT", put, b"x" * 1000) == 400
        assert await http("PUT", {**put, "headers": {}}, data) == 403
        assert await http("PUT", put, data + b"longer") == 403
        assert await store.stat(sha256) is None
        assert await http("PUT", put, data) == 200
        assert await http("PUT", put, data) == 412
        assert await read(store.open(sha256)) == data
        assert await http("GET", store.locate(sha256)) == 200
        assert await http("PUT", store.locate(sha256), data) == 403
        with pytest.raises(ArtifactTooLargeError, match="limit of 5368709120 bytes"):
            store.locate(sha256, write=True, size=5 * 1024**3 + 1)
        soon = store.locate(sha256, expires=1)
        await asyncio.sleep(2.1)
        assert await http("GET", soon) == 403

    async def test_incomplete_uploads_are_aborted_at_start(
        self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, sha256 = make(10)
        await asyncio.to_thread(self.server.client().create_multipart_upload, **self._key(sha256))
        await store.prepare()
        assert len(self.half_written()) == 1, "another replica may be at it"
        monkeypatch.setattr("penstock_adapters.s3.store.STALE", timedelta(seconds=-5))
        await store.prepare()
        assert self.half_written() == []

    async def test_without_conditional_writes_identical_bytes_may_be_written_twice(
        self, s3_server: S3Server, tmp_path: Path
    ) -> None:
        store = S3Artifacts(s3_server.options("unconditional"))  # without probing, the safe variant is the default
        assert not store.conditional
        data, sha256 = make(9 * MIB)
        (tmp_path / "file").write_bytes(data)
        await asyncio.gather(*(store.put_file(str(tmp_path / "file"), sha256, len(data)) for _ in range(2)))
        assert "If-None-Match" not in store.locate(sha256, write=True)["headers"]
        assert await read(store.open(sha256)) == data
        await store.close()

    async def test_a_transfer_resumes_after_broken_connections(self, s3_server: S3Server) -> None:
        data, sha256 = make(LARGE)
        async with Proxy(s3_server.endpoint) as proxy:
            store = S3Artifacts(replace(s3_server.options("flaky"), endpoint=proxy.endpoint))
            proxy.cuts = [2 * MIB, 5 * MIB]
            assert await store.put_stream(pieces(data, []), sha256) == LARGE
            assert proxy.cuts == []
            proxy.close_idle()
            proxy.cuts = [100, 3 * MIB, 12_345]
            assert await read(store.open(sha256)) == data
            assert proxy.cuts == []
            await store.close()

    async def test_the_store_becomes_unavailable(self, s3_server: S3Server, quick: None) -> None:
        data, sha256 = make(LARGE)
        async with Proxy(s3_server.endpoint) as proxy:
            store = S3Artifacts(replace(s3_server.options("away"), endpoint=proxy.endpoint))

            async def until_away() -> Any:
                yield data[: 17 * MIB]
                await proxy.stop()
                yield data[17 * MIB :]

            with pytest.raises(UnavailableError, match=rf"{proxy.endpoint} cannot be reached.*check that it runs"):
                await store.put_stream(until_away(), sha256)
            for call in (store.prepare(), store.stat(sha256), store.put_bytes(b"x"), read(store.open(sha256))):
                with pytest.raises(UnavailableError):
                    await call
            await proxy.start()
            assert await store.stat(sha256) is None
            await store.put_bytes(data)
            assert await read(store.open(sha256)) == data
            await store.close()

    async def test_connection_refused(self, quick: None) -> None:
        [port] = free_ports(1)
        store = open_store("s3://bucket/x", Path(), S3Options(bucket="", endpoint=f"http://127.0.0.1:{port}", **KEYS))
        with pytest.raises(UnavailableError, match=r"s3://bucket/x at http://127\.0\.0\.1.*PENSTOCK_S3_ENDPOINT"):
            await store.prepare()
        await store.close()

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"bucket": "no-such-bucket"}, "bucket 'no-such-bucket' does not exist: create it"),
            ({"secret_key": "wrong"}, "credentials are not accepted.*PENSTOCK_S3_SECRET_KEY"),
            ({"access_key": "nobody"}, "credentials are not accepted.*PENSTOCK_S3_ACCESS_KEY"),
            ({"endpoint": "no address"}, "settings of the artifact store .* are invalid"),
        ],
    )
    async def test_each_wrong_setting_has_its_own_error(
        self, s3_server: S3Server, wrong: dict[str, str], says: str
    ) -> None:
        store = S3Artifacts(replace(s3_server.options(), **wrong))
        with pytest.raises(StoreRefusedError, match=says):
            await store.prepare()
        with pytest.raises(StoreRefusedError):
            await store.put_bytes(b"x")
        await store.close()

    @pytest.mark.parametrize(
        ("statuses", "conditional"), [([200, 412], True), ([412], True), ([200, 200], False), ([501], False)]
    )
    async def test_the_probe_for_conditional_writes(self, statuses: list[int], conditional: bool) -> None:
        """Known responses of different S3 services."""
        seen: list[str] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if "expect: 100-continue" in head:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if "content-length: 8" in head:
                await reader.readexactly(8)
            seen.append(head)
            status = statuses.pop(0) if head.startswith("put") else 200
            writer.write(f"HTTP/1.1 {status} .\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as service:
            port = service.sockets[0].getsockname()[1]
            store = S3Artifacts(S3Options(bucket="b", endpoint=f"http://127.0.0.1:{port}", **KEYS))
            await store.prepare()
            await store.close()
        assert statuses == []
        assert store.conditional is conditional
        assert "if-none-match: *" in seen[0]
        assert "x-amz-checksum" not in seen[0], "boto3's default checksums are off"


KEYS: dict[str, Any] = {"access_key": "a", "secret_key": "b"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable retries: the delays between them are boto3's and need no test."""
    monkeypatch.setattr("penstock_adapters.s3.client.TRIES", 1)


def test_boto3_is_not_loaded_before_it_is_used(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from penstock_adapters.stores import open_store\n"
        "open_store('s3://bucket', pathlib.Path()); open_store('', pathlib.Path())\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("url", "where"), [("", "home/artifacts"), ("folder:", "home/artifacts"), ("folder:/data/x", "/data/x")]
)
def test_folder_addresses(tmp_path: Path, url: str, where: str) -> None:
    store = open_store(url, tmp_path / "home")
    assert isinstance(store, FolderArtifacts)
    assert store.root == tmp_path / where


@pytest.mark.parametrize(("url", "prefix"), [("s3://bucket", ""), ("s3://bucket/", ""), ("s3://bucket/a/b/", "a/b")])
def test_s3_addresses(tmp_path: Path, url: str, prefix: str) -> None:
    store = open_store(url, tmp_path, S3Options(bucket="", endpoint="http://minio:9000", **KEYS))
    assert isinstance(store, S3Artifacts)
    assert store.options == S3Options(bucket="bucket", prefix=prefix, endpoint="http://minio:9000", **KEYS)


@pytest.mark.parametrize("url", ["s3://", "s3:bucket", "s3://key:secret@bucket", "http://x", "/data", "s3://b?x=1"])
def test_invalid_addresses(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreRefusedError, match="not a URL of an artifact store: use"):
        open_store(url, tmp_path)


async def http(method: str, location: dict[str, Any], body: bytes | None = None) -> int:
    """Return the status of a plain HTTP request to a presigned location."""

    def ask() -> int:
        request = urllib.request.Request(  # noqa: S310
            location["url"], data=body, headers=location["headers"], method=method
        )
        if body is not None:
            request.add_header("Content-Length", str(len(body)))
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http to loopback
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    return await asyncio.to_thread(ask)
