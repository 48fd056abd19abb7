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


class Inputs:
    """The inputs of the items of a mapped step: of each list its element, and what all items share.

    What is shared is worked out once, for as many items as are begun together. Raises what `of` raises when it is used.
    """

    def __init__(self, state: RunState, node: Node) -> None:
        assert node.fan is not None  # noqa: S101 - asked by the caller
        self._state, self._node, self._fan = state, node, node.fan
        self._lists = {name: node.inputs[name] for name in node.fan.over}
        self._shared: dict[str, Value] | None = None

    def of(self, index: int) -> dict[str, Value]:
        """The inputs of an item.

        Raises:
            Unresolvable: a part that is asked for is not there.
        """
        elements = self._elements(index)
        if sum(map(values.weight, elements.values())) > values.REQUEST_LIMIT - values.ITEM_LIMIT:
            elements = self._elements(index, by_reference=True)
        if self._shared is None:
            self._shared = self._resolved()
        shared = self._shared
        return {name: elements[name] if name in elements else shared[name] for name in self._node.inputs}

    def _elements(self, index: int, *, by_reference: bool = False) -> dict[str, Value]:
        places = self._places(index)
        return {
            name: resolve.element(self._state, binding, place, by_reference=by_reference)
            for (name, binding), place in zip(self._lists.items(), places, strict=True)
        }

    def _places(self, index: int) -> list[int]:
        if self._fan.mode == "zip":
            return [index] * len(self._lists)
        places: list[int] = []
        for binding in reversed(self._lists.values()):
            index, place = divmod(index, resolve.length(self._state, binding))
            places.append(place)
        return places[::-1]

    def _resolved(self) -> dict[str, Value]:
        shared = {name: binding for name, binding in self._node.inputs.items() if name not in self._lists}
        by_reference = resolve.weight(self._state, shared) > values.ITEM_LIMIT
        return {name: resolve.resolve(self._state, one, by_reference=by_reference) for name, one in shared.items()}


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
