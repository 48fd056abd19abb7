"""The cache of results: hits, ignored entries, stored entries, and failures that are only reported."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import pytest

from penstock_adapters.nats.buckets.kv import Entry
from penstock_adapters.nats.bus import BusError
from penstock_contracts import subjects
from penstock_core.cache import cached_results
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, CacheReport, CacheRule, Outcome
from penstock_core.pipeline import values
from penstock_core.pipeline.values import (
    ArtifactRef,
    Collected,
    CollectedRef,
    Element,
    Fields,
    Inline,
    Items,
    Stored,
    Value,
)
from penstock_core.ports import Recorded
from penstock_executor import cache
from penstock_executor.cache import ResultCache

RULE = CacheRule(code="c0de")
MODEL = Stored(ArtifactRef(sha256="a" * 64, size=3, media_type="", format="bytes"))


class FakeStores:
    """A bucket, a store and a log, each of which can be unavailable."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.gone: set[str] = set()
        self.log: dict[str, Recorded] = {}
        self.broken: Exception | None = None
        self.conflicts = 0
        self.cache = ResultCache(self, self.missing, self.facts, lambda *_, **__: None)
        self.runs = 0

    async def get(self, key: str) -> Entry | None:
        if self.broken:
            raise self.broken
        return self.entries.get(key)

    async def put(self, key: str, value: bytes, revision: int | None = None) -> int | None:
        if self.broken:
            raise self.broken
        last = self.entries[key].revision if key in self.entries else 0
        if revision is not None and (self.conflicts or revision != last):
            self.conflicts -= 1
            return None
        self.entries[key] = Entry(key, value, last + 1)
        return last + 1

    async def missing(self, wanted: Iterable[Value]) -> set[str]:
        return {sha for value in wanted for sha in values.artifacts(value)} & self.gone

    async def facts(self, places: list[str]) -> dict[str, Recorded]:
        return {place: self.log[place] for place in places if place in self.log}

    async def call(
        self,
        rule: CacheRule = RULE,
        environment: str = "e",
        bundle: str = "b",
        result: Value = MODEL,
        fails: bool = False,
        **more: Any,
    ) -> CacheReport:
        """Run one attempt of a step like the executor; return its report."""
        self.runs += 1
        request = dataclasses.replace(
            AttemptRequested(
                run_id=f"run{self.runs}",
                key="fit",
                attempt=1,
                pool="default",
                project="p",
                pipeline="x",
                version=1,
                entrypoint="m:fit",
                inputs={"data": MODEL, "depth": Inline(3)},
            ),
            **more,
        )
        found = await self.cache.look_up(request, rule, environment, bundle)
        if found.end is not None:
            assert (found.end.run_id, found.end.key, found.end.attempt) == (request.run_id, "fit", 1)
            assert found.end.outcome is Outcome.CACHED and found.end.cache == found.report
            assert found.end.outputs == {"result": result} and found.end.metrics == {"loss": 0.5}
            return found.report
        end = AttemptFinished(
            run_id=request.run_id,
            key="fit",
            attempt=1,
            outcome=Outcome.FAILED if fails else Outcome.SUCCEEDED,
            outputs={"result": result},
            metrics={"loss": 0.5},
        )
        end = dataclasses.replace(end, cache=await self.cache.keep(request, found.report, end))
        self.log[subjects.finished(request.run_id, "fit", 1)] = Recorded(self.runs, 0.0, end)
        assert end.cache is not None
        return end.cache


async def test_a_cache_hit_reports_the_source_run() -> None:
    stores = FakeStores()
    first = await stores.call()
    assert not first.hit and first.differs == () and first.note == "" and len(first.key) == 64
    assert set(first.parts) == {"code", "environment", "salt", "input data", "input depth"}
    second = await stores.call()
    assert second.hit and (second.from_run, second.from_step) == ("run1", "fit")
    assert second.key == first.key and time.time() - second.stored_at < 60
    assert (await stores.call()).from_run == "run1"  # a hit is not stored again


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"rule": CacheRule(code="other")}, ("code",)),
        ({"environment": "f"}, ("environment",)),
        ({"env": {"A": "b"}}, ("environment",)),
        ({"rule": CacheRule(code="c0de", salt="2")}, ("salt",)),
        ({"inputs": {"data": MODEL, "depth": Inline(4)}}, ("input depth",)),
        ({"inputs": {"data": MODEL}}, ("input depth",)),
        ({"inputs": {"data": Inline(1), "depth": Inline(3.0)}}, ("input data", "input depth")),
        ({"entrypoint": "m:other"}, ()),
        ({"project": "q"}, ()),
    ],
)
async def test_a_cache_miss_reports_what_differs(change: dict[str, Any], differs: tuple[str, ...]) -> None:
    stores = FakeStores()
    await stores.call()
    report = await stores.call(**change)
    assert not report.hit and report.differs == differs
    assert report.from_run == ("run1" if differs else "")
    assert (await stores.call(**change)).hit


async def test_the_nearest_earlier_call_is_named() -> None:
    stores = FakeStores()
    await stores.call(inputs={"data": Inline(1), "depth": Inline(1)})
    await stores.call(inputs={"data": Inline(2), "depth": Inline(2)})
    report = await stores.call(inputs={"data": Inline(1), "depth": Inline(3)})
    assert (report.differs, report.from_run) == (("input depth",), "run1")


