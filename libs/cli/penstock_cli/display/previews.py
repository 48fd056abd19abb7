"""Previews as text."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from penstock.client.views import Preview
from penstock_cli.display import output
from penstock_cli.display.formats import size
from penstock_cli.errors import UsageError

_CELL = 40
_COLUMNS = 12


def show(preview: Preview, written: Path | None) -> None:
    """Print a preview. `written` is the file of its thumbnail, if it was written."""
    facts = [f"{name.replace('_', ' ')} {value}" for name, value in preview.facts.items()]
    output.line(", ".join([*facts, size(preview.size)]), style="dim")
    if preview.kind == "none":
        output.line(f"no preview: {preview.reason}")
    elif preview.kind == "table":
        heads = [_head(column) for column in preview.columns[:_COLUMNS]]
        output.table(heads, [[_cell(one) for one in row[:_COLUMNS]] for row in preview.rows], data=True)
    elif preview.kind == "image":
        hint = f"thumbnail in {written}" if written else "write a thumbnail with --to FILE"
        output.line(hint)
    else:
        output.line(preview.text.rstrip("\n"))
    if preview.truncated or len(preview.columns) > _COLUMNS:
        output.line("…", style="dim")


def write_picture(preview: Preview, to: Path) -> None:
    """Write the thumbnail of a preview.

    Raises:
        UsageError: it has no thumbnail.
    """
    if preview.picture is None:
        raise UsageError(f"--to: no thumbnail, the preview is {preview.reason or preview.kind}")
    to.write_bytes(base64.b64decode(preview.picture["base64"]))


def _head(column: dict[str, str]) -> str:
    return f"{column['name']} ({column['type']})" if column.get("type") else column["name"]


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"
