"""How a version of a model is named: `churn` (the latest), `churn@champion` (by an alias), `churn:3` (by number)."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_core import ids
from penstock_core.errors import InvalidId
from penstock_core.registry.facts import MOST, check_alias

PREFIX = "model:"
"""Begins an input of a run that names a registered model."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A version of a model: by number, by alias, or the latest where neither is said."""

    model: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}:{self.version}"
        return self.model if self.alias is None else f"{self.model}@{self.alias}"


def parse(text: str) -> Reference:
    """Read a reference.

    Raises:
        InvalidId: it is none.
    """
    advice = "write NAME for the latest version, NAME@ALIAS or NAME:NUMBER"
    name, at, alias = text.partition("@")
    if at:
        return Reference(ids.check_name(name, "model"), alias=check_alias(alias))
    name, colon, number = text.partition(":")
    if not colon:
        return Reference(ids.check_name(name, "model"))
    if not (number.isascii() and number.isdecimal() and len(number) < 8 and 1 <= int(number) <= MOST):
        raise InvalidId(f"{text[:120]!r} names no version of a model: {advice}")
    return Reference(ids.check_name(name, "model"), version=int(number))
