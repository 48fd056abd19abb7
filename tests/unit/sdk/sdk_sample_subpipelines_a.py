"""Steps and pipelines with names used elsewhere too, for the tests of nested pipelines."""

from __future__ import annotations

from penstock import pipeline, step


@step
def load(n: int) -> list[int]:
    return [n]


@pipeline
def source(n: int) -> list[int]:
    return load(n)
