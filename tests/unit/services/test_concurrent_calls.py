"""Reads that callers share, and appends that are gathered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock_adapters.nats.gathered_appends import DIRECT, GatheredAppends
from penstock_adapters.shared_reads import SharedReads
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.facts import Fact, RunRequested
from penstock_core.ports import Recorded


class Store:
    """A value that is read in steps: the read returns what was written when it began."""

    def __init__(self) -> None:
        self.values = {"a": 1, "b": 1}
        self.reads = 0
        self.answer = asyncio.Event()

    async def read(self, key: str) -> int:
        self.reads += 1
        found = self.values[key]
        await self.answer.wait()
        return found


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_read_sees_all_that_was_written_before_the_call() -> None:
    store = Store()
    reads = SharedReads(store.read)
    early = asyncio.create_task(reads.get("a"))
    await settle()
    store.values["a"] = 2  # while the first read is in progress
    late = [asyncio.create_task(reads.get("a")) for _ in range(50)]
    await settle()
    store.answer.set()
    assert (await early, await asyncio.gather(*late)) == (1, [2] * 50)
    assert store.reads == 2


async def test_reads_of_other_keys_do_not_wait() -> None:
    store = Store()
    reads = SharedReads(store.read)
    tasks = [asyncio.create_task(reads.get(key)) for key in ("a", "b")]
    await settle()
    assert store.reads == 2
    store.answer.set()
    assert await asyncio.gather(*tasks) == [1, 1]


async def test_a_failed_read_fails_its_callers_only() -> None:
    store = Store()
    reads = SharedReads(store.read)
    store.answer.set()
    value = store.values.pop("a")
    failed = await asyncio.gather(*(reads.get("a") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in failed] == [KeyError] * 3
    store.values["a"] = value
    assert await reads.get("a") == 1


async def test_a_cancelled_caller_leaves_the_read_to_the_others() -> None:
    store = Store()
    reads = SharedReads(store.read)
    first, second = (asyncio.create_task(reads.get("a")) for _ in range(2))
    await settle()
    first.cancel()
    store.answer.set()
    assert await second == 1


class Log:
    """A log whose appends wait; `refuse` names runs whose facts, or batches with them, raise an error."""

    def __init__(self, refuse: dict[str, Exception] | None = None) -> None:
        self.batches: list[list[str]] = []
        self.known: set[str] = set()
        self.refuse = refuse or {}
        self.answer = asyncio.Event()

    async def append(self, facts: Sequence[Fact]) -> list[bool]:
        ids = [fact.run_id for fact in facts]
        self.batches.append(ids)
        await self.answer.wait()
        for run_id in ids:
            if run_id in self.refuse:
                raise self.refuse[run_id]
        written = [run_id not in self.known and run_id not in ids[:at] for at, run_id in enumerate(ids)]
        self.known.update(ids)
        return written

    async def append_unless(self, fact: Fact, kinds: tuple[type[Fact], ...]) -> bool:
        raise NotImplementedError

    async def read(self, run_id: str, after: int = 0) -> list[Recorded]:
        raise NotImplementedError

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        raise NotImplementedError


def request(run_id: str) -> RunRequested:
    return RunRequested(run_id=run_id, project="p", pipeline="q", version=1)


async def submit(log: Log, ids: list[str]) -> list[bool | BaseException]:
    appends = GatheredAppends(log)
    tasks = [asyncio.create_task(appends.append(request(run_id))) for run_id in ids]
    await settle()
    log.answer.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_few_facts_are_appended_on_their_own() -> None:
    log = Log()
    assert await submit(log, [f"r{n}" for n in range(DIRECT)]) == [True] * DIRECT
    assert {len(batch) for batch in log.batches} == {1}


async def test_many_facts_are_appended_together() -> None:
    log = Log()
    assert await submit(log, [f"r{n}" for n in range(200)]) == [True] * 200
    assert len(log.batches) <= DIRECT + 2
    assert sorted(run_id for batch in log.batches for run_id in batch) == sorted(f"r{n}" for n in range(200))


async def test_each_caller_learns_whether_its_fact_was_written() -> None:
    log = Log()
    log.known = {"r50", "r60"}
    ids = [f"r{n}" for n in range(100)]
    assert await submit(log, [*ids, "r70"]) == [*(run_id not in ("r50", "r60") for run_id in ids), False]


async def test_a_refused_fact_does_not_refuse_the_others() -> None:
    log = Log({"r50": PenstockError("too large")})
    answers = await submit(log, [f"r{n}" for n in range(100)])
    assert [isinstance(answer, PenstockError) for answer in answers] == [n == 50 for n in range(100)]
    assert sum(answer is True for answer in answers) == 99


async def test_an_unavailable_log_is_not_tried_again() -> None:
    log = Log({"r50": UnavailableError("no answer")})
    answers = await submit(log, [f"r{n}" for n in range(100)])
    assert isinstance(answers[50], UnavailableError)
    assert [batch for batch in log.batches if "r50" in batch] == [log.batches[DIRECT]]
