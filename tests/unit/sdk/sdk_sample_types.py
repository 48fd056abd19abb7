"""Classes that values in the SDK's tests are made of. A separate module, so that they can be imported by name."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pydantic


class Color(enum.Enum):
    RED = "r"
    GREEN = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Config:
    depth: int
    rates: tuple[float, ...] = (0.1,)
    color: Color = Color.RED
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    inner: Config | None = None


class Pair(NamedTuple):
    left: int
    right: list[str]


class Settings(pydantic.BaseModel):
    alpha: float = 1.0
    names: list[str] = []


class Plain:
    """Has no JSON form."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


class Special:
    """Has a custom registered format in the tests."""

    def __init__(self, text: str) -> None:
        self.text = text


def gives_plain() -> Plain:
    return Plain(1)


def takes(value: Any) -> int:
    del value
    return 1
