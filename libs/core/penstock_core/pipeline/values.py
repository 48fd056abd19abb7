"""How values are represented: in the IR as bindings (where an input comes from), in facts as values (what it is).

In JSON each is an object, distinguished by its keys: `{"value": 3}`, `{"artifact": {…}}`, `{"param": "url"}`,
`{"node": "split", "output": "train"}`, `{"items": […]}`, `{"fields": {…}}`, `{"result": {…}}`, `{"collected": {…}}`,
`{"lists": […]}`, `{"of": …, "path": ["auc"]}`, `{"one_of": […]}`, `{"ending": "error"}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias, Union

from penstock_core.frozen import frozen

INLINE_LIMIT = 64 * 1024
"""Largest JSON text, in bytes, of an inline value in a fact. Larger values are artifacts."""

ITEM_LIMIT = 4 * 1024
"""Largest weight of the inputs of one item of a mapped step in its request; large shared inputs are references."""

REQUEST_LIMIT = 512 * 1024
"""Largest weight of all inputs of one attempt in its request; beyond it, results are references."""


@frozen(kw_only=True)
class ArtifactRef:
    """An immutable object in the artifact store, identified by the SHA-256 of its bytes.

    `format` is the serializer that wrote it (`json`, `parquet`, `npy`, `pickle`, `file`, `folder`, `bytes`, …).
    `unsafe` marks formats whose loading can run code: no service ever loads one. `items` is the number of elements if
    the object is a list to map over. The object of a folder is its manifest, and `total` the bytes of all its files.
    `project_types` marks artifacts whose loading imports modules of the project by name, because they contain objects
    of its classes.
    """

    sha256: str
    size: int
    media_type: str
    format: str
    python_type: str = ""
    filename: str = ""
    unsafe: bool = False
    items: int | None = None
    total: int = 0
    project_types: bool = False


@frozen(kw_only=True)
class ResultRef:
    """A result of an attempt, to be read from the log of the same run, or of `run_id`."""

    key: str
    attempt: int
    output: str
    run_id: str = ""


@frozen(kw_only=True)
class CollectedRef:
    """An output of all `count` items of a mapped step, in order, to be read from the log; see `ResultRef`.

    The result of an item is that of its successful attempt; None without one.
    """

    key: str
    count: int
    output: str
    run_id: str = ""


@frozen()
class Inline:
    """A JSON value."""

    value: Any


@frozen()
class Stored:
    """A value stored as an artifact."""

    artifact: ArtifactRef


@frozen()
class ResultOf:
    """A value to be read from the log: for inputs too many or too large for a request."""

    result: ResultRef


@frozen()
class Collected:
    """The list of the results of a mapped step, to be read from the log."""

    collected: CollectedRef


@frozen()
class Element:
    """A part of a value that only its reader loads: `path` holds indexes of lists and keys of dictionaries."""

    of: Value
    path: tuple[int | str, ...]


@frozen()
class Items:
    """A list of values."""

    items: tuple[Value, ...]


@frozen()
class Lists:
    """A list that consists of lists, one after the other, at least one of which only its reader loads."""

    lists: tuple[Value, ...]


@frozen()
class Fields:
    """A dictionary of values."""

    fields: dict[str, Value]


@frozen()
class Param:
    """Bound to a parameter of the pipeline."""

    param: str


@frozen()
class Output:
    """Bound to an output of a node."""

    node: str
    output: str = "result"


@frozen()
class BoundItems:
    """A list of bindings."""

    items: tuple[Binding, ...]


@frozen()
class BoundLists:
    """A list that consists of lists, whose lengths need not be known: `[*scores, 1.0]`, `scores + others`."""

    lists: tuple[Binding, ...]


@frozen()
class BoundFields:
    """A dictionary of bindings."""

    fields: dict[str, Binding]


@frozen()
class Pick:
    """Bound to a part of another binding's value: see `Element`."""

    of: Binding
    path: tuple[int | str, ...]


@frozen()
class OneOf:
    """Bound to the first of several bindings whose steps all have results."""

    one_of: tuple[Binding, ...]


@frozen()
class Ending:
    """Bound to the `outcome` of the run's main phase, or to its `error`; for steps that run at the end."""

    ending: str


