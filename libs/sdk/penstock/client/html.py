"""HTML of objects that notebooks show. Colours come from the page, so that it is readable on light and dark ones."""

from __future__ import annotations

import html
from collections.abc import Sequence

_COLOURS = {
    "succeeded": "#2f9e5a", "cached": "#2f9e5a", "failed": "#d9534f", "cancelled": "#b06ab3", "skipped": "#b58900",
    "running": "#3b82d0", "retrying": "#b58900", "suspended": "#b58900",
}  # fmt: skip
_LEFT = "text-align:left"


def state(name: str) -> str:
    """Return a state in its colour, with its name."""
    return f'<span style="color:{_COLOURS.get(name, "inherit")};font-weight:600">{text(name)}</span>'


def text(value: object, limit: int = 200) -> str:
    """Return a text, escaped and shortened."""
    shown = str(value)
    return html.escape(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def block(headline: str, notes: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a headline, lines of notes, and a table; every part is HTML already."""
    head = "".join(f'<th style="{_LEFT};opacity:.65">{one}</th>' for one in columns)
    body = "".join("<tr>" + "".join(f'<td style="{_LEFT}">{one}</td>' for one in row) + "</tr>" for row in rows)
    table = f"<table><tr>{head}</tr>{body}</table>" if rows else ""
    lines = "".join(f'<div style="opacity:.8">{one}</div>' for one in notes)
    return f"<div><div>{headline}</div>{lines}{table}</div>"
