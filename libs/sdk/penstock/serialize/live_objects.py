"""Live objects as values of a run in one process.

The state machine takes a value's small parts from the value itself, so plain data is there as on the platform; whatever
has no plain form is an artifact that only this table opens. Steps get the very objects that others returned: a value
stays the same object all the way through the state machine, and so names the object that it was made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, cast

from penstock import codec, hints
from penstock.serialize import loader
from penstock_core.pipeline import values
from penstock_core.pipeline.values import (
    ArtifactRef,
    Collected,
    Element,
    Fields,
    Inline,
    Items,
    Lists,
    ResultOf,
    Stored,
    Value,
)

_LEVELS = 64
_SCALARS = (bool, int, float, str, type(None))


class LiveObjects:
    """The table of objects.

    Args:
        results: gives the result of a step or of an item by key and output, for values that name one.
    """

    def __init__(self, results: Callable[[str, str], Value]) -> None:
        self._results = results
        self._objects: dict[int, tuple[Value, Any]] = {}
        self._count = 0

    def value(self, live: Any, levels: int = _LEVELS) -> Value:
        """Return a value that refers to an object, whose parts are values down to a number of levels."""
        if type(live) in _SCALARS:
            return Inline(codec.encode(live))
        return self.keep(self._made(live, levels) if levels else self._opaque(live), live)

    def keep(self, value: Value, live: Any) -> Value:
        """Have a value refer to an object from now on; returns the value."""
        self._objects[id(value)] = (value, live)
        return value

    def knows(self, value: Value) -> bool:
        """Whether a value refers to an object."""
        return id(value) in self._objects

    def _made(self, live: Any, levels: int) -> Value:
        if type(live) is list:
            return Items(tuple(self.value(entry, levels - 1) for entry in cast("list[Any]", live)))
        if type(live) is dict and all(type(key) is str for key in cast("dict[Any, Any]", live)):
            return Fields({key: self.value(entry, levels - 1) for key, entry in cast("dict[str, Any]", live).items()})
        try:
            return Inline(codec.encode(live, paths=False))
        except codec.NotJsonError:
            return self._opaque(live)

    def _opaque(self, live: Any) -> Value:
        self._count += 1
        kind = type(live)
        digest = hashlib.sha256(str(self._count).encode()).hexdigest()
        name = f"{kind.__module__}:{kind.__qualname__}"
        return Stored(ArtifactRef(sha256=digest, size=0, media_type="", format="live", python_type=name))

    def load(self, value: Value, hint: Any) -> Any:
        """Return the object of a value, or decode a value that the state machine or the compiler made."""
        known = self._objects.get(id(value))
        if known is not None:
            return known[1]
        match value:
            case Inline(data):
                return codec.decode(data, hint)
            case Items(items):
                return loader.gather([self.load(one, hints.item(hint, i)) for i, one in enumerate(items)], hint)
            case Lists(lists):
                found = [entry for one in lists for entry in self.load(one, list[hints.item(hint)])]
                return loader.gather(found, hint)
            case Fields(fields):
                inner = hints.entry(hint)[1]
                return loader.spread({name: self.load(one, inner) for name, one in fields.items()}, hint)
            case ResultOf(ref):
                return self.load(self._results(ref.key, ref.output), hint)
            case Collected(ref):
                found = [self._results(f"{ref.key}[{index}]", ref.output) for index in range(ref.count)]
                return self.load(Items(tuple(found)), hint)
            case Element(of, path):
                return _part(self.load(of, Any), path)
            case Stored():
                raise LookupError("an artifact of another run")


def _part(live: Any, path: tuple[int | str, ...]) -> Any:
    for step in path:
        live = getattr(live, step) if isinstance(step, str) and not isinstance(live, dict) else live[step]
    return live


NOTHING = values.Inline(None)
"""The value of a result that does not exist."""
