"""Pipelines of steps that do nothing but pass an integer, for the benchmark."""

from __future__ import annotations

from penstock import pipeline, step


@step
def inc(x: int) -> int:
    """One more."""
    return x + 1


@step
def total(xs: list[int]) -> int:
    """Their sum."""
    return sum(xs)


@pipeline
def chain50() -> int:
    """A chain of 50 steps."""
    value = inc(0)
    for _ in range(49):
        value = inc(value)
    return value


@pipeline
def chain10() -> int:
    """A chain of 10 steps."""
    value = inc(0)
    for _ in range(9):
        value = inc(value)
    return value


@pipeline
def fan100() -> int:
    """100 steps side by side, and one that takes their results."""
    return total([inc(i) for i in range(100)])


@pipeline
def grid10000() -> int:
    """20 chains of 500 steps side by side."""
    ends: list[int] = []
    for start in range(20):
        value = inc(start)
        for _ in range(499):
            value = inc(value)
        ends.append(value)
    return total(ends)


@step
def numbers(count: int) -> list[int]:
    """As many integers."""
    return list(range(count))


@pipeline
def one(x: int) -> int:
    """One step."""
    return inc(x)


@pipeline
def mapped(items: int) -> list[int]:
    """A step for each of `items` integers."""
    return inc.map(numbers(items))
