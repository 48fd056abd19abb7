"""Durations as people write them: `90`, `10m`, `1h30m`, `250ms`, `7d`."""

from __future__ import annotations

import math
import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+\Z")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> float:
    """Return a duration in seconds: a number of seconds, or numbers with the units ms, s, m, h or d.

    Raises:
        ValueError: it is neither, or not finite.
    """
    text = text.replace(" ", "")
    if _DURATION.match(text):
        return sum(float(number) * SECONDS[unit] for number, unit in _PART.findall(text))
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is not finite")
    return seconds


def format_duration(seconds: float) -> str:
    """Return a duration as people write it: `90` is `1m30s`. Parts of a second are shown below a minute only."""
    if seconds < 60:
        return f"{round(seconds, 3):g}s"
    left, text = round(seconds), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(SECONDS[unit]))
        text += f"{count}{unit}" if count else ""
    return text
