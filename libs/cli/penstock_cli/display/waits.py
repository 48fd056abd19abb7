"""What suspended steps wait for, and open questions with the commands that answer them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.questions import Question
    from penstock_cli.display.output import Segments


def questions(found: Iterable[Question]) -> Iterable[Segments]:
    """Yield open questions, each with the command that answers it."""
    for one in found:
        until = f", until {output.clock(one.until)}" if one.until else ""
        default = f", then {one.default!r}" if one.default is not None and one.until else ""
        yield [("? ", "yellow"), (one.question, "bold"), (f"  ({', '.join(one.choices)}){until}{default}", "")]
        yield [(f"  {answer_command(one.run_id, one.step, one.choices)}", "dim")]


def answer_command(run_id: str, step: str, choices: Sequence[str]) -> str:
    """Return the command that answers a question."""
    shown = "|".join(shlex.quote(choice) for choice in choices) or "CHOICE"
    return f"penstock questions answer {run_id} {shlex.quote(step)} {shown}"


def describe(data: Mapping[str, Any]) -> str:
    """Describe what a step waits for, from its `attempt.suspended` event."""
    inputs: Mapping[str, Any] = data.get("inputs") or {}
    match data.get("kind"):
        case "ask":
            choices = [str(choice) for choice in _list(inputs.get("choices"))]
            command = answer_command(str(data.get("run_id")), str(data.get("key")), choices)
            return f"asks: {_plain(inputs.get('question')) or '?'} ({', '.join(choices)}) — {command}"
        case "event":
            key = _plain(inputs.get("key"))
            suffix = f" with key {key!r}" if key is not None else ""
            return f"waits for event {_plain(inputs.get('type'))!r}{suffix}"
        case "run":
            return f"waits for a child run of pipeline {data.get('target')!r}"
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
