"""The result cache: looked up before an attempt starts, written after it succeeded.

In: requests whose inputs are known. Out: a `CacheReport` for each, and the end of the attempt at a cache hit.

Keys of the bucket: `{project}.result.{key}` has a result, or its position in the log; `{project}.recent.{entrypoint}`
has the parts of the latest calls. The last writer wins; a lost entry is a cache miss.

Promises: a result counts only if all of its artifacts are in the store; no error of the cache fails an attempt, and
each one is in the report.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import orjson
import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_contracts import subjects
from penstock_core.cache import cache_key, cached_results
from penstock_core.cache.cached_results import CachedResult, CacheRecord
from penstock_core.errors import PenstockError
from penstock_core.facts import AttemptFinished, AttemptRequested, CacheReport, CacheRule, Outcome
from penstock_core.pipeline.values import Value
from penstock_core.ports import Recorded

REFRESHED = "the run requested a refresh"

_TRIES = 3
_KEPT = pydantic.TypeAdapter(CachedResult)
_TRACES = pydantic.TypeAdapter(list[CacheRecord])


class CacheLookup(NamedTuple):
    """The report, and at a cache hit the end of the attempt."""

    report: CacheReport
    end: AttemptFinished | None = None


class ResultCache:
    """Reads and writes cached results.

    Args:
        table: the bucket.
        missing: returns the artifacts among values that the store lacks.
        facts: reads facts by subject.
        warn: writes to the log of the service.
    """

    def __init__(
        self,
        table: Bucket,
        missing: Callable[[Iterable[Value]], Awaitable[set[str]]],
        facts: Callable[[list[str]], Awaitable[dict[str, Recorded]]],
        warn: Callable[..., None],
    ) -> None:
        self._table = table
        self._missing = missing
        self._facts = facts
        self._warn = warn

    async def look_up(self, request: AttemptRequested, rule: CacheRule, environment: str, bundle: str) -> CacheLookup:
        """Look up the result of an earlier call that is the same.

        Args:
            request: the attempt.
            rule: what its cache key is made of.
            environment: digest of the environment that the attempt would run in.
            bundle: digest of the source bundle that it would run.
        """
        dynamic = rule.dynamic_code if rule.code else "the version does not record the code of the step"
        whole = cache_key.needs_bundle(dynamic, request.inputs)
        parts = cache_key.Parts(
            code=rule.code,
            bundle=bundle if whole else "",
            environment=cache_key.environment(environment, request.env),
            entrypoint=request.entrypoint,
            inputs=request.inputs,
            salt=rule.salt,
        )
        key = cache_key.key(parts)
        if key is None:
            unknown = ", ".join(repr(name) for name in cache_key.unknown(parts))
            return CacheLookup(CacheReport(note=f"input {unknown} is known by reference only"))
        report = CacheReport(key=key, parts=cache_key.digests(parts))
        if rule.refresh:
            return CacheLookup(replace(report, note=REFRESHED))
        try:
            found = await self._look_up(request, rule, report)
        except (PenstockError, pydantic.ValidationError) as error:
            why = _line(error)
            self._warn("cache not readable", step=request.key, run=request.run_id, error=why)
            return CacheLookup(replace(report, note=f"the cache could not be read: {why}"))
        if "bundle" in found.report.differs and not found.report.note:
            return found._replace(report=replace(found.report, note=f"all of it counts: {whole}"))
        return found

    async def _look_up(self, request: AttemptRequested, rule: CacheRule, report: CacheReport) -> CacheLookup:
        entry = await self._table.get(_result(request.project, report.key))
        if entry is not None:
            kept = _KEPT.validate_json(entry.value)
            report = replace(report, from_run=kept.run_id, from_step=kept.key, stored_at=kept.stored_at)
            note, whole = await self._usable(kept, rule)
            if whole is None:
                return CacheLookup(replace(report, note=note))
            hit = replace(report, hit=True)
            return CacheLookup(hit, cached_results.cached_end(request, whole, hit, time.time()))
        traces = await self._traces(request)
        found = cached_results.nearest(report.parts, traces[0])
        if found is None:
            return CacheLookup(report)
        trace, differs = found
        if not differs:
            return CacheLookup(replace(report, note="the cached result has been removed since"))
        return CacheLookup(
            replace(report, differs=differs, from_run=trace.run_id, from_step=trace.key, stored_at=trace.stored_at)
        )

    async def _usable(self, kept: CachedResult, rule: CacheRule) -> tuple[str, CachedResult | None]:
        """The complete cached result, or why it does not count."""
        if cached_results.expired(kept, rule.ttl, time.time()):
            return f"the cached result is older than {rule.ttl:g} s", None
        whole = await self._whole(kept)
        if whole is None:
            return "the cached result is no longer in the log of its run", None
        gone = await self._gone(whole)
        return gone, None if gone else whole

    async def _whole(self, kept: CachedResult) -> CachedResult | None:
        """Complete a cached result from the log; None when the log no longer has it."""
        if kept.whole:
            return kept
        place = subjects.finished(kept.run_id, kept.key, kept.attempt)
        recorded = (await self._facts([place])).get(place)
        end = recorded.fact if recorded is not None else None
        if not isinstance(end, AttemptFinished) or end.outcome is not Outcome.SUCCEEDED:
            return None
        names = ("outputs", "metrics", "non_finite", "params", "artifacts", "tags")
        return replace(kept, whole=True, **{name: getattr(end, name) for name in names})

    async def _gone(self, kept: CachedResult) -> str:
        missing = await self._missing([*kept.outputs.values(), *kept.artifacts.values()])
        if not missing:
            return ""
        first = min(missing)[:12]
        many = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return f"the cached result refers to a missing artifact: {first}{many}"

    async def keep(self, request: AttemptRequested, report: CacheReport, end: AttemptFinished) -> CacheReport:
        """Cache the end of a successful attempt; returns the report, with a note if that was not possible."""
        if not report.key or end.outcome is not Outcome.SUCCEEDED:
            return report
        kept = cached_results.keep(end, time.time())
        try:
            await self._table.put(_result(request.project, report.key), orjson.dumps(kept))
            await self._remember(request, report, kept)
        except PenstockError as error:
            why = _line(error)
            self._warn("result not cached", step=request.key, run=request.run_id, error=why)
            return replace(
                report, note="; ".join(text for text in (report.note, f"its result is not cached: {why}") if text)
            )
        return report

    async def _remember(self, request: AttemptRequested, report: CacheReport, kept: CachedResult) -> None:
        """Record the parts of a call, to explain cache misses; gives up when others write all the time."""
        new = CacheRecord(run_id=kept.run_id, key=kept.key, stored_at=kept.stored_at, parts=report.parts)
        for _ in range(_TRIES):
            traces, revision = await self._traces(request)
            body = orjson.dumps(cached_results.remember(traces, new))
            if await self._table.put(_recent(request), body, revision) is not None:
                return

    async def _traces(self, request: AttemptRequested) -> tuple[list[CacheRecord], int]:
        entry = await self._table.get(_recent(request))
        if entry is None:
            return [], 0
        try:
            return _TRACES.validate_json(entry.value), entry.revision
        except pydantic.ValidationError:
            return [], entry.revision


def _result(project: str, key: str) -> str:
    return f"{project}.result.{key}"


def _recent(request: AttemptRequested) -> str:
    return f"{request.project}.recent.{hashlib.sha256(request.entrypoint.encode()).hexdigest()[:40]}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
