"""Arithmetic of mapped steps: which items come next, which elements they get, when the step cannot succeed any more."""

from __future__ import annotations

import itertools
import math

from penstock_core import resolve, values
from penstock_core.facts import ErrorInfo
from penstock_core.ir import MAX_ITEMS, Fan, Node
from penstock_core.resolve import Unresolvable
from penstock_core.state import FanState, RunState, Status
from penstock_core.values import Value

CANCELLED = "Cancelled"
"""Type of the error of what was ended before it was over."""


def needed(spec: Fan | None, count: int) -> int:
    """How many of `count` items must succeed."""
    least = spec.min_success if spec is not None else None
    if least is None:
        return count
    if isinstance(least, float) and least <= 1:
        # What is a whole number but for rounding is that number: 0.7 of 10 is 7, though 0.7 * 10 is a little more.
        return math.ceil(least * count - 1e-9)
    return min(int(least), count)


def out_of_reach(spec: Fan | None, fan: FanState) -> bool:
    """Whether so many items ended badly that the step cannot succeed any more."""
    return fan.bad > fan.count - needed(spec, fan.count)


def wanted(spec: Fan | None, fan: FanState) -> int:
    """How many items are to be begun now: as many as the window has free places, but not one by one.

    Several together are cheaper to write, so a large window is filled up only when a quarter of it is free.
    """
    window = spec.window if spec is not None else 1
    left, free = fan.count - len(fan.items), window - fan.taken
    if free <= 0 or left <= 0 or free < min(max(1, window // 4), left):
        return 0
    return min(free, left)


def next_items(spec: Fan | None, fan: FanState) -> list[int]:
    """The items to be begun now, by index. Some of those after them may be there, taken over from another run."""
    open_ones = (index for index in range(fan.following, fan.count) if index not in fan.items)
    return list(itertools.islice(open_ones, wanted(spec, fan)))


def count(state: RunState, node: Node) -> int:
    """How many items a mapped step has.

    Raises:
        Unresolvable: what it is mapped over is no list, or the lists are of different lengths, or too long.
    """
    assert node.fan is not None  # noqa: S101 - asked by the caller
    lengths = {name: resolve.length(state, node.inputs[name]) for name in node.fan.over}
    if node.fan.mode == "grid":
        total = math.prod(lengths.values())
    elif len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise Unresolvable(f"the lists are of different lengths: {told}")
    else:
        total = next(iter(lengths.values()))
    if total > MAX_ITEMS:
        raise Unresolvable(f"there are {total} items; the limit is {MAX_ITEMS}")
    return total


def inputs(state: RunState, node: Node, index: int) -> dict[str, Value]:
    """The inputs of an item: its element of each list, and what all items share.

    Raises:
        Unresolvable: a part that is asked for is not there.
    """
    assert node.fan is not None  # noqa: S101 - asked by the caller
    places = _places(state, node, index)
    shared = {name: binding for name, binding in node.inputs.items() if name not in places}
    by_reference = resolve.weight(state, shared) > values.ITEM_LIMIT
    elements = {name: resolve.element(state, node.inputs[name], place) for name, place in places.items()}
    if sum(map(values.weight, elements.values())) > values.REQUEST_LIMIT - values.ITEM_LIMIT:
        elements = {
            name: resolve.element(state, node.inputs[name], place, by_reference=True) for name, place in places.items()
        }
    return {
        name: elements[name] if name in elements else resolve.resolve(state, binding, by_reference=by_reference)
        for name, binding in node.inputs.items()
    }


def _places(state: RunState, node: Node, index: int) -> dict[str, int]:
    assert node.fan is not None  # noqa: S101 - asked by the caller
    if node.fan.mode == "zip":
        return dict.fromkeys(node.fan.over, index)
    places: dict[str, int] = {}
    for name in reversed(node.fan.over):
        index, places[name] = divmod(index, resolve.length(state, node.inputs[name]))
    return places


def failure(spec: Fan | None, fan: FanState) -> tuple[ErrorInfo, str]:
    """What is said of a mapped step that failed: the error and the reason."""
    first = fan.items[fan.first_bad or 0]
    cause = f"{first.error.type}: {first.error.message}" if first.error else first.reason or "no error is known"
    must = "" if spec is None or spec.min_success is None else f", {needed(spec, fan.count)} must succeed"
    reason = f"{_told(fan)}{must}"
    kind = first.error.type if first.error else "ItemFailed"
    bases = first.error.bases if first.error else ()
    traceback = first.error.traceback if first.error else ""
    return ErrorInfo(
        type=kind, message=f"{reason}; the first, {first.key}: {cause}"[:2000], bases=bases, traceback=traceback
    ), reason


def _told(fan: FanState) -> str:
    """How many items ended badly, and how; those that were only fenced because of these are not counted."""
    failed = sum(item.status is Status.FAILED for item in fan.items.values())
    cancelled = sum(
        item.status is Status.CANCELLED and (item.attempt > 0 or item.stop is not None) for item in fan.items.values()
    )
    were = "was" if cancelled == 1 else "were"
    if failed:
        return f"{failed} of {fan.count} items failed" + (f" and {cancelled} {were} cancelled" if cancelled else "")
    return f"{cancelled} of {fan.count} items {were} cancelled" if cancelled else f"items of {fan.count} did not run"
