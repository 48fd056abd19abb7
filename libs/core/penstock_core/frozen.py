"""Immutable dataclasses for facts, values and everything created per message.

The type checker refuses assignments. Python does not: a dataclass frozen by Python is created three times as slowly,
and a scheduler creates several for each fact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a dataclass with slots, equality and a hash, whose fields are read-only for the type checker."""
    return dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)
