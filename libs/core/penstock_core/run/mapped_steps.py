"""Arithmetic of mapped steps: which items start next, which inputs they get, when the step can no longer succeed."""

from __future__ import annotations

import itertools
import math

from penstock_core.facts import ErrorInfo
from penstock_core.pipeline import values
from penstock_core.pipeline.ir import MAX_ITEMS, MapSpec, Node
from penstock_core.pipeline.values import Value
from penstock_core.run import value_resolution
from penstock_core.run.state import MappedState, RunState, Status
from penstock_core.run.value_resolution import UnresolvableBindingError

CANCELLED = "Cancelled"
"""Error type of steps and items that were cancelled."""


def needed(spec: MapSpec | None, count: int) -> int:
    """Return how many of `count` items must succeed."""
    least = spec.min_success if spec is not None else None
    if least is None:
        return count
    if isinstance(least, float) and least <= 1:
        # Undo rounding errors: 0.7 of 10 is 7, although 0.7 * 10 is slightly more.
        return math.ceil(least * count - 1e-9)
    return min(int(least), count)


def cannot_succeed(spec: MapSpec | None, mapped: MappedState) -> bool:
    """Whether so many items failed that the step can no longer succeed."""
    return mapped.bad > mapped.count - needed(spec, mapped.count)


def wanted(spec: MapSpec | None, mapped: MappedState) -> int:
    """Return how many items to start now.

    Several at once are cheaper to write, so a large window is refilled only when a quarter of it is free.
    """
    window = spec.window if spec is not None else 1
    left, free = mapped.count - len(mapped.items), window - mapped.taken
    if free <= 0 or left <= 0 or free < min(max(1, window // 4), left):
        return 0
    return min(free, left)


def next_items(spec: MapSpec | None, mapped: MappedState) -> list[int]:
    """Return the indexes of the items to start now. Items after them may exist already, reused from another run."""
    open_ones = (index for index in range(mapped.following, mapped.count) if index not in mapped.items)
    return list(itertools.islice(open_ones, wanted(spec, mapped)))


def count(state: RunState, node: Node) -> int:
    """Return how many items a mapped step has.

    Raises:
        UnresolvableBindingError: an input is not a list, or the lists have different lengths or too many items.
    """
    assert node.mapped is not None  # noqa: S101 - asked by the caller
    lengths = {name: value_resolution.length(state, node.inputs[name]) for name in node.mapped.over}
    if node.mapped.mode == "grid":
        total = math.prod(lengths.values())
    elif len(set(lengths.values())) > 1:
        lengths_text = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise UnresolvableBindingError(f"the lists have different lengths: {lengths_text}")
    else:
        total = next(iter(lengths.values()))
    if total > MAX_ITEMS:
        raise UnresolvableBindingError(f"there are {total} items; the limit is {MAX_ITEMS}")
    return total


class Inputs:
    """The inputs of the items of a mapped step: the elements of each list, and the inputs that all items share.

    Shared inputs are resolved once for all items that start together.
    """

    def __init__(self, state: RunState, node: Node) -> None:
        assert node.mapped is not None  # noqa: S101 - asked by the caller
        self._state, self._node, self._spec = state, node, node.mapped
        self._lists = {name: node.inputs[name] for name in node.mapped.over}
        self._shared: dict[str, Value] | None = None

    def of(self, index: int) -> dict[str, Value]:
        """Return the inputs of an item.

        Raises:
            UnresolvableBindingError: a value has no such part.
        """
        elements = self.elements(index)
        if self._shared is None:
            self._shared = self._resolved()
        shared = self._shared
        return {name: elements[name] if name in elements else shared[name] for name in self._node.inputs}

    def elements(self, index: int) -> dict[str, Value]:
        """Return the inputs of an item that are elements of the lists.

        Raises:
            UnresolvableBindingError: a list has no such element.
        """
        elements = self._elements(index)
        large = sum(map(values.weight, elements.values())) > values.REQUEST_LIMIT - values.ITEM_LIMIT
        return self._elements(index, by_reference=True) if large else elements

    def _elements(self, index: int, *, by_reference: bool = False) -> dict[str, Value]:
        places = self._places(index)
        return {
            name: value_resolution.element(self._state, binding, place, by_reference=by_reference)
            for (name, binding), place in zip(self._lists.items(), places, strict=True)
        }

    def _places(self, index: int) -> list[int]:
        if self._spec.mode == "zip":
            return [index] * len(self._lists)
        places: list[int] = []
        for binding in reversed(self._lists.values()):
            index, place = divmod(index, value_resolution.length(self._state, binding))
            places.append(place)
        return places[::-1]

    def _resolved(self) -> dict[str, Value]:
        shared = {name: binding for name, binding in self._node.inputs.items() if name not in self._lists}
        by_reference = value_resolution.weight(self._state, shared) > values.ITEM_LIMIT
        return {
            name: value_resolution.resolve(self._state, one, by_reference=by_reference) for name, one in shared.items()
        }


def failure(spec: MapSpec | None, mapped: MappedState) -> tuple[ErrorInfo, str]:
    """Return the error and the reason of a mapped step that failed."""
    first = mapped.items[mapped.first_failed or 0]
    cause = f"{first.error.type}: {first.error.message}" if first.error else first.reason or "unknown error"
    must = "" if spec is None or spec.min_success is None else f", {needed(spec, mapped.count)} must succeed"
    reason = f"{_told(mapped)}{must}"
    kind = first.error.type if first.error else "ItemFailed"
    bases = first.error.bases if first.error else ()
    traceback = first.error.traceback if first.error else ""
    return ErrorInfo(
        type=kind, message=f"{reason}; the first, {first.key}: {cause}"[:2000], bases=bases, traceback=traceback
    ), reason


def _told(mapped: MappedState) -> str:
    """Count the items that failed, without those that were fenced because of them."""
    failed = sum(item.status is Status.FAILED for item in mapped.items.values())
    cancelled = sum(
        item.status is Status.CANCELLED and (item.attempt > 0 or item.stop is not None)
        for item in mapped.items.values()
    )
    were = "was" if cancelled == 1 else "were"
    if failed:
        return f"{failed} of {mapped.count} items failed" + (f" and {cancelled} {were} cancelled" if cancelled else "")
    return (
        f"{cancelled} of {mapped.count} items {were} cancelled" if cancelled else f"items of {mapped.count} did not run"
    )
