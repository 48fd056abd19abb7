"""`penstock runs metrics`: the metrics of a run as a table, and a series as a chart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json, RunArgument, StepOption, resolve_run
from penstock_cli.display import output
from penstock_cli.display.formats import plural
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.runs.metrics import Series

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-=*#"
_WIDTH = 60
_SHORT = 24
_SUMMARIES, _CHARTS = 1000, 50
"""Maximum number of series in a response, without and with points."""


def metrics(
    run: RunArgument,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only the series of this name.")] = None,
    step: StepOption = None,
    points: Annotated[
        int | None, typer.Option("--points", min=5, max=10_000, help="Maximum number of points per series with --json.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the metrics of a run.

    Without NAME: last, smallest and largest value of each series. With NAME: a chart.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    if points is not None and name is None:
        raise UsageError("--points requires NAME, the name of the series")
    with session.connect() as connected:
        client = connected.client
        found = client.runs.metrics(resolve_run(client, run), name, step=step, points=points)
    if json:
        output.as_json([_as_object(one) for one in found])
    elif not found:
        output.note("no metrics" + (f" of step {step}" if step else ""))
    elif name is None:
        rows = [(one.name, one.step, str(one.count), *map(number, (one.last, one.min, one.max))) for one in found]
        output.table(["metric", "step", "points", "last", "min", "max"], rows)
    else:
        for one in found:
            _show(one)
    if not json and len(found) >= (_SUMMARIES if name is None else _CHARTS):
        output.note("there may be more series: select them with --step")


def _show(one: Series) -> None:
    output.line(f"{one.name}  {one.step}" + (f" #{one.attempt}" if one.attempt > 1 else ""))
    output.line(f"  {sparkline([point.value for point in one.points], _WIDTH)}")
    ends = f"{number(one.points[0].value)} to {number(one.last)}" if one.points else number(one.last)
    at = "" if one.last_step is None else f" at step {one.last_step}"
    output.line(f"  {plural(one.count, 'point')}, {ends}{at}, min {number(one.min)}, max {number(one.max)}")


def _as_object(one: Series) -> dict[str, object]:
    from penstock_core.queries import series

    row = dataclasses.asdict(one)
    for name in ("min", "max", "last"):
        row[name] = None if row[name] is None else series.spelled(row[name])
    row["points"] = [[point.step, point.at, series.spelled(point.value)] for point in one.points]
    return row


def number(value: float | None) -> str:
    """Return a number in at most six digits."""
    return "" if value is None else str(value) if not math.isfinite(value) else f"{value:.6g}"


def sparkline(values: Sequence[float], width: int = _SHORT) -> str:
    """Return a chart of at most `width` characters, each the mean of a section; a gap where all values are NaN."""
    bars = output.symbols(_BARS, _PLAIN)
    count = min(width, len(values))
    means: list[float | None] = []
    for part in range(count):
        some = [v for v in values[len(values) * part // count : len(values) * (part + 1) // count] if math.isfinite(v)]
        means.append(math.fsum(value / len(some) for value in some) if some else None)
    known = [mean for mean in means if mean is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(" " if mean is None else bars[_level(mean, low, high, len(bars))] for mean in means)


def _level(value: float, low: float, high: float, levels: int) -> int:
    # Halved, because the difference of two floats may overflow.
    height = high / 2 - low / 2
    part = (value / 2 - low / 2) / height if height > 0 else 0.5
    return min(levels - 1, max(0, int(part * levels)))
