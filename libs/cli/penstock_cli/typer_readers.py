"""Parses simple parameters without pydantic, which newer versions of typer import for it: 150 ms of every command.

This is an optimisation only: parameters and typer versions that are not recognised here are left to typer.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer


def replace_readers(command: Any) -> Any:
    """Replace the parsers of the simple parameters of a command and its subcommands; return the command."""
    for param in command.params:
        _replace(param)
    make_help = getattr(command, "get_help_option", None)
    if make_help is not None:
        command.get_help_option = lambda ctx: _replace(make_help(ctx))
    for below in getattr(command, "commands", {}).values():
        replace_readers(below)
    return command


def _replace(param: Any) -> Any:
    descriptor = getattr(param, "type_descriptor", None)
    read = reader(getattr(descriptor, "annotation", None))
    if read is not None and hasattr(param, "get_runtime_param"):
        param.get_runtime_param = _constant(_Reader(read))
    return param


class _Reader:
    """Replaces the parser of typer, which calls `coerce`."""

    def __init__(self, read: Callable[[Any, Any], Any]) -> None:
        self._read = read

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value; None and defaults are returned as they are."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        return [self._read(item, param) for item in value] if many else self._read(value, param)


def _constant(reader: _Reader) -> Callable[[], _Reader]:
    return lambda: reader


def reader(annotation: Any) -> Callable[[Any, Any], Any] | None:
    """Return the function that parses a text of this type, or None if it is not a simple type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(annotation) if option is not type(None)]
        return reader(options[0]) if len(options) == 1 else None
    if typing.get_origin(annotation) is list:
        return reader(typing.get_args(annotation)[0])
    return _READERS.get(annotation) if isinstance(annotation, type) else None


def _unchanged(value: Any, param: Any) -> Any:
    return value


def _path(value: Any, param: Any) -> Path:
    return Path(value)


def _whole(value: Any, param: Any) -> int:
    try:
        number = int(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a whole number", param=param) from None
    low, high = getattr(param, "min", None), getattr(param, "max", None)
    if (low is not None and number < low) or (high is not None and number > high):
        bounds: Iterable[str] = (
            f"{word} {bound}" for word, bound in (("at least", low), ("at most", high)) if bound is not None
        )
        raise typer.BadParameter(f"{number} is out of range: {' and '.join(bounds)}", param=param)
    return number


_READERS: dict[type, Callable[[Any, Any], Any]] = {str: _unchanged, bool: _unchanged, Path: _path, int: _whole}
