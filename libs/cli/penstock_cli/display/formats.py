"""Texts for people: durations, sizes, numbers, counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def duration(seconds: float) -> str:
    """Return a duration as `4 ms`, `1.25 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 0.0995:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Return a number of bytes as `512 B`, `2.6 kB` or `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def metrics(values: Mapping[str, Any], limit: int = 4) -> str:
    """Return metrics in one line: `loss=0.12 accuracy=0.97`."""
    shown = [f"{name}={number(value)}" for name, value in list(values.items())[:limit]]
    return " ".join(shown) + (" …" if len(values) > limit else "")


def plural(count: int, noun: str) -> str:
    """Return `1 step` or `2 steps`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: Any) -> str:
    """Return a number in at most four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
