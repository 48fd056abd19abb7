"""Commits of attempts reach the log: the latest of each name, promptly, before the end; failures are harmless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import ArtifactCommitted, AttemptRequested, Fact
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored, Value
from penstock_core.ports import Recorded
from penstock_core.shipping import commits
from penstock_core.shipping.commits import CommitPublisher
from penstock_executor.checkpoints import latest_checkpoint

ATTEMPT = ("r", "fit", 2)


def fact(n: int, name: str = "checkpoint", attempt: int = 2) -> ArtifactCommitted:
    return ArtifactCommitted(run_id="r", key="fit", attempt=attempt, name=name, value=Inline(n), at=float(n))


class FakeLog:
    def __init__(self) -> None:
        self.log: list[Any] = []
        self.published: list[Any] = []
        self.warnings: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.broken = False
        self.commits = CommitPublisher(self.submit, self.publish, lambda event, **_: self.warnings.append(event))

    def submit(self, fact: Fact) -> asyncio.Future[bool]:
        assert isinstance(fact, ArtifactCommitted)
        assert fact.value in self.published, "announced before others can get it"
        self.log.append((fact.name, fact.value.value))  # type: ignore[union-attr]
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        future.set_result(True)
        return future

    async def publish(self, values: Sequence[Value]) -> None:
        await self.open.wait()
        if self.broken:
            raise UnavailableError("away")
        self.published += values


async def test_the_first_commit_is_published_at_once_and_only_the_last_of_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commits, "INTERVAL", 10.0)
    fake_log = FakeLog()
    began = time.monotonic()
    fake_log.commits.commit(fact(0))
    while not fake_log.log:
        await asyncio.sleep(0)
    assert time.monotonic() - began < commits.INTERVAL
    for n in range(1, 1000):
        fake_log.commits.commit(fact(n))
    fake_log.commits.commit(fact(7, "model"))
    await fake_log.commits.drain(ATTEMPT)
    assert fake_log.log[0] == ("checkpoint", 0)
    assert sorted(fake_log.log[1:]) == [("checkpoint", 999), ("model", 7)]
    assert time.monotonic() - began < 30
    fake_log.commits.forget(ATTEMPT)
    assert fake_log.commits.following == 0


async def test_the_last_commit_is_published_without_waiting_for_the_end() -> None:
    fake_log = FakeLog()
    for n in range(5):
        fake_log.commits.commit(fact(n))
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while fake_log.log[-1:] != [("checkpoint", 4)]:
            await asyncio.sleep(0.01)
    fake_log.commits.forget(ATTEMPT)


async def test_an_unavailable_store_loses_only_the_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_log = FakeLog()
    fake_log.broken = True
    fake_log.commits.commit(fact(0))
    await fake_log.commits.drain(ATTEMPT)
    assert fake_log.log == [] and fake_log.warnings == ["stored artifact not announced"]
    fake_log.open.clear()
    monkeypatch.setattr(commits, "DRAIN_TIMEOUT", 0.05)
    fake_log.commits.commit(fact(1))
    await fake_log.commits.drain(ATTEMPT)
    assert fake_log.warnings[-1] == "stored artifacts not announced before the end"
    fake_log.commits.forget(ATTEMPT)


async def test_no_commits_cause_no_work() -> None:
    fake_log = FakeLog()
    await fake_log.commits.drain(ATTEMPT)
    fake_log.commits.forget(ATTEMPT)
    assert fake_log.commits.following == 0


def request(attempt: int) -> AttemptRequested:
    return AttemptRequested(
        run_id="r", key="fit", attempt=attempt, pool="default", project="p", pipeline="x", version=1, entrypoint="m:f"
    )


async def restored(attempt: int, facts: list[ArtifactCommitted], gone: set[Value], warnings: list[str]) -> Value | None:
    async def last(places: list[str]) -> dict[str, Recorded]:
        assert len(places) == 1 and places[0].endswith(".r.step.fit.*.artifact.checkpoint")
        return {str(n): Recorded(n, 0.0, one) for n, one in enumerate(facts)}

    async def fetch(values: Sequence[Value]) -> None:
        if gone & set(values):
            raise PenstockError("it is not in the store")

    return await latest_checkpoint(request(attempt), last, fetch, lambda event, **_: warnings.append(event))


async def test_an_attempt_resumes_from_the_latest_available_checkpoint() -> None:
    ref = ArtifactRef(sha256="a" * 64, size=1, media_type="", format="bytes")
    lost = ArtifactCommitted(run_id="r", key="fit", attempt=2, name="checkpoint", value=Stored(ref), at=9.0)
    warnings: list[str] = []
    facts = [fact(1, attempt=1), lost, fact(3, attempt=3)]
    assert await restored(1, facts, set(), warnings) is None
    assert await restored(3, facts, set(), warnings) == lost.value
    assert await restored(3, facts, {lost.value}, warnings) == Inline(1)
    assert warnings == ["checkpoint missing"]
    assert await restored(2, [], set(), warnings) is None
