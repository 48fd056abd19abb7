"""Format texts and durations to be shown."""

from __future__ import annotations

_TEXT_LIMIT = 400


def line(text: str) -> str:
    """Return a text as one line of bounded length."""
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_LIMIT else f"{text[: _TEXT_LIMIT - 1]}…"


def span(seconds: float) -> str:
    """Format a duration. Clocks of two machines may differ, so negative ones count as 0."""
    if seconds < 0.0995:
        return f"{max(seconds, 0.0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds > 1e9:
        return "years"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
