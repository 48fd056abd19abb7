"""What stands in the place of values while a pipeline is compiled.

A `Reference` is one value that the run will know: a parameter, or an output of a step. `Outputs` are the several
outputs of one step, or of one call of a pipeline. They can be given to steps and pipelines and nothing else: using
them as plain values is an error that says so at the user's own line, instead of a pipeline that silently does
something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, cast, overload

from penstock import frames
from penstock.authoring.drafts import Draft, Group
from penstock_core import values
from penstock_core.errors import DefinitionError

if TYPE_CHECKING:
    from penstock.authoring.tracing import Tracer

_CONDITION = "used as a condition"
_CALCULATION = "calculated or compared with"
_LOOP = "walked through or measured"
_TEXT = "turned into text"
_CALL = "called"
_NUMBER = "turned into a number"
_CHANGE = "changed"

# What each operator does to a reference, in words.
_TRAPS: dict[str, str] = {
    **dict.fromkeys(["bool"], _CONDITION),
    **dict.fromkeys(["eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert", "contains"], _CALCULATION),
    **dict.fromkeys(
        [
            side + operator
            for side in ("", "r", "i")
            for operator in (
                *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"),
                *("and", "or", "xor", "lshift", "rshift"),
            )
        ]
        + ["divmod", "rdivmod", "round", "trunc", "floor", "ceil"],
        _CALCULATION,
    ),
    **dict.fromkeys(["iter", "len", "getitem", "reversed", "next", "aiter"], _LOOP),
    **dict.fromkeys(["str", "format", "bytes", "fspath"], _TEXT),
    **dict.fromkeys(["int", "float", "complex", "index", "array"], _NUMBER),
    **dict.fromkeys(["call", "enter", "aenter", "await"], _CALL),
    **dict.fromkeys(["setitem", "delitem"], _CHANGE),
}


class _Lazy:
    """What references have in common: they refuse to be values."""

    __slots__ = ()

    def __hash__(self) -> int:
        return id(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            # Python and libraries ask for these to find out what an object can do.
            raise AttributeError(name)
        _refuse(self, f"asked for its attribute {name!r}")


def _refuse(lazy: object, used: str) -> NoReturn:
    raise DefinitionError(
        f"{lazy!r} has no value yet while the pipeline is compiled, so it cannot be {used} here. "
        "Give it to a step, and do this inside the step",
        *frames.caller(),
    )


def _trap(used: str) -> Callable[..., NoReturn]:
    def refuse(self: object, *_: object, **__: object) -> NoReturn:
        _refuse(self, used)

    return refuse


for _name, _used in _TRAPS.items():
    setattr(_Lazy, f"__{_name}__", _trap(_used))


class Reference(_Lazy):
    """One value that the run will know. `text` says what it is where its binding does not say it."""

    __slots__ = ("_binding", "_hint", "_owner", "_text", "_tracer")

    def __init__(
        self, tracer: Tracer, binding: values.Binding, hint: Any, owner: Draft | Group | None = None, text: str = ""
    ) -> None:
        self._tracer = tracer
        self._binding = binding
        self._hint = hint
        self._owner = owner
        self._text = text

    def __repr__(self) -> str:
        if self._text:
            return self._text
        match self._binding:
            case values.Param(name):
                return f"parameter {name!r}"
            case values.Output(node, "result"):
                return f"the result of step {node!r}"
            case values.Output(node, output):
                return f"output {output!r} of step {node!r}"
            case _:
                return "a reference"

    def after(self, *others: Any) -> Reference:
        """Let this step start only when the steps of `others` have succeeded; returns the reference itself."""
        _after(self, others)
        return self


class Outputs(_Lazy):
    """The outputs of a step that returns a NamedTuple: `parts.train`, or `train, test = split(table)`.

    What a call of a pipeline returned may hold further `Outputs` and collections in the place of references.
    """

    __slots__ = ("_named", "_owner", "_references", "_tracer")

    def __init__(self, tracer: Tracer, owner: Draft | Group, references: dict[str, Any], named: type) -> None:
        self._tracer = tracer
        self._owner = owner
        self._references = references
        self._named = named

    def __repr__(self) -> str:
        return f"the outputs ({', '.join(self._references)}) of {self._owner.what}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if name in self._references:
            return self._references[name]
        raise DefinitionError(
            f"{self._owner.what} has no output {name!r} (its outputs: {', '.join(self._references)})",
            *frames.caller(),
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._references.values())

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, int) and -len(self._references) <= key < len(self._references):
            return list(self._references.values())[key]
        return self.__getattr__(str(key))

    def after(self, *others: Any) -> Outputs:
        """Let this step start only when the steps of `others` have succeeded; returns the outputs themselves."""
        _after(self, others)
        return self


class _Whole:
    """A collection of references that a call of a pipeline returned; it is the plain one, and can come `.after`."""

    _tracer: Tracer
    _owner: Draft | Group

    def of(self, tracer: Tracer, owner: Draft | Group) -> Any:
        """Say which call returned it; returns itself."""
        self._tracer, self._owner = tracer, owner
        return self

    def after(self, *others: Any) -> Any:
        """Let the steps of this pipeline start only when those of `others` have succeeded; returns itself."""
        _after(cast("Any", self), others)
        return self


class OutputList(_Whole, list[Any]):
    """A list that a call of a pipeline returned."""


class OutputTuple(_Whole, tuple[Any, ...]):
    """A tuple that a call of a pipeline returned."""


class OutputDict(_Whole, dict[str, Any]):
    """A dictionary that a call of a pipeline returned; its entries are attributes too: `found.model`."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name.startswith("_"):
            raise AttributeError(name)
        _unknown(self, name)

    def __missing__(self, name: object) -> NoReturn:
        _unknown(self, name)


