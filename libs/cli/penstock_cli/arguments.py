"""Arguments and options that several commands share, and their parsers."""

from __future__ import annotations

import contextlib
import json as codec
import math
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.errors import UsageError
from penstock_core import durations
from penstock_core.errors import InputError, InvalidIdError

if TYPE_CHECKING:
    from penstock.client.client import Client

_LAST = re.compile(r"last(?:~([0-9]{1,4}))?")

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Run id, its first characters, or `last`: your last run; `last~1` is the one before."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StepOption = Annotated[str | None, typer.Option("--step", help="Key of the step, such as train[3].")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write cached results.")]
Refresh = Annotated[
    list[str] | None,
    typer.Option(
        "--refresh", metavar="STEP", help="Ignore the cached result of this step and overwrite it; repeatable."
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option("--deadline", metavar="TIME", help="Fail the run if it has not finished after this time, e.g. 2h."),
]
Timeout = Annotated[
    str | None,
    typer.Option("--timeout", metavar="TIME", help="Cancel the run after this time, e.g. 90, 10m, 2h."),
]
Detach = Annotated[bool, typer.Option("--detach", help="Return when the run is accepted; do not wait for it.")]
Logs = Annotated[bool, typer.Option("--logs", help="Print the output of the steps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
JsonResult = Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")]


def resolve_run(client: Client, name: str) -> str:
    """Return the id of a run given by its id, its first characters, or `last~N`: the newest but N of this principal."""
    if len(name) == 26:
        return name
    if (relative := _LAST.fullmatch(name)) is not None:
        back = int(relative[1] or 0)
        newest = client.runs.list(limit=back + 1, mine=True)
        if not newest:
            raise UsageError(f"no runs of {client.whoami().principal} yet: start one with `penstock run FILE`")
        if len(newest) <= back:
            raise UsageError(f"{name}: you have {len(newest)} run{'' if len(newest) == 1 else 's'} only")
        return newest[back].run_id
    found = [run.run_id for run in client.runs.list(limit=6, prefix=name)]
    if name in found:
        return name
    if len(found) > 1:
        more = " …" if len(found) > 5 else ""
        raise UsageError(f"run {name!r} is ambiguous: {', '.join(found[:5])}{more}; add more characters")
    return found[0] if found else name


def run_options(no_cache: bool, refresh: list[str] | None, deadline: str | None) -> dict[str, Any]:
    """Return options of a request for a run from `--no-cache`, `--refresh` and `--deadline`."""
    if no_cache and refresh:
        raise UsageError("--no-cache and --refresh exclude each other")
    return {
        "cache": "off" if no_cache else "use",
        "refresh": refresh or [],
        "deadline": parse_duration(deadline) if deadline else None,
    }


def check_detach(detach: bool, timeout: str | None, logs: bool) -> None:
    """Refuse options that follow a run with `--detach`."""
    if detach and (timeout or logs):
        raise UsageError("--detach excludes --timeout and --logs, which follow the run")


@contextlib.contextmanager
def suggest_models(texts: Mapping[str, str]) -> Generator[None]:
    """Add to the error about an input that looks like a version of a registered model how to pass one."""
    try:
        yield
    except InputError as error:
        for name, text in texts.items():
            named = f"parameter {name!r}" in str(error) or f"inputs.{name}:" in str(error)
            if named and _names_model(text):
                raise InputError(f"{error}; to pass a registered model, write -p {name}=model:{text}") from error
        raise


def _names_model(text: str) -> bool:
    if "@" not in text and ":" not in text:
        return False
    # Needed for this error only.
    from penstock_core.registry import references

    try:
        references.parse(text)
    except InvalidIdError:
        return False
    return True


def parse_pairs(option: str, given: Sequence[str], *, unique: bool = False) -> dict[str, str]:
    """Return texts by name from a repeated option `NAME=VALUE`. The last of equal names counts, unless `unique`."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals or not name:
            raise UsageError(f"{option} {item!r}: expected NAME=VALUE")
        if unique and name in found:
            raise UsageError(f"{option} {name}: given more than once")
        found[name] = text
    return found


def parse_numbers(option: str, given: Sequence[str]) -> dict[str, float]:
    """Return numbers by name from a repeated option `NAME=NUMBER`."""
    found: dict[str, float] = {}
    for name, text in parse_pairs(option, given).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise UsageError(f"{option} {name}={text}: expected a number, got {text!r}") from None
        if not math.isfinite(found[name]):
            raise UsageError(f"{option} {name}={text}: expected a finite number")
    return found


def parse_duration(text: str) -> float:
    """Return a duration such as `90`, `1.5h`, `1h30m`, `2d` in seconds."""
    try:
        value = durations.parse_duration(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise UsageError(f"{text!r} is not a duration: write seconds, or a number with s, m, h or d, such as 10m")
    return value


def parse_time(text: str, now: float) -> float:
    """Return a time in Unix seconds from ISO 8601 (local unless it has a time zone), or from an age: `2d`, `90m`."""
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        pass
    try:
        return now - parse_duration(text)
    except UsageError:
        raise UsageError(
            f"{text!r} is not a time: write 2026-11-21, 2026-11-21T08:15, or an age such as 2d, 8h or 90m"
        ) from None


def read_object(file: Path, what: str) -> dict[str, Any]:
    """Read a JSON object from a file, or from standard input for `-`; `what` it is, for errors.

    Raises:
        UsageError: it cannot be read, or is no JSON object.
    """
    try:
        found = codec.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file} must be {what}")
    return found