async def test_an_expired_result_is_ignored_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = FakeStores()
    await stores.call()
    later = time.time() + 3600
    monkeypatch.setattr(cache.time, "time", lambda: later)
    assert (await stores.call(rule=CacheRule(code="c0de", ttl=7200))).hit
    report = await stores.call(rule=CacheRule(code="c0de", ttl=1800))
    assert not report.hit and report.note == "the cached result is older than 1800 s"
    assert (await stores.call(rule=CacheRule(code="c0de", ttl=1800))).from_run == "run3"


async def test_a_result_with_a_deleted_artifact_is_ignored() -> None:
    stores = FakeStores()
    await stores.call()
    stores.gone = {"a" * 64}
    report = await stores.call()
    assert not report.hit and report.note == "the cached result refers to a missing artifact: aaaaaaaaaaaa"
    stores.gone = set()
    assert (await stores.call()).from_run == "run2"


async def test_refresh_recomputes_and_overwrites() -> None:
    stores = FakeStores()
    await stores.call()
    report = await stores.call(rule=CacheRule(code="c0de", refresh=True))
    assert not report.hit and report.note == cache.REFRESHED
    assert (await stores.call()).from_run == "run2"


OBJECT = ArtifactRef(sha256="b" * 64, size=3, media_type="", format="pickle", unsafe=True, project_types=True)
COUNTED = {
    "dynamic code": ({"rule": CacheRule(code="c0de", dynamic_code="m.py:3: it uses eval")}, "m.py:3: it uses eval"),
    "unknown code": ({"rule": CacheRule(code="")}, "the version does not record the code"),
    "an object": ({"inputs": {"model": Stored(OBJECT)}}, "input 'model' contains objects of project classes"),
    "one in a list": ({"inputs": {"data": Items((Inline(1), Stored(OBJECT)))}}, "input 'data' contains"),
    "one in a dictionary": ({"inputs": {"data": Fields({"a": Stored(OBJECT)})}}, "input 'data' contains"),
    "a part of one": ({"inputs": {"data": Element(Stored(OBJECT), (0,))}}, "input 'data' contains"),
    "an inline object": ({"inputs": {"data": Inline([{"$type": "m:Config", "depth": 1}])}}, "input 'data' contains"),
}


@pytest.mark.parametrize("case", COUNTED.values(), ids=COUNTED)
async def test_the_bundle_digest_counts_when_other_modules_may_run(case: tuple[dict[str, Any], str]) -> None:
    stores = FakeStores()
    call, reason = case
    first = await stores.call(**call)
    assert "bundle" in first.parts
    assert (await stores.call(**call)).hit
    report = await stores.call(**call, bundle="b2")
    assert not report.hit and report.differs == ("bundle",)
    assert reason in report.note and report.note.startswith("all of it counts: ")
    assert "the source bundle differs from the nearest" in cached_results.describe(report, time.time())


@pytest.mark.parametrize(
    "inputs",
    [
        {"data": MODEL},
        {"data": Stored(dataclasses.replace(OBJECT, project_types=False))},
        {"data": Inline({"$type": "tuple", "items": ["m:Config"]})},
    ],
)
async def test_the_bundle_digest_does_not_count_otherwise(inputs: dict[str, Any]) -> None:
    stores = FakeStores()
    first = await stores.call(inputs=inputs)
    assert "bundle" not in first.parts
    assert (await stores.call(inputs=inputs, bundle="b2")).hit


async def test_without_a_key_the_cache_is_not_used() -> None:
    stores = FakeStores()
    inputs: dict[str, Any] = {"a": Inline(1), "b": Collected(CollectedRef(key="x", count=2, output="result"))}
    report = await stores.call(inputs=inputs)
    assert report == CacheReport(note="input 'b' is known by reference only")
    assert stores.entries == {}


async def test_only_successful_results_are_cached() -> None:
    stores = FakeStores()
    await stores.call(fails=True)
    assert not (await stores.call()).hit


async def test_a_large_cached_result_is_read_from_its_runs_log() -> None:
    stores = FakeStores()
    large = Inline("x" * (cached_results.INLINE_BYTES_LIMIT + 1))
    await stores.call(result=large)
    assert all(len(entry.value) < 10_000 for entry in stores.entries.values())
    assert (await stores.call(result=large)).hit
    stores.log.clear()
    report = await stores.call(result=large)
    assert not report.hit and "no longer in the log of its run" in report.note


@pytest.mark.parametrize("error", [UnavailableError("no answer"), BusError("full")])
async def test_an_unavailable_cache_fails_nothing_and_is_reported(error: Exception) -> None:
    stores = FakeStores()
    stores.broken = error
    report = await stores.call()
    assert report.note == f"the cache could not be read: {error}; its result is not cached: {error}"
    stores.broken = None
    assert not (await stores.call()).hit
    assert (await stores.call()).hit


async def test_damaged_entries_count_as_misses() -> None:
    stores = FakeStores()
    await stores.call()
    stores.entries = {key: Entry(key, b"rubbish", entry.revision) for key, entry in stores.entries.items()}
    report = await stores.call()
    assert not report.hit and report.note.startswith("the cache could not be read")
    assert (await stores.call()).hit


async def test_constant_concurrent_writes_lose_only_the_explanation() -> None:
    stores = FakeStores()
    stores.conflicts = 2
    await stores.call()
    assert sum(".recent." in key for key in stores.entries) == 1
    stores.conflicts = 1000
    assert (await stores.call(environment="f")).note == ""
    assert (await stores.call(environment="f")).hit


async def test_an_evicted_result_is_reported() -> None:
    stores = FakeStores()
    await stores.call()
    stores.entries = {key: entry for key, entry in stores.entries.items() if ".recent." in key}
    assert (await stores.call()).note == "the cached result has been removed since"
