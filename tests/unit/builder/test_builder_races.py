"""Version numbering with concurrent and crashing replicas: invariants hold for every interleaving.

The environment is modelled: a bucket that compares revisions, a stream of announcements, replicas that are stopped
between any two of their steps for good (kill -9) or for a while. What the real broker does is tested in
`tests/integration/test_builder.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_adapters.nats.buckets import versions
from penstock_adapters.nats.buckets.kv import Entry
from penstock_builder import service
from penstock_builder.service import BuilderService, digest
from penstock_contracts.commands import EnvironmentInfo, Publications, RegisterVersion, Version, VersionReply
from penstock_core.pipeline import ir

ENVIRONMENT = EnvironmentInfo(version="3.11", digest="0" * 64)


def command(content: int) -> RegisterVersion:
    """Content 3 is an experiment; the others are published."""
    pipeline = ir.Pipeline(name="train", description=str(content))
    return RegisterVersion(pipeline=pipeline, source="a" * 64, environment=ENVIRONMENT, publish=content != 3)


@dataclass
class SharedStore:
    """State shared by replicas. Each call waits until the schedule of the test resumes its replica."""

    entries: dict[str, Entry] = field(default_factory=dict)
    announced: list[int] = field(default_factory=list)
    revision: int = 0

    async def get(self, key: str) -> Entry | None:
        await asyncio.sleep(0)
        return self.entries.get(key)

    async def put(self, key: str, value: bytes, revision: int | None = None) -> int | None:
        await asyncio.sleep(0)
        there = self.entries.get(key)
        if revision is not None and revision != (there.revision if there else 0):
            return None
        tail = key.rpartition(".")[2]
        if tail == "highest":
            assert there is None or int(there.value) < int(value), "the highest complete number never decreases"
        elif tail.isdecimal() and int(tail) > 1:
            assert self.announced[-1:] == [int(tail) - 1], "no number is taken before all below are complete"
        self.revision += 1
        self.entries[key] = Entry(key, value, self.revision)
        return self.revision

    async def has_artifact(self, sha256: str) -> bool:
        return True

    async def announce(self, version: Version) -> None:
        await asyncio.sleep(0)
        if not self.announced or self.announced[-1] < version.version:
            self.announced.append(version.version)

    def published(self) -> Publications:
        entry = self.entries.get(versions.published_key("default", "train"))
        return Publications.model_validate_json(entry.value) if entry else Publications(latest=0, versions={})

    def numbers(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for key, entry in self.entries.items():
            tail = key.rpartition(".")[2]
            if tail.isdecimal():
                found[int(tail)] = versions.unpack(entry.value).digest
        return found


@dataclass
class Replica:
    """One registration, advanced step by step by the test."""

    store: SharedStore
    content: int

    def __post_init__(self) -> None:
        builder = BuilderService(self.store, self.store, clock=lambda: 0.0)
        self._steps = builder.register(command(self.content)).__await__()
        self.reply: VersionReply | None = None
        self.alive = True

    def step(self) -> None:
        try:
            next(self._steps)
        except StopIteration as end:
            self.reply = end.value
            self.alive = False

    def kill(self) -> None:
        self._steps.close()
        self.alive = False


@pytest.fixture(autouse=True, scope="module")
def no_threads() -> object:
    """Steps are advanced by the test, without an event loop that could wait for a thread."""
    with pytest.MonkeyPatch.context() as patch:

        async def here(function: object, *arguments: object) -> object:
            await asyncio.sleep(0)
            return function(*arguments)  # type: ignore[operator]

        patch.setattr(service.asyncio, "to_thread", here)
        yield


def check(store: SharedStore, replies: dict[int, set[int]]) -> None:
    """Check all invariants, at any moment."""
    numbers = store.numbers()
    assert sorted(numbers) == list(range(1, len(numbers) + 1)), "numbers have no gaps"
    assert max(Counter(numbers.values()).values(), default=1) == 1, "equal content has one number"
    assert store.announced == sorted(set(store.announced)), "each version is announced once, in order"
    highest = store.entries.get(versions.highest_key("default", "train"))
    assert int(highest.value) <= len(numbers) if highest else True
    published = store.published()
    complete = int(highest.value) if highest else 0
    assert all(number <= complete for number in published.versions), "what is published is complete"
    assert published.latest in published.versions or not published.versions
    experiment = digest(command(3))
    assert all(numbers[number] != experiment for number in published.versions), "an experiment is never published"
    for content, answered in replies.items():
        assert len(answered) == 1
        number = answered.pop()
        assert numbers[number] == digest(command(content))
        assert (number in published.versions) == (content != 3)


# Which replica advances by how many steps. At the end all replicas still running are killed.
MOVES = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 12)), max_size=25)


@settings(max_examples=400)
@given(contents=st.lists(st.integers(1, 3), min_size=2, max_size=5), moves=MOVES)
def test_invariants_hold_for_every_interleaving_and_crash(contents: list[int], moves: list[tuple[int, int]]) -> None:
    store = SharedStore()
    replicas = [Replica(store, content) for content in contents]
    replies: dict[int, set[int]] = {}

    def note(replica: Replica) -> None:
        if replica.reply is not None:
            assert replica.reply.error is None
            replies.setdefault(replica.content, set()).add(replica.reply.version or 0)

    for index, steps in moves:
        replica = replicas[index % len(replicas)]
        for _ in range(steps):
            if replica.alive:
                replica.step()
                note(replica)
    for replica in replicas:
        if replica.alive:
            replica.kill()
    check(store, {content: set(answered) for content, answered in replies.items()})
    # A retry after all crashes gets the acknowledged result, and nothing is left incomplete.
    for content in set(contents):
        again = Replica(store, content)
        while again.alive:
            again.step()
        note(again)
    check(store, replies)
    count = len(store.numbers())
    assert count == len(set(contents))
    assert store.announced == list(range(1, count + 1))
    assert int(store.entries[versions.highest_key("default", "train")].value) == count
