r"""Text of users and other systems for a terminal: without characters that control it.

A control character or an escape sequence can move the cursor, replace what was printed, or set the title and the
clipboard; a bidirectional override shows text in another order than it has. They are shown as escapes, as in `\x1b[2J`.
"""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0 except newline and tab, DEL, C1, and the embeddings, overrides and isolates of bidirectional text."""

_COLOURS = re.compile("\x1b\\[[0-9;:]*m")
_RESET = "\x1b[0m"


def printable(text: str) -> str:
    """Return the text with control characters as visible escapes; newlines and tabs stay."""
    return _CONTROL.sub(_escape, text.replace("\r\n", "\n")) if _CONTROL.search(text) else text


def printable_line(text: str) -> str:
    """Return the text in one line, with control characters as visible escapes."""
    return printable(text).replace("\n", " ")


def coloured(text: str) -> str:
    """Return one line of text as `printable` does, but with its colours, which end with the line."""
    if "\x1b" not in text:
        return printable(text)
    parts: list[str] = []
    end = 0
    for found in _COLOURS.finditer(text):
        parts += [printable(text[end : found.start()]), found.group()]
        end = found.end()
    return "".join([*parts, printable(text[end:]), _RESET if parts else ""])


def without_colours(text: str) -> str:
    """Return the text as `printable` does, without its colours."""
    return printable(_COLOURS.sub("", text))


def printable_json(text: str) -> str:
    r"""Return a JSON text in which control characters are `\u` escapes: the same value, harmless on a terminal."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text) if _CONTROL.search(text) else text


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
