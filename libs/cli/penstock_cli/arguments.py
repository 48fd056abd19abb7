"""Texts of the command line as values."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

import typer

from penstock_cli.failures import UsageError

NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use earlier results of steps nor keep new ones.")]
Refresh = Annotated[
    list[str] | None,
    typer.Option("--refresh", metavar="STEP", help="Make the result of this step anew and keep that; repeatable."),
]

Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="TIME", help="End the run as failed if it is not over by then, e.g. 2h."),
]


def cache_options(no_cache: bool, refresh: list[str] | None) -> dict[str, Any]:
    """What a run does with earlier results, as arguments of `Client.run`."""
    if no_cache and refresh:
        raise UsageError("--no-cache keeps no result, so that --refresh has nothing to do: leave one of the two out")
    return {"cache": "off" if no_cache else "use", "refresh": refresh or []}


def parse_labels(name: str | None, labels: list[str]) -> dict[str, str]:
    """Labels from `--name` and `--label key=value`."""
    found: dict[str, str] = {}
    for item in labels:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"--label {item!r} is not of the form key=value")
        found[key] = value
    if name is not None:
        found["name"] = name
    return found


def parse_pairs(option: str, given: list[str]) -> dict[str, str]:
    """Texts by name from a repeated `NAME=TEXT`."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {item!r} is not of the form NAME=VALUE")
        found[name] = text
    return found


def parse_numbers(option: str, given: list[str]) -> dict[str, float]:
    """Numbers by name from a repeated `NAME=NUMBER`."""
    found: dict[str, float] = {}
    for name, text in parse_pairs(option, given).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise UsageError(f"{option} {name}={text}: {text!r} is no number") from None
        if not math.isfinite(found[name]):
            raise UsageError(f"{option} {name}={text}: it is no finite number")
    return found


def parse_duration(text: str) -> float:
    """A duration such as `90`, `1.5h`, `10m`, `2d` in seconds."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    unit = units.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise UsageError(f"{text!r} is no duration: write seconds, or a number with s, m, h or d, such as 10m")
    return value


def parse_time(text: str, now: float) -> float:
    """A time in Unix seconds: an ISO 8601 time, of this time zone where it names none, or how long ago: `2d`, `90m`."""
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        pass
    try:
        return now - parse_duration(text)
    except UsageError:
        raise UsageError(
            f"{text!r} is no time: write 2026-11-21, 2026-11-21T08:15, or how long ago, such as 2d, 8h or 90m"
        ) from None
