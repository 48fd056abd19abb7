"""The base of all placeholders: they refuse to be used as values.

Using a placeholder as a plain value raises an error with the user's line, instead of compiling a pipeline that silently
does something else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn

from penstock import tracebacks
from penstock_core.errors import DefinitionError

_CALCULATION = "calculated with"
_LOOP = "walked through or measured"
_TEXT = "converted to text"
_CALL = "called"
_NUMBER = "turned into a number"
_CHANGE = "changed"

# What each operator does to a reference, in words.
_TRAPS: dict[str, str] = {
    **dict.fromkeys(["eq", "ne", "lt", "le", "gt", "ge"], "compared"),
    **dict.fromkeys(["neg", "pos", "abs", "invert", "contains"], _CALCULATION),
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

_CHOICE = (
    "For steps that depend on it, use 'with when(...):' instead of 'if'; and & | ~ with parentheses, as in "
    "(a > 1) & (b < 2), instead of 'and', 'or', 'not', 1 < a < 2"
)


is_compiling: ContextVar[bool] = ContextVar("penstock_is_compiling", default=False)
"""Whether the body of a pipeline is running."""


class Placeholder:
    """A placeholder for a value that is known when the run executes."""

    __slots__ = ()

    def _describe(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        if is_compiling.get() and tracebacks.called_by_user():
            refuse(self, _TEXT)
        return self._describe()

    def __hash__(self) -> int:
        if is_compiling.get() and tracebacks.called_by_user():
            refuse(self, "a key of a dictionary, or an element of a set")
        return id(self)

    @property
    def __class__(self) -> type:
        # `isinstance` reads it where the type does not fit, and `case float():` does.
        if is_compiling.get() and tracebacks.called_by_user():
            refuse(self, "tested for its type")
        return type(self)

    @__class__.setter
    def __class__(self, value: type) -> None:
        refuse(self, _CHANGE)

    def __bool__(self) -> bool:
        raise DefinitionError(
            f"{self!r} has no value yet while the pipeline is compiled, so Python cannot evaluate it as true or "
            f"false here. {_CHOICE}",
            *tracebacks.caller(),
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            # Python and libraries ask for these to find out what an object can do.
            raise AttributeError(name)
        refuse(self, f"accessed by attribute {name!r}")


def refuse(placeholder: object, used: str) -> NoReturn:
    """Raise the error for a placeholder that is used as a value.

    Raises:
        DefinitionError: always, at the user's line.
    """
    raise DefinitionError(
        f"{placeholder!r} has no value yet while the pipeline is compiled, so it cannot be {used} here. "
        "Pass it to a step, and do this inside the step",
        *tracebacks.caller(),
    )


def _trap(used: str) -> Callable[..., NoReturn]:
    def trap(self: object, *_: object, **__: object) -> NoReturn:
        refuse(self, used)

    return trap


for _name, _used in _TRAPS.items():
    setattr(Placeholder, f"__{_name}__", _trap(_used))
