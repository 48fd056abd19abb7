"""References to model versions: `churn` (the latest published), `churn@champion` (by alias), `churn:3` (by number)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from penstock_core import ids, json_schema
from penstock_core.errors import InvalidIdError
from penstock_core.registry.facts import MOST, check_alias

PREFIX = "model:"
"""Prefix of an input of a run that refers to a registered model."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A version of a model: by number, by alias, or the latest published one if neither is set."""

    model: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}:{self.version}"
        return self.model if self.alias is None else f"{self.model}@{self.alias}"


def named(value: Any, schema: Any) -> str | None:
    """Return the reference to a registered model in an input of a run, as text; None without one.

    The input is `{"artifact": {"model": "churn@champion"}}`, or the text `model:churn@champion` if the parameter
    accepts no text by its JSON Schema.
    """
    match value:
        case {"artifact": {"model": str(text), **rest}} if not rest and len(cast("dict[str, Any]", value)) == 1:
            return text.removeprefix(PREFIX)
        case str() if value.startswith(PREFIX) and not (
            json_schema.takes_text(schema) or json_schema.lists_value(schema, value)
        ):
            return value.removeprefix(PREFIX)
        case _:
            return None


def parse(text: str) -> Reference:
    """Parse a reference.

    Raises:
        InvalidIdError: it is invalid.
    """
    advice = "write NAME for the latest published version, NAME@ALIAS or NAME:NUMBER"
    name, at, alias = text.partition("@")
    if at:
        return Reference(ids.check_name(name, "model"), alias=check_alias(alias))
    name, colon, number = text.partition(":")
    if not colon:
        return Reference(ids.check_name(name, "model"))
    if not (number.isascii() and number.isdecimal() and len(number) < 8 and 1 <= int(number) <= MOST):
        raise InvalidIdError(f"{text[:120]!r} is not a version of a model: {advice}")
    return Reference(ids.check_name(name, "model"), version=int(number))
