"""Steps that read recorded calls, labels and training data from the platform, as tables."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, cast

import pandas as pd

from penstock.authoring import step
from penstock.client.client import Client
from penstock.client.views import Run
from penstock.step_context.contexts import context
from penstock_core.durations import parse_duration
from penstock_core.pipeline import tagged

COLUMNS_LIMIT = 2_000
"""Most columns of a call."""

_CALL_COLUMNS = ["request_id", "run_id", "at", "duration", "version", "model", "role"]
_PAGE = 1_000


@step(retries=2, retry_delay="2s")
def collect_calls(
    deployment: str,
    window: str = "",
    until: str = "",
    limit: int = 10_000,
    sample: float = 1.0,
    columns: list[str] | None = None,
    explode: str = "",
    shadow: bool = False,
) -> pd.DataFrame:
    """Return recorded calls of a deployment with their inputs and outputs, oldest first.

    Every call of an endpoint is a run, so nothing else has to be recorded. Each row has `request_id` (the idempotency
    key of the request, or the id of the run without one), `run_id`, `at` (UTC), `duration` in seconds, `version` of the
    pipeline, `model` (versions of registered models among the inputs, such as `churn:3`), `role` (`canary` or `shadow`
    for calls that such a version ran), and the inputs and outputs: nested objects and lists as columns such as
    `inputs.customer.age` and `outputs.result`. Files and tables are their digests.

    Args:
        deployment: name of the deployment; its successful runs count, whatever started them.
        window: only calls of this time before `until`, such as `1h`; empty: all.
        until: only calls before this time (RFC 3339, such as `data.scheduled_at` of a tick; UTC without a time zone);
            empty: now.
        limit: the newest calls of the window, at most so many.
        sample: share of the calls, 0 to 1; a call is always sampled alike.
        columns: patterns of the columns of inputs and outputs, such as `inputs.customer.*`; default all.
        explode: an input that is a list of rows: each is a row of the table, with the element of each output that is a
            list of the same length.
        shadow: also calls that a shadow version ran, whose answers nobody got: each is one more row for its request.

    Raises:
        ValueError: `sample` or a time is not valid, or a call has more than 2,000 columns.
    """
    if not 0 < sample <= 1:
        raise ValueError(f"collect_calls: sample must be more than 0 and at most 1, got {sample}")
    end = _seconds(until) if until else None
    since = (end or time.time()) - parse_duration(window) if window else None
    found = Client().runs.list(
        state="succeeded", limit=limit, values=True, deployment=deployment, since=since, until=end
    )
    counted = [run for run in reversed(found) if shadow or run.trigger.get("role") != "shadow"]
    rows = [row for run in counted if _sampled(run.run_id, sample) for row in _rows(run, columns, explode)]
    context().log_metric("calls", len(rows))
    return _table(rows, _CALL_COLUMNS)


@step(retries=2, retry_delay="2s")
def collect_labels(type: str, window: str = "", limit: int = 10_000) -> pd.DataFrame:
    """Return labels that arrived as events: `request_id`, `label`, `at`. Of several for a request, the last counts.

    The data of an event is an object with `request_id` and `label`, or a list of such objects, alone or as `labels`.

    Args:
        type: type of the events, such as `com.acme.order.returned`.
        window: only events that arrived within this time, such as `7d`; empty: all that are stored (30 days).
        limit: the newest events, at most so many.
    """
    since = time.time() - parse_duration(window) if window else 0.0
    labels: dict[str, dict[str, Any]] = {}
    read, before, client = 0, None, Client()
    while read < limit and (page := client.events.list(type, limit=min(_PAGE, limit - read), before=before)):
        for event in page:
            if event.received_at >= since:
                for one in reversed([*_labels(event.data)]):
                    labels.setdefault(str(one["request_id"]), {**one, "at": _time(event.received_at)})
        if page[-1].received_at < since:
            break
        read, before = read + len(page), page[-1].sequence
    rows = [{"request_id": request, "label": one["label"], "at": one["at"]} for request, one in labels.items()]
    context().log_metric("labels", len(rows))
    return _table(rows[::-1], ["request_id", "label", "at"])


@step
def join_labels(calls: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the calls that have a label, with the column `label`. Labels name a call by `request_id` or `run_id`."""
    return joined(calls, labels)


@step(retries=2, retry_delay="2s")
def load_reference(model: str, output: str, step: str = "") -> pd.DataFrame:
    """Return a table of the run that trained a registered model, to compare calls with.

    Args:
        model: such as `churn@champion`, `churn:3`, or `churn` for the latest published version.
        output: the table: an output or a logged artifact (`context().log_artifact("reference", table)`).
        step: key of the step that has it; default the one that registered the model.

    Raises:
        NotFoundError: there is no such model or table.
        TypeError: it is not a table.
    """
    client = Client()
    version = client.models.get(model)
    table = client.artifacts.load(version.run_id, step or version.step, output)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"load_reference({model!r}, {output!r}) is a {type(table).__name__}, not a pandas table")
    context().log_param("model", version.reference)
    return table