# `Union` with names in quotes, because the aliases are recursive through the classes above.
Value: TypeAlias = Union[Inline, Stored, ResultOf, Collected, Element, Items, Lists, Fields]  # noqa: UP007
Binding: TypeAlias = Union[Inline, Param, Output, Pick, OneOf, Ending, BoundItems, BoundLists, BoundFields]  # noqa: UP007


def parts(binding: Binding) -> tuple[Binding, ...]:
    """Return the direct parts of a binding."""
    match binding:
        case BoundItems(several) | BoundLists(several) | OneOf(several):
            return several
        case BoundFields(fields):
            return tuple(fields.values())
        case Pick(of):
            return (of,)
        case _:
            return ()


def sources(binding: Binding) -> Iterator[Output]:
    """Return the outputs of nodes that a binding reads, in order."""
    if isinstance(binding, Output):
        yield binding
    for part in parts(binding):
        yield from sources(part)


def params(binding: Binding) -> Iterator[str]:
    """Return the pipeline parameters that a binding reads, in order."""
    if isinstance(binding, Param):
        yield binding.param
    for part in parts(binding):
        yield from params(part)


def components(value: Value) -> tuple[Value, ...]:
    """Return the direct parts of a value."""
    match value:
        case Items(several) | Lists(several):
            return several
        case Fields(fields):
            return tuple(fields.values())
        case Element(of):
            return (of,)
        case _:
            return ()


def with_run_id(value: Value, run_id: str) -> Value:
    """Return the value for another run's log: its references to the log get the id of their run."""
    match value:
        case ResultOf(ref):
            return value if ref.run_id else ResultOf(replace(ref, run_id=run_id))
        case Collected(ref):
            return value if ref.run_id else Collected(replace(ref, run_id=run_id))
        case Element(of, path):
            return Element(with_run_id(of, run_id), path)
        case Items(items):
            return Items(tuple(with_run_id(item, run_id) for item in items))
        case Lists(lists):
            return Lists(tuple(with_run_id(one, run_id) for one in lists))
        case Fields(fields):
            return Fields({name: with_run_id(item, run_id) for name, item in fields.items()})
        case _:
            return value


def references(value: Value) -> Iterator[ArtifactRef]:
    """Return the artifacts in a value. Those behind references to the log are not included."""
    if isinstance(value, Stored):
        yield value.artifact
    for part in components(value):
        yield from references(part)


def artifacts(value: Value) -> Iterator[str]:
    """Return the digests of the artifacts in a value; those of a folder's files are in its manifest."""
    return (reference.sha256 for reference in references(value))


def weight(value: Value) -> int:
    """Return an upper estimate of the length of `value` as JSON text, in characters."""
    match value:
        case Inline(inline):
            return 16 + json_weight(inline)
        case Stored(ref):
            return 300 + len(ref.media_type) + len(ref.format) + len(ref.python_type) + json_weight(ref.filename)
        case Items(several) | Lists(several):
            return 16 + sum(weight(item) for item in several)
        case Fields(fields):
            return 16 + sum(len(name) + 8 + weight(item) for name, item in fields.items())
        case ResultOf(ref) | Collected(ref):
            return 120 + len(ref.key) + len(ref.output) + len(ref.run_id)
        case Element(of, path):
            return 24 + weight(of) + json_weight(path)


def json_weight(value: Any) -> int:
    """Return an upper estimate of the length of plain JSON data as text, in characters."""
    if isinstance(value, int):
        return max(24, value.bit_length() // 3 + 2)
    if value is None or isinstance(value, float):
        return 24
    total, left = 0, [value]
    while left:  # a loop instead of recursion: user data may be nested deeply
        part = left.pop()
        if isinstance(part, str):
            # A control character is written as `\u0000`, a quote or a backslash with one more.
            total += len(part) * (2 if part.isprintable() else 6) + 2
        elif isinstance(part, dict):
            total += 2 + 2 * len(part)
            left += part.keys()
            left += part.values()
        elif isinstance(part, list | tuple):
            total += 2 + len(part)
            left += part
        elif isinstance(part, int):
            total += max(24, part.bit_length() // 3 + 2)
        else:
            total += 24
    return total
