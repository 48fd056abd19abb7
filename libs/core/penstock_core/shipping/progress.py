"""The progress that a step reports. Only the latest report counts, so its file has a fixed size and is overwritten.

A report is one write at the start of the file: loops can report each of a million iterations, and reports of several
processes of one step do not mix.
"""

from __future__ import annotations

import json
import math
from typing import NamedTuple

TEXT_LIMIT = 200
"""Characters of the text of a report."""

SIZE = 2048
"""Bytes of the file: enough for a text of which each character needs six."""


class Report(NamedTuple):
    """What a step reported: `done` of `total`, with a text, at a Unix time."""

    at: float
    done: float
    total: float
    text: str = ""


def encode(report: Report) -> bytes:
    """Return the content of the file."""
    text = report.text[:TEXT_LIMIT].encode(errors="replace").decode()
    return json.dumps([report.at, report.done, report.total, text]).ljust(SIZE - 1).encode() + b"\n"


def decode(content: bytes) -> Report | None:
    """Read the file, which the user's code may have written as well; None if the content is not valid."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    match fields:
        case [int() | float() as at, int() | float() as done, int() | float() as total, str(text)]:
            numbers = (at, done, total)
            valid = all(math.isfinite(number) for number in numbers) and 0 <= at < 1e11 and 0 <= done <= total > 0
            return Report(float(at), done, total, text[:TEXT_LIMIT]) if valid else None
        case _:
            return None
