"""The suite of garbage collection in `ports.ArtifactStore`: unreferenced objects and notes."""
# ruff: noqa: D102 - test names document the tests

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

import pytest

from penstock_core.errors import UnavailableError
from penstock_core.ports import ArtifactStore, Mark, StoredObject
from penstock_testkit.suites.artifact_store import digest, make, read

GRACE = 2.0
"""Grace period of the sweeper in the race, in seconds; a writer that takes longer than half of it is ignored."""
SWEPT, CHECKED = 8, 40
"""The race ends when so many objects were swept and so many referenced objects were read."""


class MemoryMarks:
    """`ports.Marks` in memory."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._revision = 0

    async def get(self, sha256: str) -> Mark | None:
        await asyncio.sleep(0)
        return self._marks.get(sha256)

    async def put(self, sha256: str, mark: Mark) -> Mark | None:
        await asyncio.sleep(0)
        known = self._marks.get(sha256)
        if mark.revision != (known.revision if known else 0):
            return None
        self._revision += 1
        self._marks[sha256] = Mark(mark.word, mark.at, self._revision)
        return self._marks[sha256]

    async def drop(self, sha256: str) -> None:
        self._marks.pop(sha256, None)

    async def marked(self) -> list[str]:
        return [sha256 for sha256, mark in self._marks.items() if mark.word == "marked"]


async def listed(store: ArtifactStore) -> dict[str, StoredObject]:
    """List all objects by digest."""
    return {one.sha256: one async for part in store.listing() for one in part}


async def sweep(store: ArtifactStore, sha256: str, before: float) -> bool:
    """Run mark and sweep: one round marks, the next removes."""
    return await store.sweep(sha256, before) or await store.sweep(sha256, before)


class SweepingSuite:
    """Garbage collection tests, used together with `ArtifactStoreSuite`."""

    async def test_listing_returns_size_and_time(self, store: ArtifactStore) -> None:
        begun = time.time()
        data, sha256 = make(1234)
        await store.put_bytes(data)
        found = (await listed(store))[sha256]
        assert found.size == 1234
        assert begun - 2 < found.modified < time.time() + 2

    async def test_touch_returns_the_size(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        assert await store.touch(sha256) is None
        await store.put_bytes(data)
        assert await store.touch(sha256) == 1000

    async def test_objects_older_than_the_grace_period_are_swept(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        await store.put_bytes(data)
        assert not await store.sweep(sha256, time.time() + 60)
        assert await store.stat(sha256) == 1000
        assert sha256 in [one async for part in store.marked() for one in part]
        assert await store.sweep(sha256, time.time() + 60)
        assert await store.stat(sha256) is None
        assert sha256 not in [one async for part in store.marked() for one in part]
        assert not await sweep(store, digest(b"never"), time.time() - 60)
        await store.put_bytes(data)
        assert await read(store.open(sha256)) == data

    async def test_objects_put_or_touched_within_the_grace_period_are_kept(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        await store.put_bytes(data)
        assert not await store.sweep(sha256, time.time() - 60)
        await asyncio.sleep(0.05)
        for want in (lambda: store.put_bytes(data), lambda: store.touch(sha256)):
            before = time.time() - 0.02  # file system clocks have a coarse resolution
            await want()
            assert sha256 not in [one async for part in store.marked() for one in part]
            assert not await sweep(store, sha256, before)
            assert not await sweep(store, sha256, before)
            assert await read(store.open(sha256)) == data

    async def test_referenced_objects_survive_concurrent_writers_and_sweeper(self, store: ArtifactStore) -> None:
        """Writers reference objects a moment after putting or finding them, then release them; the sweeper runs."""
        contents = [f"content {number} {random.random()}".encode() for number in range(24)]
        named: dict[str, int] = {digest(data): 0 for data in contents}
        over = asyncio.Event()
        swept = checked = 0

        async def write(seed: int) -> None:
            nonlocal checked
            dice = random.Random(seed)
            while not over.is_set():
                data = dice.choice(contents)
                begun = time.monotonic()
                try:
                    sha256 = await store.put_bytes(data)
                except UnavailableError:
                    continue
                await asyncio.sleep(dice.uniform(0, 0.2))
                if time.monotonic() - begun > GRACE / 2:
                    continue
                named[sha256] += 1
                await asyncio.sleep(dice.uniform(0, 0.5))
                assert await read(store.open(sha256)) == data
                checked += 1
                named[sha256] -= 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), dice.uniform(0, 2 * GRACE))

        async def sweeper() -> None:
            nonlocal swept
            while swept < SWEPT or checked < CHECKED:
                now = time.time()
                roots = {sha256 for sha256, count in named.items() if count}
                for sha256, found in (await listed(store)).items():
                    if sha256 in named and sha256 not in roots and found.modified < now - GRACE:
                        swept += await store.sweep(sha256, now - GRACE)
                await asyncio.sleep(0.01)
            over.set()

        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for seed in range(16):
                group.create_task(write(seed))
            group.create_task(sweeper())

    async def test_concurrent_sweepers(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        await store.put_bytes(data)
        later = time.time() + 60
        await asyncio.gather(*(sweep(store, sha256, later) for _ in range(4)))
        assert await store.stat(sha256) is None

    async def test_cleanup_keeps_objects(self, store: ArtifactStore) -> None:
        data, sha256 = make(1000)
        await store.put_bytes(data)
        await store.tidy()
        assert await read(store.open(sha256)) == data

    async def test_notes(self, store: ArtifactStore) -> None:
        async def found(prefix: str) -> dict[str, bytes]:
            return {name: data async for name, data in store.notes(prefix)}

        assert await found("archives/") == {}
        await store.put_note("archives/p/2026/11/r1", b"one")
        await store.put_note("archives/p/2026/11/r2", b"two")
        await store.put_note("archives/p/2026/11/r1", b"one again")
        await store.put_note("other/r3", b"three")
        assert await found("archives/") == {"archives/p/2026/11/r1": b"one again", "archives/p/2026/11/r2": b"two"}
        assert await found("archives/p/2026/11/r2") == {"archives/p/2026/11/r2": b"two"}
        assert digest(b"one") not in await listed(store)
        await store.delete_note("archives/p/2026/11/r1")
        await store.delete_note("archives/p/2026/11/r1")
        assert list(await found("archives/")) == ["archives/p/2026/11/r2"]

    @pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a//b", "a/../b", "a b", "a/"])
    async def test_a_note_name_outside_the_folder_is_rejected(self, store: ArtifactStore, name: str) -> None:
        with pytest.raises(ValueError, match="is not a valid name of a note"):
            await store.put_note(name, b"x")
        with pytest.raises(ValueError, match="is not a valid name of a note"):
            await store.delete_note(name)
