"""Runs as a pandas table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.client.views import Run
from penstock.errors import ClientError


def frame(runs: Sequence[Run]) -> Any:
    """Return runs, which have their steps, as a `pandas.DataFrame` with one row for each.

    Raises:
        ClientError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ClientError("runs.frame() needs pandas: pip install pandas") from error
    shared = _names_of_several_steps(runs)
    rows = [dict(_cells(run, shared)) for run in runs]
    first = ["run", "pipeline", "version", "state", "created", "duration"]
    names = dict.fromkeys(name for row in rows for name in row if name not in first)
    columns = [*first, *sorted(names, key=_section)]
    found = pd.DataFrame(rows, columns=columns)
    found["created"] = pd.to_datetime(found["created"], unit="s", utc=True)
    found["duration"] = found["duration"].astype(float)
    return found


def _cells(run: Run, shared: frozenset[str]) -> Iterator[tuple[str, Any]]:
    duration = run.duration if run.finished else None
    yield from {"run": run.run_id, "pipeline": run.pipeline, "version": run.version, "state": run.state}.items()
    yield from {"created": run.created_at, "duration": duration}.items()
    yield from ((f"inputs.{name}", _plain(value)) for name, value in run.inputs.items())
    for step in run.steps.values():
        if step.item_of is None:
            for name, value in step.metrics.items():
                yield (f"metrics.{step.key}.{name}" if name in shared else f"metrics.{name}"), value
    yield from ((f"labels.{name}", text) for name, text in run.labels.items())


def _names_of_several_steps(runs: Sequence[Run]) -> frozenset[str]:
    """Return the metrics that more than one step logs."""
    owners: dict[str, set[str]] = {}
    for run in runs:
        for step in run.steps.values():
            for name in step.metrics if step.item_of is None else ():
                owners.setdefault(name, set()).add(step.key)
    return frozenset(name for name, steps in owners.items() if len(steps) > 1)


def _section(column: str) -> int:
    return ("inputs", "metrics", "labels").index(column.partition(".")[0])


def _plain(value: Mapping[str, Any]) -> Any:
    """Return plain data as it is, an artifact as its digest, anything else as its description."""
    match value:
        case {"value": plain}:
            return plain
        case {"artifact": {"sha256": sha256}}:
            return f"sha256:{sha256}"
        case _:
            return dict(value)
