"""Pipelines inside pipelines as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import sdk_sample_subpipelines_a as other

from penstock import pipeline, step

ran: list[str] = []


class Parts(NamedTuple):
    train: list[int]
    test: list[int]


class Found(NamedTuple):
    parts: Parts
    total: int
    label: str


@step
def load(n: int) -> list[int]:
    return list(range(n))


@step
def split(numbers: list[int], at: int = 1) -> Parts:
    return Parts(numbers[:at], numbers[at:])


@step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@step
def size(parts: Parts) -> int:
    return len(parts.train) + len(parts.test)


@step
def add(numbers: list[int], named: dict[str, int] | None = None) -> int:
    return sum(numbers) + sum((named or {}).values())


@step
def show(value: Any) -> str:
    return f"{type(value).__name__} {value}"


@step
def note(text: str) -> None:
    ran.append(text)


@pipeline
def features(numbers: list[int], at: int = 2, label: str = "all") -> Found:
    parts = split(numbers, at)
    return Found(parts, total(parts.train), label)


@pipeline
def both(n: int) -> int:
    numbers = load(n)
    first = features(numbers)
    second = features(numbers, at=3, label="more")
    return add([first.total, second.total, size(first.parts)], {"tail": total(second.parts.test)})


@pipeline
def middle(numbers: list[int]) -> dict[str, Any]:
    found = features(numbers)
    return {"total": total(found.parts.test), "parts": [found.parts.train, found.parts.test], "n": 7}


@pipeline
def nested(n: int):
    found = middle(load(n))
    show(found)
    show(found["parts"])
    show(found.parts[1])
    return {"sum": add([found.total, found["n"]]), "all": found}


@pipeline
def same_names(n: int) -> list[int]:
    a = other.source(n)
    b = load(n)
    return [total(a), total(b), total(other.load(n))]


@pipeline
def pair(n: int):
    return [load(n), load(1)], total(load(2))


@pipeline
def listed(n: int) -> int:
    (first, second), single = pair(n)
    return add([single, total(first), total(second)])


@pipeline
def notes(a: str, b: str) -> None:
    note(a)
    note(b).after(note("then"))


@pipeline
def ordered() -> None:
    last = note("last")
    middle = notes("a", "b")
    first = notes("c", "d")
    middle.after(first)
    last.after(middle)


@pipeline
def passing(numbers: list[int]) -> list[int]:
    return numbers


@pipeline
def wrap_path(path: Path = Path("x"), anything: Any = Path("y")) -> list[str]:
    return [show_either(path), show(path), show(anything), show_either(Path("z"))]


@step
def show_either(value: str | Path) -> str:
    return f"{type(value).__name__} {value}"


@pipeline
def paths() -> dict[str, Any]:
    return {"given": wrap_path(Path("x"), Path("y")), "default": wrap_path(), "passed": total(passing(load(3)))}