def flatten(name: str, value: Any) -> dict[str, Any]:
    """Return the scalars in JSON data by path, such as `{"order.items.0": 3}` for `{"items": [3]}`, named `order`.

    Raises:
        ValueError: there are more than 2,000.
    """
    found: dict[str, Any] = {}
    for path, scalar in _scalars(name, value):
        found[path] = scalar
        if len(found) > COLUMNS_LIMIT:
            raise ValueError(
                f"{name!r} has more than {COLUMNS_LIMIT} values: select columns, or explode a list of rows"
            )
    return found


def joined(calls: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the calls that have a label; see `join_labels`."""
    by_request = dict(zip(labels["request_id"].astype(str), labels["label"], strict=True))
    names = zip(calls["request_id"].astype(str), calls["run_id"].astype(str), strict=True)
    found: Any = calls.assign(label=[by_request.get(request, by_request.get(run)) for request, run in names])
    return found[found["label"].notna()].infer_objects().reset_index(drop=True)


def _scalars(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    fields, entries = tagged.mapping(value), tagged.sequence(value)
    if entries is not None:
        for index, entry in enumerate(entries):
            yield from _scalars(f"{path}.{index}", entry)
    elif fields is not None:
        for name, entry in fields.items():
            yield from _scalars(f"{path}.{name}", entry)
    else:
        plain = tagged.plain(value)
        yield path, plain if plain is None or isinstance(plain, bool | int | float | str) else str(plain)


def _rows(run: Run, columns: list[str] | None, explode: str) -> Iterator[dict[str, Any]]:
    call = {
        "request_id": run.trigger.get("request_id") or run.run_id,
        "run_id": run.run_id,
        "at": _time(run.created_at),
        "duration": run.duration,
        "version": run.version,
        "model": ",".join(run.input_models.values()),
        "role": run.trigger.get("role", ""),
    }
    inputs = {name: _data(value) for name, value in run.inputs.items() if name not in run.input_models}
    outputs = {name: _data(value) for name, value in run.outputs.items()}
    for given, produced in _exploded(inputs, outputs, explode):
        values = {f"inputs.{name}": value for name, value in given.items()}
        values |= {f"outputs.{name}": value for name, value in produced.items()}
        flat = {path: scalar for name, value in values.items() for path, scalar in flatten(name, value).items()}
        yield {**call, **{path: scalar for path, scalar in flat.items() if _selected(path, columns)}}


def _exploded(
    inputs: dict[str, Any], outputs: dict[str, Any], explode: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the inputs and outputs of each row of a call."""
    rows = tagged.sequence(inputs.get(explode)) if explode else None
    if rows is None:
        yield inputs, outputs
        return
    lists = {name: tagged.sequence(value) for name, value in outputs.items()}
    for index, row in enumerate(rows):
        alike = {
            name: entries[index] if entries is not None and len(entries) == len(rows) else outputs[name]
            for name, entries in lists.items()
        }
        yield {**inputs, explode: row}, alike


def _data(value: Mapping[str, Any]) -> Any:
    """Return an input or output as JSON data: artifacts as digests, what is not part of the list as None."""
    match value:
        case {"value": plain}:
            return plain
        case {"artifact": {"sha256": sha256}}:
            return f"sha256:{sha256}"
        case {"items": items}:
            return [_data(item) for item in items]
        case {"fields": fields}:
            return {name: _data(item) for name, item in fields.items()}
        case _:
            return None


def _selected(path: str, patterns: list[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(path, pattern) for pattern in patterns)


def _sampled(run_id: str, share: float) -> bool:
    return share >= 1 or int(hashlib.sha256(run_id.encode()).hexdigest()[:8], 16) < share * 2**32


def _labels(data: Any) -> Iterator[dict[str, Any]]:
    match data:
        case {"labels": list() as entries}:
            yield from _labels(entries)
        case list():
            for entry in cast("list[Any]", data):
                yield from _labels(entry)
        case {"request_id": _, "label": label} if label is not None:
            yield cast("dict[str, Any]", data)
        case _:
            pass


def _natural(path: str) -> list[tuple[bool, int, str]]:
    """Return a sort key by which `x.2` is before `x.10`."""
    parts = path.split(".")
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _seconds(text: str) -> float:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _time(at: float) -> pd.Timestamp:
    return cast("pd.Timestamp", pd.Timestamp(at, unit="s", tz="UTC"))


def _table(rows: list[dict[str, Any]], first: list[str]) -> pd.DataFrame:
    """Return a table that Parquet can store: a column with values of several types becomes text.

    Columns are in order of their names, because the order of fields in JSON has no meaning, and may vary.
    """
    others = {name for row in rows for name in row} - set(first)
    names = [*first, *sorted(others, key=_natural)]
    table = pd.DataFrame(rows, columns=names)
    for name in names:
        types = {type(row.get(name)) for row in rows} - {type(None)}
        if len(types) > 1 and types != {int, float}:
            table[name] = [None if row.get(name) is None else str(row[name]) for row in rows]
    table["at"] = pd.to_datetime(table["at"], utc=True)
    return table
