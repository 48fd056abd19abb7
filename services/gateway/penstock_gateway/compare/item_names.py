"""Names of the items of mapped steps that are the same in all runs: by their inputs, not by their indexes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import orjson

from penstock_core.pipeline import tagged
from penstock_core.pipeline.values import Fields, Inline, Items, Stored, Value
from penstock_core.run.machine import RunState, StepState
from penstock_core.run.step_inputs import ItemInputs

_LONG = 40
"""Longest text of an input in a name, in characters; longer ones are cut, with a digest."""


def named_steps(state: RunState, most: int) -> Iterator[tuple[str, StepState]]:
    """Yield all steps by key, and the first items of mapped steps by names such as `train[depth=3]`.

    An item whose inputs are read from an artifact has its key as name, such as `train[2]`. Of items with equal inputs,
    the second is `train[depth=3] #2`.

    Args:
        state: of the run.
        most: largest number of items of one step.
    """
    for step in state.steps.values():
        yield step.key, step
        if step.mapped is None or state.plan.nodes[step.key].mapped is None:
            continue
        inputs = ItemInputs(state, step.key)
        seen: dict[str, int] = {}
        for index in sorted(step.mapped.items)[:most]:
            item = step.mapped.items[index]
            name = _name(step.key, inputs.of(index)) or item.key
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name} #{seen[name]}"), item


def _name(key: str, inputs: dict[str, Value]) -> str | None:
    texts = {name: _text(value) for name, value in inputs.items()}
    if not texts or None in texts.values():
        return None
    return f"{key}[{', '.join(f'{name}={text}' for name, text in texts.items())}]"


def _text(value: Value) -> str | None:
    """Return a short text that is equal for equal values; None for values that are not known here."""
    match value:
        case Inline(data):
            try:
                return _short(orjson.dumps(tagged.plain(data), default=str, option=orjson.OPT_SORT_KEYS).decode())
            except TypeError:  # an integer beyond 64 bits
                return _short(repr(data))
        case Stored(artifact):
            return artifact.sha256[:12]
        case Items(items):
            return _joined([_text(item) for item in items], "[]")
        case Fields(fields):
            texts = [(name, _text(item)) for name, item in sorted(fields.items())]
            return _joined([None if text is None else f"{name}: {text}" for name, text in texts], "{}")
        case _:
            return None


def _joined(texts: list[str | None], brackets: str) -> str | None:
    known = [text for text in texts if text is not None]
    return _short(brackets[0] + ", ".join(known) + brackets[1]) if len(known) == len(texts) else None


def _short(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return text if len(text) <= _LONG else f"{text[:_LONG]}… {digest}"
