"""Texts, JSON, reports and bytes: the beginning, and totals. HTML is shown as source, never rendered."""

from __future__ import annotations

import io
import json as parser
from typing import Any, cast

SHOWN = 64 * 1024
"""Longest text that is shown, in bytes."""

_JSON_WHOLE = 8 * 1024 * 1024
_ITEMS = 50
_TEXT = 500
_LINES = 20
_LINE = 64 * 1024
_CHUNK = 1024 * 1024
_HEX = 512


def plain(file: io.BufferedReader, size: int, language: str = "text") -> dict[str, Any]:
    """A text."""
    head = file.read(SHOWN)
    lines = head.count(b"\n")
    while chunk := file.read(_CHUNK):
        lines += chunk.count(b"\n")
    if head and not head.endswith(b"\n") and size <= SHOWN:
        lines += 1
    text = head.decode("utf-8", "replace")
    return {
        "kind": "text",
        "text": text,
        "language": language,
        "truncated": size > SHOWN,
        "facts": {"lines": lines},
    }


def markdown(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """Markdown, as source."""
    return plain(file, size, "markdown")


def html(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """HTML, as source."""
    return plain(file, size, "html")


def hexadecimal(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """A hex dump."""
    data = file.read(_HEX)
    rows = [data[start : start + 16] for start in range(0, len(data), 16)]
    text = "\n".join(
        f"{number * 16:08x}  {row.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in row)}"
        for number, row in enumerate(rows)
    )
    return {"kind": "text", "text": text, "language": "hex", "truncated": size > _HEX}


def json(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """JSON, indented, with long parts shortened; unchanged where it is very long."""
    if size > _JSON_WHOLE:
        return plain(file, size, "json")
    tree = parser.loads(file.read())
    return {**_shown(tree), "facts": _counts(tree)}


def lines(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """JSON lines: the first ones, and their number."""
    first: list[Any] = []
    while len(first) < _LINES and (line := file.readline(_LINE)):
        if len(line) == _LINE and not line.endswith(b"\n"):
            first.append(f"(a line of more than {_LINE} bytes)")
            break
        first.append(parser.loads(line))
    read = file.tell()
    file.seek(0)
    count, last = 0, b"\n"
    while chunk := file.read(_CHUNK):
        count, last = count + chunk.count(b"\n"), chunk[-1:]
    shown = _shown(first)
    return {**shown, "truncated": shown["truncated"] or read < size, "facts": {"items": count + (last != b"\n")}}


def plotly(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """A plotly figure: its traces, and its JSON."""
    found = json(file, size)
    file.seek(0)
    if size > _JSON_WHOLE:
        return found
    tree: Any = parser.loads(file.read())
    traces = [str(trace.get("type", "scatter")) for trace in tree["data"]]
    title = tree.get("layout", {}).get("title", {})
    about = {"traces": len(traces), "types": ", ".join(sorted(set(traces)))[:_TEXT]}
    words = title.get("text", "") if isinstance(title, dict) else title
    return {**found, "facts": about | ({"title": str(words)[:_TEXT]} if words else {})}


def _shown(tree: Any) -> dict[str, Any]:
    cut = _Cutter()
    text = parser.dumps(cut.any(tree), indent=2, ensure_ascii=False).encode("utf-8", "replace")
    return {
        "kind": "text",
        "language": "json",
        "text": text[:SHOWN].decode("utf-8", "ignore"),
        "truncated": cut.any_was or len(text) > SHOWN,
    }


class _Cutter:
    """Shortens long parts."""

    any_was = False

    def any(self, tree: Any) -> Any:
        if isinstance(tree, str) and len(tree) > _TEXT:
            self.any_was = True
            return f"{tree[:_TEXT]}… ({len(tree)} characters)"
        if isinstance(tree, list):
            items = cast("list[Any]", tree)
            return [self.any(one) for one in items[:_ITEMS]] + self._more(len(items))
        if isinstance(tree, dict):
            entries = cast("dict[str, Any]", tree)
            kept = {key: self.any(one) for key, one in list(entries.items())[:_ITEMS]}
            return kept | ({"…": more[0]} if (more := self._more(len(entries))) else {})
        return tree

    def _more(self, count: int) -> list[str]:
        if count <= _ITEMS:
            return []
        self.any_was = True
        return [f"… {count - _ITEMS} more"]


def _counts(tree: Any) -> dict[str, int]:
    if isinstance(tree, list):
        return {"items": len(cast("list[Any]", tree))}
    return {"keys": len(cast("dict[str, Any]", tree))} if isinstance(tree, dict) else {}
