"""Finds runs: filters as keyword arguments, pages put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypedDict

from penstock.client import views
from penstock.client.transport import Transport
from penstock.client.views import Run

_PAGE = 200


class RunFilters(TypedDict, total=False):
    """What runs can be chosen by, all at once.

    Attributes:
        deployment: name of a deployment.
        trigger: what started it: `manual`, `cron`, `rerun` ….
        prefix: how its id begins.
        labels: texts by name, of labels and of tags that steps set; None stands for any text.
        metrics: conditions such as `loss<0.2`, of any step.
        params: conditions such as `depth=4` or `model=forest`, of inputs and of logged parameters.
        since: asked for at or after this time; Unix seconds or a `datetime`.
        until: asked for before this time.
        sort: `-requested_at` (default), `finished_at`, `duration`, `metric:NAME`, `param:NAME`; a minus puts the
            largest first. Runs without what is sorted by are left out.
    """

    deployment: str | None
    trigger: str | None
    prefix: str | None
    labels: Mapping[str, str | None] | None
    metrics: Sequence[str]
    params: Sequence[str]
    since: float | datetime | None
    until: float | datetime | None
    sort: str | None


def runs(transport: Transport, pipeline: str | None, state: str | None, limit: int, filters: RunFilters) -> list[Run]:
    """The first `limit` runs that meet every filter."""
    query: dict[str, object] = {
        "pipeline": pipeline,
        "state": state,
        "deployment": filters.get("deployment"),
        "trigger": filters.get("trigger"),
        "id": filters.get("prefix"),
        "label": list(_labels(filters.get("labels") or {})),
        "metric": list(filters.get("metrics") or ()),
        "param": list(filters.get("params") or ()),
        "since": _time(filters.get("since")),
        "until": _time(filters.get("until")),
        "sort": filters.get("sort"),
    }
    found: list[Run] = []
    cursor: str | None = None
    while len(found) < limit:
        part = {"limit": min(limit - len(found), _PAGE), "cursor": cursor}
        page = transport.json("GET", "/v1/runs", query=query | part)
        found += [views.parse_run(row) for row in page["runs"]]
        cursor = page.get("next")
        if not cursor or not page["runs"]:
            break
    return found[:limit]


def _labels(labels: Mapping[str, str | None]) -> Iterator[str]:
    for name, text in labels.items():
        yield name if text is None else f"{name}={text}"


def _time(at: float | datetime | None) -> str | None:
    if at is None:
        return None
    return repr(at.timestamp() if isinstance(at, datetime) else float(at))
