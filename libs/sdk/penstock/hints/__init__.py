"""Type hints: normal form, display, and parts.

`signature` reads the hints of functions, `value_check` checks values, `assignability` compares hints, `json_schema`
converts hints. A hint that is not understood counts as `Any`; none is rejected.
"""

from __future__ import annotations

import collections.abc
import sys
import types
import typing
from typing import Any

_NONE = type(None)
_UNKNOWN = frozenset({"Self", "Never", "NoReturn"})


def strip(hint: Any) -> Any:
    """The hint without `Annotated`, `NewType` and aliases; a type variable becomes its bound."""
    while True:
        if hint is None:
            return _NONE
        if hint is Any or hint is object or isinstance(hint, str | typing.ForwardRef | typing.ParamSpec):
            return Any
        if isinstance(hint, typing.TypeVar):
            hint = typing.Union[hint.__constraints__] if hint.__constraints__ else hint.__bound__ or Any  # noqa: UP007
        elif typing.get_origin(hint) in (typing.Annotated, typing.Final, typing.ClassVar):
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif hint is typing.LiteralString:
            return str
        else:
            return Any if getattr(hint, "_name", None) in _UNKNOWN else hint


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, each stripped; of any other hint itself."""
    hint = strip(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(inner for arg in typing.get_args(hint) for inner in members(arg))
    return (hint,)


def literals(hint: Any) -> tuple[Any, ...] | None:
    """The values of a `Literal`, or None when it is no literal."""
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else None


def class_of(hint: Any) -> type | None:
    """The class of values: `list` for `list[int]`; None where the hint names no class."""
    origin = typing.get_origin(hint) or hint
    return origin if isinstance(origin, type) else None


def item(hint: Any, index: int = 0) -> Any:
    """The hint of an item of a list, set or tuple; `Any` if the hint does not declare one."""
    hint = strip(hint)
    cls, args = class_of(hint), typing.get_args(hint)
    if cls is None or not args:
        return Any
    if issubclass(cls, tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return args[0]
        return args[index] if index < len(args) else Any
    if len(args) == 1 and issubclass(cls, collections.abc.Iterable) and _is_collection(cls):
        return args[0]
    return Any


def entry(hint: Any) -> tuple[Any, Any]:
    """The hints of a mapping's keys and values; `Any` if the hint does not declare one."""
    hint = strip(hint)
    cls, args = class_of(hint), typing.get_args(hint)
    if cls is not None and len(args) == 2 and issubclass(cls, collections.abc.Mapping):
        return args[0], args[1]
    return Any, Any


def _is_collection(cls: type) -> bool:
    """Whether the argument of a generic class is the type of its items: known for the standard library's only."""
    return cls.__module__ in ("builtins", "collections", "collections.abc", "typing")


def is_named_tuple(hint: Any) -> bool:
    """Whether the hint is a NamedTuple class."""
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def is_typed_dict(hint: Any) -> bool:
    """Whether the hint is a TypedDict class."""
    return isinstance(hint, type) and typing.is_typeddict(hint)


def is_pydantic(cls: Any) -> bool:
    """Whether a class is a pydantic model; where pydantic is not imported, there is none."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def typed_dict_fields(cls: Any) -> dict[str, Any]:
    """The hints of the keys of a TypedDict."""
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError, SyntaxError):
        return dict.fromkeys(sorted(cls.__required_keys__ | cls.__optional_keys__), Any)


def fields(named_tuple: Any) -> dict[str, Any]:
    """The hints of a NamedTuple's fields, in order."""
    try:
        found = typing.get_type_hints(named_tuple)
    except (NameError, TypeError, SyntaxError):
        found: dict[str, Any] = {}
    return {name: found.get(name, Any) for name in named_tuple._fields}


def show(hint: Any) -> str:
    """Return the hint as source code."""
    if hint is None or hint is _NONE:
        return "None"
    if hint is Ellipsis:
        return "..."
    if isinstance(hint, list | tuple):
        return f"[{', '.join(show(arg) for arg in typing.cast('list[Any]', hint))}]"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return show(args[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(show(arg) for arg in args)
    if origin is typing.Literal:
        return f"Literal[{', '.join(repr(arg) for arg in args)}]"
    if origin is not None and args:
        return f"{_name(origin)}[{', '.join(show(arg) for arg in args)}]"
    return _name(hint)


def _name(hint: Any) -> str:
    if isinstance(hint, str):
        return hint
    name = getattr(hint, "__qualname__", None) or getattr(hint, "__name__", None) or getattr(hint, "_name", None)
    # A class made inside a function has a long name; only its last part is informative.
    return str(name).rpartition("<locals>.")[2] if name else str(hint).replace("typing.", "")


def short_repr(value: object) -> str:
    """Return a short description of a value for error messages."""
    cls = type(value)
    if value is None:
        return "None"
    if isinstance(value, str | bytes | int | float | complex):
        text = repr(value)
        return f"{text if len(text) <= 60 else text[:57] + '...'} ({cls.__name__})"
    return f"a value of type {_name(cls)}" if cls.__name__ not in ("Reference", "Outputs") else repr(value)
