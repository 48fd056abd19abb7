"""How values travel, in the IR (bindings: where an input comes from) and in facts (values: what it is).

As JSON each is an object told apart by its keys: `{"value": 3}`, `{"artifact": {…}}`, `{"param": "url"}`,
`{"node": "split", "output": "train"}`, `{"items": […]}`, `{"fields": {…}}`, `{"result": {…}}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

INLINE_LIMIT = 64 * 1024
"""Largest JSON text, in bytes, of a value that travels in a fact. Larger ones are artifacts."""

REQUEST_LIMIT = 512 * 1024
"""Largest weight of all inputs of one attempt in its request; beyond it, results are named by reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """An immutable object in the artifact store, named by the SHA-256 of its bytes.

    `format` names the serializer that wrote it (`json`, `parquet`, `npy`, `pickle`, `file`, `folder`, `bytes`, …).
    `unsafe` marks formats whose loading can run code: no service ever loads one.
    """

    sha256: str
    size: int
    media_type: str
    format: str
    python_type: str = ""
    filename: str = ""
    unsafe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRef:
    """A result of an attempt of the same run, to be read from the run's log."""

    key: str
    attempt: int
    output: str


@dataclass(frozen=True, slots=True)
class Inline:
    """A JSON value as it stands."""

    value: Any


@dataclass(frozen=True, slots=True)
class Stored:
    """A value kept as an artifact."""

    artifact: ArtifactRef


@dataclass(frozen=True, slots=True)
class Earlier:
    """A value to be read from the log: for inputs too many or too large to travel in a request."""

    result: ResultRef


@dataclass(frozen=True, slots=True)
class Items:
    """A list of values."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """A dictionary of values."""

    fields: dict[str, Value]


@dataclass(frozen=True, slots=True)
class Param:
    """Bound to a parameter of the pipeline."""

    param: str


@dataclass(frozen=True, slots=True)
class Output:
    """Bound to an output of a node."""

    node: str
    output: str = "result"


@dataclass(frozen=True, slots=True)
class BoundItems:
    """A list of bindings."""

    items: tuple[Binding, ...]


@dataclass(frozen=True, slots=True)
class BoundFields:
    """A dictionary of bindings."""

    fields: dict[str, Binding]


# `Union` with names in quotes, because the aliases are recursive through the classes above.
Value: TypeAlias = Union[Inline, Stored, Earlier, Items, Fields]  # noqa: UP007
Binding: TypeAlias = Union[Inline, Param, Output, BoundItems, BoundFields]  # noqa: UP007


def sources(binding: Binding) -> Iterator[Output]:
    """The outputs of nodes that a binding reads, in order."""
    match binding:
        case Output():
            yield binding
        case BoundItems(items):
            for item in items:
                yield from sources(item)
        case BoundFields(fields):
            for item in fields.values():
                yield from sources(item)
        case _:
            return


def params(binding: Binding) -> Iterator[str]:
    """The pipeline parameters that a binding reads, in order."""
    match binding:
        case Param(name):
            yield name
        case BoundItems(items):
            for item in items:
                yield from params(item)
        case BoundFields(fields):
            for item in fields.values():
                yield from params(item)
        case _:
            return


def weight(value: Value) -> int:
    """An upper estimate of the length of `value` as JSON text, in characters."""
    match value:
        case Inline(inline):
            return 16 + json_weight(inline)
        case Stored(ref):
            return 300 + len(ref.media_type) + len(ref.format) + len(ref.python_type) + json_weight(ref.filename)
        case Items(items):
            return 16 + sum(weight(item) for item in items)
        case Fields(fields):
            return 16 + sum(len(name) + 8 + weight(item) for name, item in fields.items())
        case Earlier(result):
            return 80 + len(result.key) + len(result.output)


def json_weight(value: Any) -> int:
    """An upper estimate of the length of plain JSON data as text, in characters."""
    if isinstance(value, str):
        # A control character is written as `\u0000`, a quote or a backslash with one more.
        return len(value) * (2 if value.isprintable() else 6) + 2
    if isinstance(value, dict):
        return 2 + sum(json_weight(k) + json_weight(v) + 2 for k, v in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(json_weight(v) + 1 for v in value)
    if isinstance(value, int):
        return max(24, value.bit_length() // 3 + 2)
    return 24
