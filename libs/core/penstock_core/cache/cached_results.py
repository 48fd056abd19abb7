"""Cached results of a step: which one is a hit, which one is nearest, and how to report it.

In: the parts of a call's key (see `cache_key`), what is stored of earlier calls, and the present time. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from penstock_core.facts import AttemptFinished, AttemptRequested, CacheReport, Outcome
from penstock_core.frozen import frozen
from penstock_core.pipeline.values import Value, json_weight, weight

RECENT = 16
"""Earlier calls of an entry point whose parts are stored, so that a miss can be explained."""

INLINE_BYTES_LIMIT = 128 * 1024
"""Largest weight of a result stored inline; larger ones are read from the log of their run."""


@frozen(kw_only=True)
class CachedResult:
    """A cached result: its attempt, when it was stored (Unix seconds), and the result itself if it is small."""

    run_id: str
    key: str
    attempt: int
    stored_at: float
    whole: bool = True
    outputs: dict[str, Value] = field(default_factory=dict[str, Value])
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: dict[str, Value] = field(default_factory=dict[str, Value])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    non_finite: dict[str, str] = field(default_factory=dict[str, str])


@frozen(kw_only=True)
class CacheRecord:
    """An earlier call whose result was stored: its parts."""

    run_id: str
    key: str
    stored_at: float
    parts: dict[str, str] = field(default_factory=dict[str, str])


def keep(end: AttemptFinished, now: float) -> CachedResult:
    """Return what to store of a successful end."""
    kept = CachedResult(run_id=end.run_id, key=end.key, attempt=end.attempt, stored_at=now, whole=False)
    size = sum(weight(value) for part in (end.outputs, end.artifacts) for value in part.values())
    if size + sum(map(json_weight, (end.metrics, end.non_finite, end.params, end.tags))) > INLINE_BYTES_LIMIT:
        return kept
    return CachedResult(
        run_id=end.run_id,
        key=end.key,
        attempt=end.attempt,
        stored_at=now,
        outputs=end.outputs,
        metrics=end.metrics,
        non_finite=end.non_finite,
        params=end.params,
        artifacts=end.artifacts,
        tags=end.tags,
    )


def cached_end(request: AttemptRequested, kept: CachedResult, report: CacheReport, now: float) -> AttemptFinished:
    """Return the end of an attempt that uses a cached result stored inline."""
    return AttemptFinished(
        run_id=request.run_id,
        key=request.key,
        attempt=request.attempt,
        outcome=Outcome.CACHED,
        outputs=kept.outputs,
        metrics=kept.metrics,
        non_finite=kept.non_finite,
        params=kept.params,
        artifacts=kept.artifacts,
        tags=kept.tags,
        finished_at=now,
        cache=report,
    )


def expired(kept: CachedResult, ttl: float | None, now: float) -> bool:
    """Whether a result is older than the caller accepts."""
    return ttl is not None and now - kept.stored_at > ttl


def differing(parts: Mapping[str, str], other: Mapping[str, str]) -> tuple[str, ...]:
    """Return the parts that differ, in the order of the first."""
    return tuple(name for name in {**parts, **other} if parts.get(name) != other.get(name))


def nearest(parts: Mapping[str, str], traces: Sequence[CacheRecord]) -> tuple[CacheRecord, tuple[str, ...]] | None:
    """Return the earlier call with the fewest differing parts, the latest of several, and these parts."""
    found = [(trace, differing(parts, trace.parts)) for trace in traces]
    return min(found, key=lambda one: (len(one[1]), -one[0].stored_at), default=None)


def remember(traces: Sequence[CacheRecord], new: CacheRecord) -> list[CacheRecord]:
    """Return the records with a new one: latest first, bounded, one for each combination of parts."""
    return [new, *(trace for trace in traces if trace.parts != new.parts)][:RECENT]


# -------------------------------------------------------------------------------------------------------------- texts


def describe(report: CacheReport, now: float) -> str:
    """Describe what the cache did for an attempt, in one sentence."""
    where = f"step {report.from_step!r} of run {report.from_run}" if report.from_run else ""
    when = f", stored {_span(now - report.stored_at)} ago" if report.stored_at else ""
    if report.hit:
        return f"reuses the result of {where}{when}: code, environment, salt and inputs are equal"
    if not report.key:
        return f"ran; its result is not cached: {report.note or 'its cache key could not be computed'}"
    if report.differs:
        text = f"ran, because {_and(report.differs)} from the nearest cached result, that of {where}{when}"
        return f"{text} ({report.note})" if report.note else text
    if report.note:
        return f"ran: {report.note}" + (f" (that of {where}{when})" if where else "")
    return "ran: no result of this step is cached for this code, environment, salt and inputs"


_PART_WORDS = {"bundle": "source bundle"}


def _and(parts: Sequence[str]) -> str:
    words = [
        f"the {_PART_WORDS.get(part, part)}" if " " not in part else f"input {part.removeprefix('input ')!r}"
        for part in parts
    ]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"{listed} {'differs' if len(words) == 1 else 'differ'}"


def _span(seconds: float) -> str:
    for size, word in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {word}"
    return f"{max(seconds, 0.0):.0f} s"
