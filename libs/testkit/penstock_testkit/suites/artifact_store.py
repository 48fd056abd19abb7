"""The suite of `ports.ArtifactStore`. A subclass provides the store, and ways to inspect and damage it directly."""
# ruff: noqa: D102 - test names document the tests

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_adapters.errors import (
    ArtifactDamagedError,
    ArtifactMismatchError,
    ArtifactMissingError,
    ArtifactTooLargeError,
)
from penstock_core.errors import InvalidIdError
from penstock_core.ports import ArtifactStore

MIB = 1024 * 1024
LARGE = 20 * MIB + 12_345
"""Larger than one part or chunk of any store, and not a multiple of one."""

HOSTILE = [
    "",
    "../../etc/passwd",
    "a" * 63 + "/",
    "A" * 64,
    "a" * 63 + "\n",
    "a" * 65,
    "..",
    "a" * 64 + "\x00",
    "é" * 64,
]


class ArtifactStoreSuite:
    """The suite. `store` is shared by the tests of a class, so each test uses its own contents."""

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls) -> ArtifactStore:
        """The store under test, prepared."""
        raise NotImplementedError

    def flip(self, sha256: str, at: int) -> None:
        """Flip a bit of byte `at` of a stored object, bypassing the store."""
        raise NotImplementedError

    def cut(self, sha256: str, size: int) -> None:
        """Truncate a stored object to `size` bytes, bypassing the store."""
        raise NotImplementedError

    def changed(self, sha256: str) -> object:
        """Return a value that changes whenever an object is rewritten, even with the same bytes."""
        raise NotImplementedError

    def half_written(self) -> list[str]:
        """Return what is stored besides complete objects."""
        raise NotImplementedError

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(
        data=st.binary(max_size=3000),
        cuts=st.lists(st.integers(0, 3000), max_size=5),
        ends=st.tuples(*[st.integers(0, 3100)] * 2),
    )
    async def test_stored_objects_can_be_read(
        self, store: ArtifactStore, data: bytes, cuts: list[int], ends: tuple[int, int]
    ) -> None:
        sha256 = digest(data)
        assert await store.put_stream(pieces(data, cuts), sha256) == len(data)
        assert await store.put_bytes(data) == sha256
        assert await store.stat(sha256) == len(data)
        assert await read(store.open(sha256)) == data
        start, end = sorted(ends)
        assert await read(store.open(sha256, start, end)) == data[start:end]
        assert await read(store.open(sha256, start)) == data[start:]

    async def test_a_large_object_can_be_read_completely_and_in_ranges(
        self, store: ArtifactStore, tmp_path: Path
    ) -> None:
        data, sha256 = make(LARGE)
        file = tmp_path / "large"
        file.write_bytes(data)
        await store.put_file(str(file), sha256, LARGE)
        assert await store.stat(sha256) == LARGE
        assert await read(store.open(sha256)) == data
        start, end = 7 * MIB - 3, 17 * MIB + 5
        assert await read(store.open(sha256, start, end)) == data[start:end]

    async def test_an_existing_object_is_not_rewritten(self, store: ArtifactStore, tmp_path: Path) -> None:
        data, sha256 = make(9 * MIB)
        file = tmp_path / "file"
        file.write_bytes(data)
        await store.put_file(str(file), sha256, len(data))
        before = self.changed(sha256)
        await store.put_file(str(file), sha256, len(data))
        await store.put_bytes(data)
        await store.put_stream(pieces(data, []), sha256)
        assert self.changed(sha256) == before

    async def test_a_truncated_object_is_rewritten(self, store: ArtifactStore) -> None:
        data, sha256 = make(5000)
        await store.put_bytes(data)
        self.cut(sha256, 100)
        await store.put_bytes(data)
        assert await read(store.open(sha256)) == data
        self.cut(sha256, 100)
        await store.put_stream(pieces(data, [10]), sha256)
        assert await read(store.open(sha256)) == data

    @pytest.mark.parametrize("size", [0, 1000, LARGE])
    async def test_a_digest_mismatch_is_rejected_and_leaves_nothing(
        self, store: ArtifactStore, tmp_path: Path, size: int
    ) -> None:
        data, right = make(size)
        wrong = digest(b"other bytes" + os.urandom(8))
        file = tmp_path / "file"
        file.write_bytes(data)
        with pytest.raises(ArtifactMismatchError, match=f"(?s){wrong}.*{right}"):
            await store.put_file(str(file), wrong, size)
        with pytest.raises(ArtifactMismatchError, match=wrong):
            await store.put_stream(pieces(data, [size // 2]), wrong)
        with pytest.raises(ArtifactMismatchError, match=right):
            await store.put_file(str(file), right, size + 1)
        assert await store.stat(wrong) is None
        assert size == 0 or await store.stat(right) is None  # another test uses the empty object as well
        assert self.half_written() == []

    async def test_a_stream_over_its_limit_is_rejected_early(self, store: ArtifactStore) -> None:
        given = 0

        async def endless() -> AsyncGenerator[bytes]:
            nonlocal given
            while True:
                given += MIB
                yield bytes(MIB)

        with pytest.raises(ArtifactTooLargeError, match="limit of 20000000 bytes"):
            await store.put_stream(endless(), digest(b"never"), limit=20_000_000)
        assert given < 40 * MIB
        assert self.half_written() == []
        data, sha256 = make(1000)
        assert await store.put_stream(pieces(data, []), sha256, limit=1000) == 1000

    async def test_an_interrupted_stream_leaves_nothing(self, store: ArtifactStore) -> None:
        data, sha256 = make(LARGE)

        async def broken() -> AsyncGenerator[bytes]:
            yield data[: 18 * MIB]
            raise ConnectionResetError("the client went away")

        with pytest.raises(ConnectionResetError):
            await store.put_stream(broken(), sha256)
        assert await store.stat(sha256) is None
        assert self.half_written() == []

    async def test_a_cancelled_put_leaves_nothing(self, store: ArtifactStore) -> None:
        data, sha256 = make(LARGE)
        reached = asyncio.Event()

        async def stuck() -> AsyncGenerator[bytes]:
            yield data[: 18 * MIB]
            reached.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.put_stream(stuck(), sha256))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await store.stat(sha256) is None
        assert self.half_written() == []

    @pytest.mark.parametrize("size", [3000, 9 * MIB])
    async def test_concurrent_writers_of_the_same_content(
        self, store: ArtifactStore, tmp_path: Path, size: int
    ) -> None:
        data, sha256 = make(size)
        file = tmp_path / "file"
        file.write_bytes(data)
        writers = [store.put_file(str(file), sha256, size) for _ in range(2)]
        await asyncio.gather(*writers, store.put_bytes(data), store.put_stream(pieces(data, [1]), sha256))
        assert await read(store.open(sha256)) == data
        assert self.half_written() == []

    @pytest.mark.parametrize(("size", "at"), [(1, 0), (5000, 4999), (LARGE, LARGE - 1), (LARGE, MIB)])
    async def test_a_flipped_bit_is_detected_before_the_object_is_read_completely(
        self, store: ArtifactStore, size: int, at: int
    ) -> None:
        data, sha256 = make(size)
        await store.put_bytes(data)
        self.flip(sha256, at)
        damaged = bytearray(data)
        damaged[at] ^= 1
        arrived = 0
        with pytest.raises(ArtifactDamagedError, match=f"{sha256}.*{digest(bytes(damaged))}"):
            async for chunk in store.open(sha256):
                arrived += len(chunk)
        assert arrived < size
        await store.delete(sha256)
        await store.put_bytes(data)
        assert await read(store.open(sha256)) == data

    async def test_truncation_is_detected(self, store: ArtifactStore) -> None:
        data, sha256 = make(5000)
        await store.put_bytes(data)
        self.cut(sha256, 100)
        with pytest.raises(ArtifactDamagedError, match=sha256):
            await read(store.open(sha256))

    async def test_a_missing_object(self, store: ArtifactStore) -> None:
        sha256 = digest(os.urandom(16))
        assert await store.stat(sha256) is None
        for start, end in [(0, None), (5, 10), (5, 5)]:
            with pytest.raises(ArtifactMissingError, match=sha256):
                await read(store.open(sha256, start, end))
        await store.delete(sha256)

    async def test_delete(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        await store.put_bytes(data)
        await store.delete(sha256)
        assert await store.stat(sha256) is None
        await store.delete(sha256)
        await store.put_bytes(data)
        assert await read(store.open(sha256)) == data

    @pytest.mark.parametrize("name", HOSTILE)
    async def test_an_invalid_digest_is_rejected(self, store: ArtifactStore, tmp_path: Path, name: str) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"x")
        with pytest.raises(InvalidIdError):
            await store.put_file(str(file), name, 1)
        with pytest.raises(InvalidIdError):
            await store.put_stream(pieces(b"x", []), name)
        with pytest.raises(InvalidIdError):
            await read(store.open(name))
        with pytest.raises(InvalidIdError):
            await store.stat(name)
        with pytest.raises(InvalidIdError):
            await store.delete(name)
        for write in (False, True):
            with pytest.raises(InvalidIdError):
                store.locate(name, write=write)

    @pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4), (-3, -1)])
    async def test_an_invalid_range_is_rejected(self, store: ArtifactStore, start: int, end: int | None) -> None:
        with pytest.raises(ValueError, match="range"):
            await read(store.open(digest(b""), start, end))

    async def test_a_reader_may_stop_early(self, store: ArtifactStore) -> None:
        data, sha256 = make(LARGE)
        await store.put_bytes(data)
        async with contextlib.aclosing(store.open(sha256)) as chunks:
            assert data.startswith(await anext(chunks))
        assert await read(store.open(sha256)) == data

    async def test_300_mib_are_transferred_in_bounded_memory(self, store: ArtifactStore, tmp_path: Path) -> None:
        block = os.urandom(MIB)
        hasher = hashlib.sha256()
        for _ in range(300):
            hasher.update(block)
        sha256 = hasher.hexdigest()

        async def stream() -> AsyncGenerator[bytes]:
            for _ in range(300):
                yield block

        await store.put_bytes(block)  # warm up what is loaded only once
        before = reset_peak()
        assert await store.put_stream(stream(), sha256) == 300 * MIB
        put = peak() - before
        before = reset_peak()
        size = 0
        async for chunk in store.open(sha256):
            size += len(chunk)
        got = peak() - before
        await store.delete(sha256)
        assert size == 300 * MIB
        assert put < 64 * MIB
        assert got < 64 * MIB


def make(size: int) -> tuple[bytes, str]:
    """Return unique bytes and their digest."""
    data = os.urandom(size) if size else b""
    return data, digest(data)


def digest(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


async def pieces(data: bytes, cuts: Iterable[int]) -> AsyncGenerator[bytes]:
    """Split `data` at some offsets, with empty chunks for equal offsets."""
    places = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    for start, end in itertools.pairwise(places):
        yield data[start:end]


async def read(chunks: AsyncIterable[bytes]) -> bytes:
    """Read a stream completely."""
    return b"".join([chunk async for chunk in chunks])


def reset_peak() -> int:
    """Reset the peak resident size; return the current one in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def peak() -> int:
    """Return the peak resident size in bytes since `reset_peak`."""
    return _resident("VmHWM")


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} in /proc/self/status")
