"""What a suspended step waits for, in words, from the event that tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from penstock_cli.runs import questions


def describe(data: Mapping[str, Any]) -> str:
    """A line on an `attempt.suspended` event."""
    inputs: Mapping[str, Any] = data.get("inputs") or {}
    match data.get("kind"):
        case "ask":
            choices = [str(choice) for choice in _list(inputs.get("choices"))]
            command = questions.command(str(data.get("run_id")), str(data.get("key")), choices)
            return f"asks: {_plain(inputs.get('question')) or '?'} ({', '.join(choices)}) — {command}"
        case "event":
            key = _plain(inputs.get("key"))
            about = f" with key {key!r}" if key is not None else ""
            return f"waits for an event {_plain(inputs.get('type'))!r}{about}"
        case "run":
            return f"waits for a run of pipeline {data.get('target')!r}"
        case kind:
            return f"waits ({kind})"


def _plain(value: Any) -> Any:
    return cast("dict[str, Any]", value).get("value") if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    match value:
        case {"value": [*choices]}:
            return choices
        case {"items": [*items]}:
            return [_plain(item) for item in items]
        case _:
            return []
