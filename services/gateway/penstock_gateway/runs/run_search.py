"""The list of runs: query parameters become a `RunQuery`, rows become models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from penstock_contracts.api import RunPage, RunSummary, RunValues
from penstock_core.errors import PenstockError
from penstock_core.queries import search
from penstock_core.queries.search import InvalidQueryError, Key, RunQuery
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector
from penstock_gateway.runs.run_values import RunValueReader
from penstock_gateway.tracked.importer import TrackedRunImporter

PATIENCE = 3.0
"""Seconds that a list waits for the latest facts; after that its `lag` says how many are missing."""

_FILTER_LIMIT = 16
_JSON = ("trigger", "labels")


def parse(
    *,
    project: str,
    labels: list[str],
    metrics: list[str],
    params: list[str],
    since: str | None,
    until: str | None,
    sort: str | None,
    cursor: str | None,
    **plain: Any,
) -> RunQuery:
    """Parse query parameters; `plain` are fields of the query that need no parsing.

    Raises:
        InvalidQueryError: a parameter is invalid.
    """
    if len(labels) + len(metrics) + len(params) > _FILTER_LIMIT:
        raise InvalidQueryError(f"at most {_FILTER_LIMIT} labels, metrics and parameters together")
    order = search.sort(sort or search.NEWEST)
    return RunQuery(
        project=project,
        labels=tuple(search.label(text) for text in labels),
        metrics=tuple(search.condition(text, numeric=True) for text in metrics),
        params=tuple(search.condition(text) for text in params),
        since=_time(since, "since"),
        until=_time(until, "until"),
        sort=order,
        after=search.parse_cursor(cursor, order) if cursor else None,
        **plain,
    )


class RunSearch:
    """Lists and searches runs in the read model."""

    def __init__(
        self, read_model: ReadModel, projector: Projector, scripts: TrackedRunImporter, values: RunValueReader
    ) -> None:
        self._read_model = read_model
        self._projector = projector
        self._scripts = scripts
        self._values = values

    async def page(self, query: RunQuery, *, values: bool = False) -> RunPage:
        """Return a page of runs; with `values`, with their inputs and outputs, and fewer runs if these are large.

        Raises:
            UnavailableError: the log or the database does not answer.
            DatabaseError: the database cannot be used.
        """
        await self._scripts.import_runs()
        sequence = await self._projector.wait_until_current(PATIENCE)
        found = await self._read_model.read(lambda model: model.page(query))
        runs, end = [_summary(row) for row in found.rows], found.end
        if values:
            parts = await self._values.read([run.run_id for run in runs])
            runs = [
                RunValues.model_construct(None, **dict(run), **part) for run, part in zip(runs, parts, strict=False)
            ]
            if len(runs) < len(found.rows):
                last = found.rows[len(runs) - 1]
                end = Key(last["sorted_by"], last["run_id"])
        return RunPage.model_construct(
            None,
            runs=runs,
            next=search.cursor(query.sort, end) if end else None,
            lag=max(0, sequence - found.last_seq),
        )

    async def has_active_runs(self) -> bool:
        """Return whether a run of any project has not finished; True if the read model is behind, too."""
        try:
            await self._scripts.import_runs()
            sequence = await self._projector.wait_until_current(PATIENCE)
            found = await self._read_model.read(lambda model: model.active_runs())
        except PenstockError:
            return True
        return found.any or found.last_seq < sequence


def _summary(row: dict[str, Any]) -> RunSummary:
    """Return a run as it is in the database, whose JSON is not parsed."""
    plain = {name: value for name, value in row.items() if name != "sorted_by"}
    return RunSummary.model_construct(None, **plain | {name: orjson.Fragment(row[name]) for name in _JSON})


def _time(text: str | None, name: str) -> float | None:
    """Parse Unix seconds or an ISO 8601 time, which is in UTC without a time zone."""
    if text is None:
        return None
    number = search.number_of(text)
    if number is not None:
        return number
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidQueryError(
            f"{name}: {text[:50]!r} is not a time: use Unix seconds or 2026-11-21T08:15:00Z"
        ) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
