"""`penstock runs compare`: runs side by side."""

from __future__ import annotations

import dataclasses
import json as codec
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.runs.comparison import Comparison, ComparisonRow
    from penstock.client.views import Run

_WIDTH = 40
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Run ids, their first characters, or `last`.")],
    include_equal: Annotated[bool, typer.Option("--all", help="Include properties that are the same.")] = False,
    json: Json = False,
) -> None:
    """Compare runs.

    Compares inputs, parameters, tags, metrics, outputs, code, environment, Git commit and durations.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    if not 2 <= len(runs) <= 20:
        raise UsageError(f"expected 2 to 20 runs, got {len(runs)}")
    with session.connect() as connected:
        client = connected.client
        found = client.runs.compare([resolve_run(client, name) for name in runs], include_equal=include_equal)
    if json:
        output.as_json(_as_object(found))
    else:
        _show(found, include_equal=include_equal)


def _as_object(found: Comparison) -> dict[str, Any]:
    names = ("run_id", "pipeline", "version", "state", "created_at", "finished_at")
    return {
        "runs": [{name: getattr(run, name) for name in names} for run in found.runs],
        "rows": [dataclasses.asdict(row) for row in found.rows],
        "compared": found.compared,
    }


def _show(found: Comparison, *, include_equal: bool) -> None:
    letters = _LETTERS[: len(found.runs)]
    for letter, run in zip(letters, found.runs, strict=True):
        output.line(f"{letter}  {_describe(run)}")
    for section, rows in groupby(found.rows, key=lambda row: row.section):
        output.line()
        output.table([section, *letters], [_row(row) for row in rows])
    same = found.compared - len(found.rows)
    if not include_equal:
        output.line()
        output.line(f"{same} of {found.compared} properties are the same" + (": show them with --all" if same else ""))


def _describe(run: Run) -> str:
    return f"{run.run_id}  {run.title}  {run.state}  {output.clock(run.created_at)}"


def _row(row: ComparisonRow) -> list[str]:
    name = f"{row.step}: {row.name}" if row.step else row.name
    return [name, *(text(value) if has else "-" for value, has in zip(row.values, row.has, strict=True))]


def text(value: Any) -> str:
    """Return the text of a value in a cell."""
    match value:
        case {"artifact": str(), "model": str(reference)} if len(value) == 2:
            shown = reference
        case {"artifact": str(sha256)} if len(value) == 1:
            return sha256[:12]
        case {"sha256": str(sha256), "begins": str(begin)}:
            return f"{begin[: _WIDTH - 16]}… {sha256[:12]}"
        case str():
            shown = value[:12] if len(value) in (40, 64) and value.isalnum() else value
        case float():
            shown = f"{value:.6g}"
        case _:
            shown = codec.dumps(value, ensure_ascii=False)
    plain = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in shown)
    return plain if len(plain) <= _WIDTH else plain[: _WIDTH - 1] + output.symbols("…", "~")