def _unknown(outputs: OutputDict, name: object) -> NoReturn:
    raise DefinitionError(
        f"{parts(outputs)[1].what} has no output {name!r} (its outputs: {', '.join(outputs)})", *frames.caller()
    )


@overload
def parts(lazy: Reference) -> tuple[Tracer, Draft | Group | None]: ...


@overload
def parts(lazy: Outputs | _Whole) -> tuple[Tracer, Draft | Group]: ...


def parts(lazy: Reference | Outputs | _Whole) -> tuple[Tracer, Draft | Group | None]:
    """The compilation and the call that a reference belongs to; for this package only."""
    return lazy._tracer, lazy._owner  # pyright: ignore[reportPrivateUsage]


def target(reference: Reference) -> tuple[values.Binding, Any]:
    """The binding and the hint of a reference; for this package only."""
    return reference._binding, reference._hint  # pyright: ignore[reportPrivateUsage]


def whole(outputs: Outputs) -> tuple[dict[str, Any], type]:
    """The references of a step's outputs and their NamedTuple class; for this package only."""
    return outputs._references, outputs._named  # pyright: ignore[reportPrivateUsage]


def _after(lazy: Reference | Outputs | _Whole, others: tuple[Any, ...]) -> None:
    tracer, owner = parts(lazy)
    if owner is None:
        raise DefinitionError(f"{lazy!r} cannot come after anything: only steps can", *frames.caller())
    earlier: dict[str, None] = {}
    for other in others:
        if not isinstance(other, Reference | Outputs | _Whole):
            _not_a_step(other)
        other_tracer, before = parts(other)
        if before is None or other_tracer is not tracer:
            _not_a_step(other)
        earlier.update((draft.key, None) for draft in _some(before, before.lasts()))
    for draft in _some(owner, owner.firsts()) if others else ():
        draft.after.extend(key for key in earlier if key not in draft.after)


def _not_a_step(other: object) -> NoReturn:
    raise DefinitionError(f".after() takes what steps of this pipeline return, not {other!r}", *frames.caller())


def _some(owner: Draft | Group, found: list[Draft]) -> list[Draft]:
    """An order that would hold back nothing, or wait for nothing, is a mistake of the user's."""
    if isinstance(owner, Group) and not owner.drafts:
        raise DefinitionError(f"{owner.what} calls no step, so there is nothing to run in order", *frames.caller())
    return found
