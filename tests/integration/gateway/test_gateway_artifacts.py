"""Artifacts over HTTP: verified uploads, full and range downloads, no truncated or damaged content."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from gateway_platform import Http, Platform, read_answer, read_head, running

from penstock_adapters.files import FolderArtifacts
from penstock_contracts.commands import Location, StoreInfo
from penstock_gateway.http import downloads

pytestmark = pytest.mark.asyncio(loop_scope="module")


def named(data: bytes) -> str:
    return f"/v1/artifacts/{hashlib.sha256(data).hexdigest()}"


def leftovers(platform: Platform) -> list[Path]:
    return list((platform.store.root / "tmp").iterdir())


async def test_uploaded_objects_can_be_downloaded(platform: Platform, http: Http) -> None:
    data = bytes(range(256)) * 1000
    path = named(data)
    for method in ("HEAD", "GET"):
        assert (await http(method, path)).status == 404
    put = await http("PUT", path, data)
    assert (put.status, put.json()) == (201, {"sha256": path[-64:], "size": len(data)})
    assert (await http("PUT", path, data)).status == 200
    head = await http("HEAD", path)
    assert (head.status, head.headers["content-length"]) == (200, str(len(data)))
    got = await http("GET", path)
    assert (got.status, got.body) == (200, data)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"] == f'attachment; filename="{path[-64:-48]}"'
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["accept-ranges"] == "bytes"
    lies = platform.store.path(path[-64:])
    assert lies.read_bytes() == data


async def test_a_damaged_object_is_refused_and_replaced(platform: Platform, http: Http) -> None:
    data = bytes(range(256)) * 900
    path = named(data)
    for asked in ({"range": "bytes=0-9"}, {}):
        assert (await http("PUT", path, data)).status in (200, 201)
        lies = platform.store.path(path[-64:])
        lies.chmod(0o644)
        lies.write_bytes(b"x" + data[1:])
        answer = await http("GET", path, headers=asked)
        assert answer.status == 500 and "is damaged" in answer.json()["detail"]
        assert (await http("HEAD", path)).status == 404, "a client that looks first puts it again"
    assert (await http("PUT", path, data)).status == 201
    assert (await http("GET", path)).body == data


async def test_a_client_that_does_not_read_is_disconnected(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "STALL", 0.3)
    closed = asyncio.Event()
    opened = platform.store.open

    async def watched(*arguments: Any) -> AsyncGenerator[bytes]:
        try:
            async for chunk in opened(*arguments):
                yield chunk
        finally:
            closed.set()

    monkeypatch.setattr(FolderArtifacts, "open", lambda store, *arguments: watched(*arguments))
    size = 40_000_000
    sha256 = await platform.store.put_bytes(bytes(size))
    reader, _ = await http.open("GET", f"/v1/artifacts/{sha256}")
    status, headers = await read_head(reader)
    assert (status, headers["content-length"]) == (200, str(size))
    async with asyncio.timeout(60):
        await closed.wait()
        received = 0
        try:
            while part := await reader.read(1_000_000):
                received += len(part)
        except ConnectionError:
            pass
    assert received < size


async def test_an_empty_object(http: Http) -> None:
    path = named(b"")
    assert (await http("PUT", path, b"")).status == 201
    got = await http("GET", path)
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "0")
    assert (await http("GET", path, headers={"range": "bytes=0-0"})).status == 416


async def test_a_digest_mismatch_is_rejected(platform: Platform, http: Http) -> None:
    path = named(b"these bytes")
    answer = await http("PUT", path, b"other bytes")
    assert answer.status == 422
    assert "nothing was stored" in answer.json()["detail"]
    assert (await http("GET", path)).status == 404
    assert leftovers(platform) == []


async def test_an_interrupted_upload_leaves_nothing(platform: Platform, http: Http) -> None:
    data = b"x" * 500_000
    path = named(data)
    _, writer = await http.open("PUT", path, data[:300_000], headers={"content-length": str(len(data))})
    await writer.drain()
    async with asyncio.timeout(5):
        while not leftovers(platform):
            await asyncio.sleep(0.01)
    writer.close()
    async with asyncio.timeout(5):
        while leftovers(platform):
            await asyncio.sleep(0.01)
    assert (await http("GET", path)).status == 404


async def test_oversized_uploads_are_rejected_before_or_while_reading(platform: Platform, http: Http) -> None:
    reader, writer = await http.open("PUT", named(b"big"), headers={"content-length": "1000001"})
    answer = await read_answer(reader)
    assert (answer.status, "1000000 bytes" in answer.json()["detail"]) == (413, True)
    writer.close()
    chunked = {"content-length": "", "transfer-encoding": "chunked"}
    reader, writer = await http.open("PUT", named(b"big"), headers=chunked)
    try:
        for _ in range(40):
            writer.write(b"40000\r\n" + b"x" * 0x40000 + b"\r\n")
            await writer.drain()
    except ConnectionError:
        pass
    answer = await read_answer(reader)
    assert answer.status == 413
    assert leftovers(platform) == []


async def test_concurrent_uploads_of_the_same_object(platform: Platform, http: Http) -> None:
    data = b"shared" * 50_000
    answers = await asyncio.gather(*(http("PUT", named(data), data) for _ in range(8)))
    assert {answer.status for answer in answers} <= {200, 201}
    assert (await http("GET", named(data))).body == data
    assert leftovers(platform) == []


@pytest.mark.parametrize(
    ("asked", "status", "part", "span"),
    [
        ("bytes=0-3", 206, b"0123", "0-3"),
        ("bytes=7-", 206, b"789", "7-9"),
        ("bytes=-3", 206, b"789", "7-9"),
        ("bytes=-30", 206, b"0123456789", "0-9"),
        ("bytes=9-100", 206, b"9", "9-9"),
        ("bytes=0-0", 206, b"0", "0-0"),
        ("bytes=10-", 416, b"", "*"),
        ("bytes=-0", 416, b"", "*"),
        ("bytes=99999999999999999-", 416, b"", "*"),
        ("bytes=5-2", 200, b"0123456789", ""),
        ("bytes=0-1,3-4", 200, b"0123456789", ""),
        ("bytes=a-b", 200, b"0123456789", ""),
        ("bytes=-", 200, b"0123456789", ""),
        ("items=0-1", 200, b"0123456789", ""),
        ("bytes=" + "9" * 50 + "-", 200, b"0123456789", ""),
    ],
)
async def test_ranges(http: Http, asked: str, status: int, part: bytes, span: str) -> None:
    data = b"0123456789"
    await http("PUT", named(data), data)
    for method in ("GET", "HEAD"):
        answer = await http(method, named(data), headers={"range": asked})
        assert answer.status == status
        assert answer.headers.get("content-range", "") == (f"bytes {span}/10" if span else "")
        if status != 416:
            assert answer.headers["content-length"] == str(len(part))
            if method == "GET":
                assert answer.body == part


async def test_conditional_requests_return_not_modified(http: Http) -> None:
    data = b"0123456789"
    await http("PUT", named(data), data)
    tag = (await http("GET", named(data))).headers["etag"]
    assert tag == f'"{named(data)[-64:]}"'
    assert (await http("GET", named(data), headers={"if-none-match": f'"x", W/{tag}'})).status == 304
    assert (await http("GET", named(data), headers={"if-none-match": '"x"'})).status == 200
    kept = {"range": "bytes=5-", "if-range": tag}
    assert (await http("GET", named(data), headers=kept)).body == b"56789"
    assert (await http("GET", named(data), headers=kept | {"if-range": '"old"'})).body == data


@pytest.mark.parametrize(("size", "status"), [(5, 500), (6_000_000, 200)])
async def test_a_damaged_object_is_never_served_completely(
    platform: Platform, http: Http, size: int, status: int
) -> None:
    """Damage of a small object is detected before the response starts; a large response is truncated."""
    data = b"x" * size
    path = platform.store.path(await platform.store.put_bytes(data))
    path.chmod(0o644)
    path.write_bytes(data[:-1] + b"!")
    reader, _ = await http.open("GET", named(data))
    found, headers = await read_head(reader)
    assert found == status
    if status == 200:
        assert int(headers["content-length"]) == len(data)
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(len(data))


async def test_a_disconnected_client_stops_the_download(platform: Platform, http: Http) -> None:
    data = b"y" * 1_000_000
    await http("PUT", named(data), data)
    for _ in range(3):
        reader, writer = await http.open("GET", named(data))
        await read_head(reader)
        writer.close()
    assert (await http("GET", named(data))).body == data


async def test_remote_store_downloads_are_redirected(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        http = Http(platform)
        platform.store_info = StoreInfo(kind="s3", limit=500_000)
        url = "https://s3.example/bucket/key?X-Amz-Signature=abc&a=b%2Fc"
        platform.location = Location(url=url, size=7)
        got = await http("GET", named(b"1234567"))
        assert (got.status, got.headers["location"]) == (307, url)
        head = await http("HEAD", named(b"1234567"))
        assert (head.status, head.headers["content-length"]) == (200, "7")
        known = await http("PUT", named(b"1234567"), b"1234567")
        assert (known.status, known.json()["size"]) == (200, 7)
        platform.location = Location(url=url, headers={"If-None-Match": "*"})
        put = await http("PUT", named(b"1234567"), b"1234567")
        assert (put.status, put.headers["location"]) == (307, url)
        assert put.headers["penstock-send-headers"] == '{"If-None-Match":"*"}'
        reader, _ = await http.open("PUT", named(b"x"), headers={"content-length": "500001"})
        assert (await read_answer(reader)).status == 413
        platform.location = Location()
        for method in ("GET", "HEAD"):
            assert (await http(method, named(b"none"))).status == 404
        for location, status in (
            (Location(error="the bucket is gone"), 502),
            (Location(error="the bucket is gone", unavailable=True), 503),
        ):
            platform.location = location
            put = await http("PUT", named(b"none"), b"none")
            assert (put.status, "the bucket is gone" in put.json()["detail"]) == (status, True)
            assert (await http("HEAD", named(b"none"))).status == status
