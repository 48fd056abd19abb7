"""The fields and items of small results, as far as type hints show: `best.accuracy`, `metrics["auc"]`, `scores[0]`."""

from __future__ import annotations

import collections.abc
import dataclasses
import sys
import typing
from typing import Any

from penstock import hints


class NoFieldError(LookupError):
    """A type hint has no such field or item. The message lists those that exist, and is empty if there are none."""


def part(hint: Any, name: int | str, *, attribute: bool) -> Any:
    """The hint of a field or item of values of `hint`; None in a union is passed over.

    Args:
        hint: of the whole.
        name: of the field or key, or the index.
        attribute: whether it is accessed as `value.name`, which dictionaries and lists do not have.

    Raises:
        NoFieldError: there is no such field, or the values have no fields that the platform can read.
    """
    found: list[Any] = []
    why = ""
    for option in hints.members(hint):
        if option is type(None):
            continue
        try:
            found.append(_part(option, name, attribute=attribute))
        except NoFieldError as error:
            why = str(error)
    if not found:
        raise NoFieldError(why)
    return typing.Union[tuple(found)] if len(found) > 1 and Any not in found else found[0]  # noqa: UP007 - made here


def _part(hint: Any, name: int | str, *, attribute: bool) -> Any:
    cls = hints.class_of(hint)
    if hint is Any or cls is None:
        return Any
    known = fields(cls)
    if known is not None:
        if attribute and hints.is_typed_dict(cls):
            raise NoFieldError(f"is a dictionary: use [{name!r}]")
        if isinstance(name, int) and hints.is_named_tuple(cls) and 0 <= name < len(known):
            return list(known.values())[name]
        if name not in known:
            raise NoFieldError(f"has no field {name!r} (its fields: {', '.join(known) or 'none'})")
        return known[str(name)]
    if issubclass(cls, collections.abc.Mapping):
        if attribute:
            raise NoFieldError(f"is a dictionary: use [{name!r}]")
        if isinstance(name, int):
            raise NoFieldError(f"has string keys, not {name}")
        return hints.entry(hint)[1]
    if issubclass(cls, list | tuple) and isinstance(name, int):
        args = typing.get_args(hint)
        if issubclass(cls, tuple) and args and args[-1] is not Ellipsis and name >= len(args):
            raise NoFieldError(f"has no item {name} (it has {len(args)})")
        return hints.item(hint, name)
    raise NoFieldError("")


def fields(cls: type) -> dict[str, Any] | None:
    """The hints of the fields of a NamedTuple, dataclass, pydantic model or TypedDict; None for other classes."""
    if hints.is_named_tuple(cls):
        return hints.fields(cls)
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    elif hints.is_pydantic(cls):
        names = list(typing.cast("Any", cls).model_fields)
    elif hints.is_typed_dict(cls):
        return hints.typed_dict_fields(cls)
    else:
        return None
    try:
        found = typing.get_type_hints(cls)
    except (NameError, TypeError, SyntaxError):
        found = {}
    return {name: found.get(name, Any) for name in names}


def is_numpy_number(cls: type) -> bool:
    """Whether a class is one of numpy's numbers."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(cls, numpy.number | numpy.bool_)
