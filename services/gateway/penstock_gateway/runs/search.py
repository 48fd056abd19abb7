"""The list of runs: what a URL asks for becomes a `RunQuery`, rows become JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from penstock_core.queries import search
from penstock_core.queries.search import InvalidQueryError, RunQuery
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.service import PROJECT, GatewayService

PATIENCE = 3.0
"""Seconds that a list waits for the latest facts; after that it says how many are missing."""

_FILTER_LIMIT = 16
_JSON = ("trigger", "labels")


def query(
    *,
    labels: list[str],
    metrics: list[str],
    params: list[str],
    since: str | None,
    until: str | None,
    sort: str | None,
    cursor: str | None,
    **plain: Any,
) -> RunQuery:
    """Read what a list is asked for; `plain` are fields of the query as they stand.

    Raises:
        InvalidQuery: something cannot be read.
    """
    if len(labels) + len(metrics) + len(params) > _FILTER_LIMIT:
        raise InvalidQueryError(f"a list takes up to {_FILTER_LIMIT} labels, metrics and parameters")
    order = search.sort(sort or search.NEWEST)
    return RunQuery(
        project=PROJECT,
        labels=tuple(search.label(text) for text in labels),
        metrics=tuple(search.condition(text, numeric=True) for text in metrics),
        params=tuple(search.condition(text) for text in params),
        since=_time(since, "since"),
        until=_time(until, "until"),
        sort=order,
        after=search.parse_cursor(cursor, order) if cursor else None,
        **plain,
    )


async def page(service: GatewayService, wanted: RunQuery) -> dict[str, Any]:
    """The JSON of `api.RunPage`.

    Raises:
        Unavailable: the log or the database does not answer.
        DatabaseError: the database cannot be used.
    """
    await service.scripts.import_runs()
    place = await service.projector.wait_until_current(PATIENCE)
    found = await service.model.read(lambda model: model.page(wanted))
    return {
        "runs": [_summary(row) for row in found.rows],
        "next": search.cursor(wanted.sort, found.end) if found.end else None,
        "lag": max(0, place - found.last_seq),
    }


async def lineage(service: GatewayService, sha256: str) -> dict[str, Any]:
    """The JSON of `api.Lineage`, with the digest of the code of each attempt.

    Raises:
        ProblemError: 404, no fact names the artifact.
        Unavailable: the log or the database does not answer.
        DatabaseError: the database cannot be used.
    """
    await service.scripts.import_runs()
    await service.projector.wait_until_current(PATIENCE)
    found = await service.model.read(lambda model: model.lineage(PROJECT, sha256))
    if found is None:
        raise ProblemError(404, f"No run made or read an artifact {sha256[:80]!r}", "see the outputs of a run's steps")
    for row in (*found["up"], *found["down"]):
        version = await service.versions.get(PROJECT, row["pipeline"], row["version"])
        row["source"] = version.source if version else None
    return found


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in row.items() if name != "sorted_by"}
    return plain | {name: orjson.Fragment(row[name]) for name in _JSON}


def _time(text: str | None, name: str) -> float | None:
    """Unix seconds, or an ISO 8601 time; without a time zone it is meant in UTC."""
    if text is None:
        return None
    number = search.number_of(text)
    if number is not None:
        return number
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidQueryError(
            f"{name}: {text[:50]!r} is no time: write Unix seconds or 2026-11-21T08:15:00Z"
        ) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
