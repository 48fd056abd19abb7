"""Steps that yield their items one by one: `def tokens(prompt: str) -> Iterator[str]`.

For everything but the answer of an endpoint, such a step returns the list of its items.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any, cast

from penstock import hints
from penstock.hints.signature import Signature
from penstock_core.errors import DefinitionError

_ITERATORS = (
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
)
_ITERABLES = (*_ITERATORS, collections.abc.Iterable, collections.abc.AsyncIterable)


def collected(
    found: Signature, function: Callable[..., Any], what: str, file: str | None, line: int | None
) -> Signature:
    """Return the signature of a step whose function yields items, with their list as its output.

    Other signatures are returned as they are.

    Raises:
        DefinitionError: the function uses `yield`, and its hint does not say so.
    """
    kind = hints.class_of(hints.strip(found.returns))
    yields = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if kind not in (_ITERABLES if yields else _ITERATORS):
        if not yields:
            return found
        if found.returns is not Any:
            kinds = "AsyncIterator" if inspect.isasyncgenfunction(function) else "Iterator"
            message = f"uses yield, but is declared to return {hints.show(found.returns)}: declare {kinds}[…]"
            raise DefinitionError(f"{what} {message}", file, line)
    arguments = typing.get_args(hints.strip(found.returns))
    returns = list[arguments[0]] if arguments else list[Any]
    return replace(found, outputs={"result": returns}, returns=returns)


def is_stream(found: Signature, function: Callable[..., Any]) -> bool:
    """Return whether a function with this declared signature yields items."""
    kind = hints.class_of(hints.strip(found.returns))
    return kind in _ITERATORS or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def items(found: Any, what: str) -> Iterator[Any] | AsyncIterator[Any]:
    """Return the iterator over what a function that yields items has returned.

    Raises:
        TypeError: it cannot be iterated over.
    """
    if isinstance(found, collections.abc.AsyncIterable):
        return aiter(cast("collections.abc.AsyncIterable[Any]", found))
    if isinstance(found, collections.abc.Iterable) and not isinstance(found, str | bytes):
        return iter(cast("collections.abc.Iterable[Any]", found))
    raise TypeError(f"{what} is declared to return an iterator, but returned {hints.short_repr(found)}")


def all_of(found: Any, what: str) -> Any:
    """Return the list of all items that a function has returned; a coroutine of it if the function is async."""
    several = items(found, what)
    return list(several) if isinstance(several, collections.abc.Iterator) else _all(several)


async def _all(several: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in several]
