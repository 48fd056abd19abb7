"""Pipelines with fan-out, conditions, rules and waits as users write them, for the tests of compiling and running."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypedDict

from pydantic import BaseModel

from penstock import pipeline, step


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Fit(NamedTuple):
    model: str
    score: float


@dataclass
class Best:
    accuracy: float
    name: str
    tags: list[str] = field(default_factory=list[str])


class Report(BaseModel):
    rows: int
    ok: bool = True


class Counts(TypedDict):
    good: int
    bad: int


@step
def numbers(n: int = 3) -> list[int]:
    return list(range(1, n + 1))


@step
def train(data: list[int], depth: int, rate: float = 0.5) -> Fit:
    return Fit(f"model-{depth}", sum(data) * depth * rate)


@step
def square(x: int) -> int:
    return x * x


@step
def add(x: int, y: int = 10) -> int:
    return x + y


@step
def total(values: list[int]) -> int:
    return sum(values)


@step
def tolerant(values: list[int | None]) -> int:
    return sum(value for value in values if value is not None)


@step
def select(models: list[str], scores: list[float]) -> Best:
    score, name = max(zip(scores, models, strict=True))
    return Best(score, name)


@step
def measure(name: str) -> dict[str, float]:
    return {"auc": 0.5 + len(name) / 100}


@step
def report(rows: int) -> Report:
    return Report(rows=rows, ok=rows > 1)


@step
def count(rows: int) -> Counts:
    return {"good": rows, "bad": 1}


@step
def choose(fast: bool) -> Mode:
    return Mode.FAST if fast else Mode.SLOW


@step
def kind() -> Literal["a", "b"]:
    return "a"


@step
def flag(on: bool = True) -> bool:
    return on


@step
def tell(text: str) -> str:
    return f"told {text}"


@step
def note(text: str | None, error: str | None = None) -> str:
    return f"{text} {error}"


@step
def anything(x=None):  # type: ignore[no-untyped-def]
    return x


@pipeline
def tuning(n: int = 3, depths: list[int] = [1, 2]) -> dict[str, Any]:  # noqa: B006 - as users write it
    data = numbers(n)
    fitted = train.partial(data=data).map(depth=depths)
    wide = train.partial(data=data).grid(depth=depths, rate=[0.1, 1.0])
    best = select(fitted.model, fitted.score)
    return {"best": best.name, "scores": wide.score}


@pipeline
def chained(n: int = 3) -> int:
    return total(add.partial(y=1).map(square.map(numbers(n))))
