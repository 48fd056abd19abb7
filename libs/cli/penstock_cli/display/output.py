"""Output: coloured on a terminal, plain text elsewhere, or one JSON value.

Rich is imported only when it is used, because the import would delay the first step of `penstock run`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Segments = list[tuple[str, str]]
"""A line as pairs of text and style."""

STYLES = {
    "succeeded": "green",
    "cached": "cyan",
    "failed": "bold red",
    "cancelled": "magenta",
    "cancelling": "magenta",
    "skipped": "yellow",
    "running": "bold blue",
    "retrying": "yellow",
    "queued": "blue",
    "queued_for_limit": "blue",
    "suspended": "yellow",
    "waiting": "dim",
}


@cache
def console() -> Console:
    """Return the console of standard output."""
    # Takes 40 ms to import.
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def terminal() -> bool:
    """Whether standard output is a terminal that can redraw."""
    import os

    return sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"


def symbols(better: str, plain: str) -> str:
    """Return `better` if standard output can encode it, else `plain`."""
    try:
        better.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return plain
    return better


def short(key: str, width: int) -> str:
    """Shorten the key of a step; a key inside a sub-pipeline keeps its end, with the number of the call."""
    if len(key) <= width:
        return key
    head = width // 4 if "/" in key else width - 1
    tail = width - 1 - head
    return key[:head] + symbols("…", "~") + (key[-tail:] if tail else "")


def line(text: str = "", style: str | None = None) -> None:
    """Write one line to standard output."""
    if style and sys.stdout.isatty():
        console().print(text, style=style)
    else:
        sys.stdout.write(text + "\n")


def show(lines: Iterable[Segments]) -> None:
    """Write lines to standard output, coloured on a terminal."""
    if not terminal():
        for parts in lines:
            line("".join(text for text, _ in parts).rstrip())
        return
    # Imported only on terminals.
    from rich.text import Text

    for parts in lines:
        console().print(Text.assemble(*parts, no_wrap=False), soft_wrap=True)


def note(text: str) -> None:
    """Write a note to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def as_json(value: Any) -> None:
    """Write one JSON value to standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], states: str | None = None, *, data: bool = False
) -> None:
    """Write a table with the column `states` coloured. Column heads are upper-case, except those of `data`."""
    at = columns.index(states) if states else -1
    columns = columns if data else [column.upper() for column in columns]
    if not sys.stdout.isatty():
        _plain_table(columns, list(rows))
        return
    # Imported only on terminals.
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        shown.add_column(
            column, overflow="fold" if column == columns[-1] else "ellipsis", no_wrap=column != columns[-1]
        )
    for row in rows:
        shown.add_row(*(Text(cell, STYLES.get(cell, "") if i == at else "") for i, cell in enumerate(row)))
    console().print(shown)


def _plain_table(columns: Sequence[str], rows: list[Sequence[str]]) -> None:
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def clock(at: float | None, *, precise: bool = False) -> str:
    """Return a time of today as `14:03:21`, with milliseconds if `precise`; of another day with its date."""
    if not at:
        return ""
    local = time.localtime(at)
    if precise:
        return time.strftime("%H:%M:%S", local) + f".{int(at % 1 * 1000):03d}"
    if time.strftime("%F", local) == time.strftime("%F"):
        return time.strftime("%H:%M:%S", local)
    return time.strftime("%F %H:%M", local)
