"""What stands in the place of values while a pipeline is compiled.

A `Reference` is one value that the run will know: a parameter, or an output of a step. `Outputs` are the several
outputs of one step. They can be given to steps and nothing else: using them as plain values is an error that says so
at the user's own line, instead of a pipeline that silently does something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from penstock import frames
from penstock_core import values
from penstock_core.errors import DefinitionError

if TYPE_CHECKING:
    from penstock.authoring.tracing import Draft, Tracer

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
    """One value that the run will know."""

    __slots__ = ("_binding", "_draft", "_hint", "_tracer")

    def __init__(self, tracer: Tracer, binding: values.Binding, hint: Any, draft: Draft | None = None) -> None:
        self._tracer = tracer
        self._binding = binding
        self._hint = hint
        self._draft = draft

    def __repr__(self) -> str:
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
    """The outputs of a step that returns a NamedTuple: `parts.train`, or `train, test = split(table)`."""

    __slots__ = ("_draft", "_named", "_references", "_tracer")

    def __init__(self, tracer: Tracer, draft: Draft, references: dict[str, Reference], named: type) -> None:
        self._tracer = tracer
        self._draft = draft
        self._references = references
        self._named = named

    def __repr__(self) -> str:
        return f"the outputs ({', '.join(self._references)}) of step {self._draft.key!r}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if name in self._references:
            return self._references[name]
        raise DefinitionError(
            f"step {self._draft.key!r} has no output {name!r} (its outputs: {', '.join(self._references)})",
            *frames.caller(),
        )

    def __iter__(self) -> Iterator[Reference]:
        return iter(self._references.values())

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, key: int | str) -> Reference:
        if isinstance(key, int) and -len(self._references) <= key < len(self._references):
            return list(self._references.values())[key]
        return self.__getattr__(str(key))

    def after(self, *others: Any) -> Outputs:
        """Let this step start only when the steps of `others` have succeeded; returns the outputs themselves."""
        _after(self, others)
        return self


def parts(lazy: Reference | Outputs) -> tuple[Tracer, Draft | None]:
    """The compilation and the step that a reference belongs to; for this package only."""
    return lazy._tracer, lazy._draft  # pyright: ignore[reportPrivateUsage]


def target(reference: Reference) -> tuple[values.Binding, Any]:
    """The binding and the hint of a reference; for this package only."""
    return reference._binding, reference._hint  # pyright: ignore[reportPrivateUsage]


def whole(outputs: Outputs) -> tuple[dict[str, Reference], type]:
    """The references of a step's outputs and their NamedTuple class; for this package only."""
    return outputs._references, outputs._named  # pyright: ignore[reportPrivateUsage]


def _after(lazy: Reference | Outputs, others: tuple[Any, ...]) -> None:
    tracer, draft = parts(lazy)
    if draft is None:
        raise DefinitionError(f"{lazy!r} cannot come after anything: only steps can", *frames.caller())
    for other in others:
        if not isinstance(other, Reference | Outputs) or parts(other)[1] is None or parts(other)[0] is not tracer:
            raise DefinitionError(f".after() takes what steps of this pipeline return, not {other!r}", *frames.caller())
        earlier = parts(other)[1]
        if earlier is not None and earlier.key not in draft.after:
            draft.after.append(earlier.key)
