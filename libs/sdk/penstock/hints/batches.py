"""Steps that take several inputs at once: `@step(batch=Batch(max=32, wait="5ms"))`.

The function has parameters of type `list[T]`, which get one element of each call, and other parameters, whose value all
calls of a batch share. It returns a list with one result for each call. For everything else, such a step is one with
parameters of type `T`.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from penstock import hints
from penstock.hints.signature import Signature
from penstock_core.errors import DefinitionError


def single(found: Signature, what: str, file: str | None, line: int | None) -> tuple[Signature, frozenset[str]]:
    """Return the signature of one call, and the names of the parameters that are lists.

    Raises:
        DefinitionError: the function has no list parameter, one with a default, or does not return a list.
    """
    lists = frozenset(name for name, one in found.inputs.items() if typing.get_origin(one.hint) is list)
    if not lists:
        raise DefinitionError(
            f"{what} has the option batch and no parameter of type list[…], which would get one element of each call",
            file,
            line,
        )
    optional = [name for name in lists if not found.inputs[name].required]
    if optional:
        raise DefinitionError(
            f"{what} has the option batch: parameter {optional[0]!r} cannot have a default", file, line
        )
    if typing.get_origin(found.returns) is not list:
        raise DefinitionError(f"{what} has the option batch: it must be declared to return list[…]", file, line)
    inputs = {
        name: replace(one, hint=hints.item(one.hint)) if name in lists else one for name, one in found.inputs.items()
    }
    returns = hints.item(found.returns)
    return Signature(inputs, {"result": returns}, returns, None), lists


def arguments(calls: Sequence[Mapping[str, Any]], lists: frozenset[str]) -> dict[str, Any]:
    """Return the arguments of the function for several calls with the same shared values."""
    return {name: [one[name] for one in calls] if name in lists else value for name, value in calls[0].items()}


def results(found: Any, count: int, what: str) -> list[Any]:
    """Return the results of the calls, from what the function returned.

    Raises:
        TypeError: it is not a list of this length.
    """
    if isinstance(found, str | bytes | Mapping) or not hasattr(found, "__len__") or len(found) != count:
        shown = hints.short_repr(cast("object", found))
        raise TypeError(
            f"{what} got {count} inputs as a batch and returned {shown}: return a list with a result for each"
        )
    return list(found)
