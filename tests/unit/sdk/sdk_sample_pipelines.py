"""Pipelines as users write them, for the tests of compiling and running."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple

from penstock import Environment, Resources, context, pipeline, step

calls: list[str] = []


class Parts(NamedTuple):
    train: list[int]
    test: list[int]


class Ends(NamedTuple):
    best: float
    parts: list[int]


@dataclass(frozen=True)
class Config:
    depth: int = 3
    names: tuple[str, ...] = ("a",)


@step(
    name="read",
    retries=2,
    retry_delay="1m30s",
    backoff=2,
    retry_on=(OSError, "ValueError"),
    timeout=timedelta(minutes=10),
    queue_timeout="500ms",
    cache=True,
    resources=Resources(cpu="500m", memory="1.5Gi", gpu=1),
    pool="gpu",
    priority=5,
    concurrency="database",
    environment=Environment("py311", ["attrs>=23"]),
    secrets=["key"],
    env={"A": "b"},
)
def load(source: Path | str = "") -> list[int]:
    return [1, 2, 3, 4]


@step
def split(numbers: list[int], size: float = 0.5) -> Parts:
    """Divide in two."""
    at = int(len(numbers) * size)
    return Parts(numbers[:at], numbers[at:])


@step
def train(data: list[int], config: Config, kind: Literal["sum", "max"] = "sum") -> float:
    context().log_metric("size", len(data))
    return float(sum(data) if kind == "sum" else max(data)) * config.depth


@step
def best(scores: list[float], named: dict[str, float]) -> float:
    return max([*scores, *named.values()])


@step
def whole(parts: Parts) -> int:
    return len(parts.train) + len(parts.test)


@step
def note(text: str) -> None:
    calls.append(text)


@pipeline
def training(source: Path | str = "", size: float = 0.5, config: Config = Config(2)) -> Ends:
    """Train a little.

    More about it.
    """
    parts = split(load(source), size=size)
    head, tail = parts
    scores = [train(head, config), train(tail, Config(1), kind="max"), 1.5]
    found = best(scores, {"again": train(parts.train, config)})
    done = note("done").after(found)
    note("first").after()
    late = whole(parts)
    late.after(done, found)
    return Ends(found, parts["test"])


@pipeline
def single(n: int) -> int:
    return whole(Parts(repeat(n), [1]))


@step
def repeat(n: int) -> list[int]:
    return [n] * n


@pipeline
def nothing() -> None:
    pass


@pipeline
def outputs_of_one_step(items: list[int]) -> Parts:
    return split(items)


@pipeline
def named(n: int) -> dict[str, Any]:
    return {"twice": repeat(n), "both": [repeat(n), repeat(1)], "n": n}


@pipeline
def backwards() -> None:
    first = note("should be last")
    second = note("should be second").after(note("should be first"))
    first.after(second)


@step
async def later(n: int) -> int:
    return n + 1


@step(retries=2, retry_delay="10s", retry_on=ConnectionError)
def fragile(kind: str) -> int:
    calls.append(kind)
    if kind == "value":
        raise ValueError("a value")
    if len(calls) < 3:
        raise ConnectionResetError("again")
    return context().attempt


@pipeline
def awaiting(n: int) -> int:
    return later(n)


@pipeline
def retrying(kind: str) -> int:
    return fragile(kind)
