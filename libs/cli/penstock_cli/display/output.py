"""Output: coloured on a terminal, plain text elsewhere, or one JSON value.

Everything that a command prints is printed here, without characters that control the terminal: labels, reasons,
answers, logs and errors come from others. Rich is imported only when it is used, because the import would delay the
first step of `penstock run`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from penstock_core.terminal_text import coloured, printable, printable_json, printable_line, without_colours

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

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
    # While Rich redraws, its stand-in for standard output has no encoding.
    stream = sys.stdout if sys.stdout.encoding else sys.__stdout__
    try:
        better.encode((stream.encoding if stream is not None else None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return plain
    return better


def gauge(fraction: float, width: int) -> Segments:
    """Return a progress bar."""
    filled = round(width * min(max(fraction, 0.0), 1.0))
    done, rest = symbols("━━", "#-")
    return [(done * filled, "green"), (rest * (width - filled), "dim")]


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
        console().print(styled((text, style)))
    else:
        sys.stdout.write(printable(text) + "\n")


def show(lines: Iterable[Segments]) -> None:
    """Write lines to standard output, coloured on a terminal."""
    for parts in lines:
        if terminal():
            console().print(styled(*parts), soft_wrap=True)
        else:
            line("".join(text for text, _ in parts).rstrip())


def styled(*parts: tuple[str, str], one_line: bool = False) -> Text:
    """Return pairs of text and style as a text of Rich; one of `one_line` is cut at the width of the terminal."""
    # Imported only on terminals.
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ellipsis") if one_line else Text()
    for part, style in parts:
        text.append(printable_line(part) if one_line else printable(part), style)
    return text


def log_line(prefix: str, text: str) -> None:
    """Write one line of a step's output after a prefix; it keeps its colours on a terminal."""
    if terminal():
        sys.stdout.write(f"\x1b[2m{printable(prefix)}\x1b[0m {coloured(text)}\n")
    else:
        sys.stdout.write(f"{printable(prefix)} {without_colours(text)}\n")


def styled_log_line(prefix: str, text: str) -> Text:
    """Return one line of a step's output, with its colours, as a text of Rich."""
    # Imported only on terminals.
    from rich.text import Text

    return styled((prefix, "dim")).append_text(Text.from_ansi(coloured(text)))


def flush() -> None:
    """Flush standard output."""
    sys.stdout.flush()


def note(text: str) -> None:
    """Write a note to standard error."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def error(text: str) -> None:
    """Write an error to standard error, after a prefix that is red on a terminal."""
    prefix = "\x1b[1;31merror: \x1b[0m" if sys.stderr.isatty() else "error: "
    sys.stderr.write(f"{prefix}{printable(text)}\n")
    sys.stderr.flush()


_printed_json: list[bool] = []


def has_printed_json() -> bool:
    """Whether the command has written a JSON value to standard output."""
    return bool(_printed_json)


def as_json(value: Any) -> None:
    """Write one JSON value to standard output."""
    _printed_json.append(True)
    sys.stdout.write(printable_json(json.dumps(value, indent=2, default=str, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def json_line(value: Any) -> None:
    """Write one JSON value in one line to standard output."""
    if not _printed_json:
        _printed_json.append(True)
    sys.stdout.write(printable_json(json.dumps(value, default=str, ensure_ascii=False)) + "\n")


def json_file(path: Path) -> None:
    """Write a file of JSON lines to standard output: byte by byte, unless it is a terminal."""
    if not sys.stdout.isatty():
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            sys.stdout.write(printable_json(text))
    sys.stdout.flush()


def confirm(question: str) -> None:
    """Ask the user to confirm.

    Raises:
        typer.Abort: the user does not.
    """
    typer.confirm(printable(question), abort=True)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], states: str | None = None, *, data: bool = False
) -> None:
    """Write a table with the column `states` coloured. Column heads are upper-case, except those of `data`.

    Each row is one line: newlines in cells become spaces.
    """
    at = columns.index(states) if states else -1
    columns = [printable_line(column if data else column.upper()) for column in columns]
    rows = [[printable_line(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _plain_table(columns, rows)
        return
    # Imported only on terminals.
    from rich.table import Table

    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        shown.add_column(
            column, overflow="fold" if column == columns[-1] else "ellipsis", no_wrap=column != columns[-1]
        )
    for row in rows:
        shown.add_row(*(styled((cell, STYLES.get(cell, "") if i == at else "")) for i, cell in enumerate(row)))
    console().print(shown)


def _plain_table(columns: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
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
