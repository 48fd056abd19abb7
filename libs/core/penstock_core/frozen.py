"""Dataclasses that nobody changes: facts, values, whatever is made for each message.

The type checker refuses every assignment. Python itself does not: what it does for a frozen dataclass makes creating
one three times as slow, and a scheduler creates several for each fact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
    """A dataclass with slots, equality and a hash, whose fields are for reading."""
    return dataclass(slots=True, kw_only=kw_only, unsafe_hash=True)
