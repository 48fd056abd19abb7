"""Previews on a terminal: tables, texts, and what can be said of images in words."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import click

from penstock.client.views import Preview
from penstock_cli.display import output
from penstock_cli.display.progress import size

_CELL = 40
_COLUMNS = 12


def show(preview: Preview, written: Path | None) -> None:
    """Print a preview. `written` is the file that its thumbnail was written to."""
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in preview.facts.items()]
    output.line(", ".join([*facts, size(preview.size)]), style="dim")
    if preview.kind == "none":
        output.line(f"no preview: {preview.reason}")
    elif preview.kind == "table":
        heads = [_head(column) for column in preview.columns[:_COLUMNS]]
        output.table(heads, [[_cell(one) for one in row[:_COLUMNS]] for row in preview.rows], data=True)
    elif preview.kind == "image":
        hint = f"thumbnail in {written}" if written else "--to FILE writes a thumbnail"
        output.line(hint)
    else:
        output.line(_harmless(preview.text.rstrip("\n")))
    if preview.truncated or len(preview.columns) > _COLUMNS:
        output.line("…", style="dim")


def write_picture(preview: Preview, to: Path) -> None:
    """Write the thumbnail of a preview.

    Raises:
        UsageError: it has none.
    """
    if preview.picture is None:
        raise click.UsageError(f"there is no thumbnail to write: the preview is {preview.reason or preview.kind}")
    to.write_bytes(base64.b64decode(preview.picture["base64"]))


def _head(column: dict[str, str]) -> str:
    return _harmless(f"{column['name']} ({column['type']})" if column.get("type") else column["name"])


def _cell(value: Any) -> str:
    text = "" if value is None else _harmless(str(value)).replace("\n", " ")
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _harmless(text: str) -> str:
    """Text from a file without what would move a terminal's cursor or change its title."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text)
