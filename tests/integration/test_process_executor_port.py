"""The process executor while it prepares the environment of an attempt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock_adapters.process import AttemptEnvironment
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import AttemptRequested, Outcome
from penstock_testkit.executor_harness import ExecutorHarness, OpenHarness, failed


class Preparation:
    """Replaces the preparation of a harness: it waits, and then raises `error` if given."""

    def __init__(self, harness: ExecutorHarness) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.count = 0
        self._harness = harness
        harness.executor._prepare = self.prepare

    async def prepare(self, attempt: AttemptRequested) -> AttemptEnvironment:
        self.count += 1
        self.entered.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return self._harness.where


async def submitting(harness: ExecutorHarness, **more: Any) -> tuple[Preparation, asyncio.Task[None]]:
    preparation = Preparation(harness)
    task = asyncio.create_task(harness.executor.submit(harness.request("fine", **more)))
    await asyncio.wait_for(preparation.entered.wait(), 10)
    return preparation, task


async def test_a_cancel_during_the_preparation_starts_no_process(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def fine(): return 1")
    preparation, task = await submitting(b)
    await b.executor.cancel("run1", "fine", 1, "enough")
    preparation.go_on.set()
    await task
    failed(b.events.ends["fine"], "Cancelled", "enough", outcome=Outcome.CANCELLED)
    assert b.events.began == {}


async def test_a_duplicate_submit_during_the_preparation_is_ignored(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def fine(): return 1")
    preparation, task = await submitting(b)
    await b.executor.submit(b.request("fine"))
    preparation.go_on.set()
    await task
    assert (await b.events.until("ends", "fine")).outcome is Outcome.SUCCEEDED
    assert preparation.count == 1


@pytest.mark.parametrize("error", [UnavailableError("the store is away"), PenstockError("there is no such version")])
async def test_a_failed_preparation_is_not_reported_as_an_attempt(
    executor_harness: OpenHarness, error: Exception
) -> None:
    b = await executor_harness("def fine(): return 1")
    preparation, task = await submitting(b)
    preparation.error = error
    preparation.go_on.set()
    with pytest.raises(type(error), match=str(error)):
        await task
    assert b.events.ends == {}
    preparation.error = None
    await b.executor.submit(b.request("fine"))
    assert (await b.events.until("ends", "fine")).outcome is Outcome.SUCCEEDED


async def test_closing_during_the_preparation_starts_nothing(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def fine(): return 1")
    preparation, task = await submitting(b)
    await b.executor.close()
    preparation.go_on.set()
    with pytest.raises(UnavailableError, match="is stopping"):
        await task
    assert b.events.began == b.events.ends == {}
