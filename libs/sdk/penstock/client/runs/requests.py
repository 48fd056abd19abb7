"""What a request for a run, or for a list of runs, may contain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypedDict

CacheMode: TypeAlias = Literal["use", "refresh", "off"]


class RerunOptions(TypedDict, total=False):
    """Options of a rerun.

    Attributes:
        version: `same`, `latest` (the version that was published last) or a number. Required when the version of the
            earlier run is published and no longer the latest; else `same` by default.
        idempotency_key: a repeated key returns the existing run; default a new key.
        cache: `use` cached results, ignore and overwrite them (`refresh`), or neither read nor write the cache (`off`).
        refresh: steps whose cached results are ignored and overwritten, by key or name.
        deadline: seconds after which the run fails; default the pipeline's deadline.
    """

    version: Literal["same", "latest"] | int | None
    idempotency_key: str | None
    cache: CacheMode
    refresh: Sequence[str]
    deadline: float | None


class SubmitOptions(TypedDict, total=False):
    """Options of a new run.

    Attributes:
        version: number of the version; default the latest published one.
        idempotency_key: a repeated key returns the existing run; default a new key.
        labels: texts by name, to find the run by.
        priority: -1000 to 1000; runs of higher priority are served first. Default 0.
        cache: `use` cached results, ignore and overwrite them (`refresh`), or neither read nor write the cache (`off`).
        refresh: steps whose cached results are ignored and overwritten, by key or name.
        deadline: seconds after which the run fails; default the pipeline's deadline.
    """

    version: int | None
    idempotency_key: str | None
    labels: Mapping[str, str] | None
    priority: int
    cache: CacheMode
    refresh: Sequence[str]
    deadline: float | None


class RunFilters(TypedDict, total=False):
    """Filters of a list of runs, combined with AND, and its order.

    Attributes:
        deployment: name of a deployment.
        trigger: what started the run: `manual`, `cron`, `rerun` ….
        requested_by: the principal that requested the run, such as `user:ada` or `trigger:nightly`.
        mine: only runs that this client's token requested.
        prefix: beginning of the run id.
        labels: texts by name, of labels and of tags that steps set; None matches any text.
        metrics: conditions such as `loss<0.2`, on metrics of any step.
        params: conditions such as `depth=4` or `model=forest`, on inputs and logged parameters.
        since: created at or after this time; Unix seconds or a `datetime`.
        until: created before this time.
        sort: `-created_at` (default), `finished_at`, `duration`, `metric:NAME`, `param:NAME`; a leading minus sorts
            descending. Runs without the sort key are omitted.
    """

    deployment: str | None
    trigger: str | None
    requested_by: str | None
    mine: bool
    prefix: str | None
    labels: Mapping[str, str | None] | None
    metrics: Sequence[str]
    params: Sequence[str]
    since: float | datetime | None
    until: float | datetime | None
    sort: str | None


def cache_fields(options: RerunOptions | SubmitOptions) -> dict[str, Any]:
    """Return the fields of a request about caching and the deadline that differ from the defaults."""
    cache, refresh, deadline = options.get("cache", "use"), options.get("refresh"), options.get("deadline")
    return {
        **({"cache": cache} if cache != "use" else {}),
        **({"refresh": list(refresh)} if refresh else {}),
        **({"deadline": deadline} if deadline is not None else {}),
    }


def list_query(pipeline: str | None, state: str | None, filters: RunFilters) -> dict[str, object]:
    """Return the query of a list of runs."""
    return {
        "pipeline": pipeline,
        "state": state,
        "deployment": filters.get("deployment"),
        "trigger": filters.get("trigger"),
        "requested_by": filters.get("requested_by"),
        "mine": "true" if filters.get("mine") else None,
        "id": filters.get("prefix"),
        "label": list(_labels(filters.get("labels") or {})),
        "metric": list(filters.get("metrics") or ()),
        "param": list(filters.get("params") or ()),
        "since": _time(filters.get("since")),
        "until": _time(filters.get("until")),
        "sort": filters.get("sort"),
    }


def _labels(labels: Mapping[str, str | None]) -> Iterator[str]:
    for name, text in labels.items():
        yield name if text is None else f"{name}={text}"


def _time(at: float | datetime | None) -> str | None:
    if at is None:
        return None
    return repr(at.timestamp() if isinstance(at, datetime) else float(at))
