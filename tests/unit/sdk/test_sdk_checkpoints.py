"""Checkpoints in unit tests and in local runs: the next attempt restores what a lost one saved."""

from __future__ import annotations

import pytest

from penstock import context, pipeline, step
from penstock.step_context import contexts
from penstock.step_context.contexts import Context, use_context


def train(epochs: int) -> list[int]:
    done: list[int] = context().restore(default=[])
    for epoch in range(len(done), epochs):
        done.append(epoch)
        context().checkpoint(done)
        if epoch == 2 and context().attempt == 1:
            raise ConnectionError("lost")
    return [*done, context().attempt]


def test_a_step_test_resumes_from_the_context_of_the_lost_attempt() -> None:
    first = Context(step="train")
    with pytest.raises(ConnectionError), use_context(first):
        train(5)
    with use_context(first.next_attempt()) as second:
        assert train(5) == [0, 1, 2, 3, 4, 2]
    with use_context(second.next_attempt()):
        assert context().restore() == [0, 1, 2, 3, 4]


def test_outside_a_step_nothing_is_restored() -> None:
    context().checkpoint({"a": 1})
    assert context().restore() is None
    assert context().restore(default=3) == 3
    assert contexts.context().attempt == 1


def test_a_checkpoint_is_a_copy() -> None:
    state = {"weights": [1]}
    context = Context()
    context.checkpoint(state)
    state["weights"].append(2)
    next_attempt = context.next_attempt()
    assert next_attempt.restore() == {"weights": [1]}
    next_attempt.restore()["weights"].append(3)
    assert next_attempt.restore() == {"weights": [1]}


def test_none_is_a_valid_checkpoint_and_earlier_ones_are_passed_on() -> None:
    context = Context()
    context.checkpoint(None)
    assert context.next_attempt().restore(default=5) is None
    assert context.next_attempt().next_attempt().restore(default=5) is None
    assert Context().next_attempt().restore(default=5) == 5


def test_local_runs_restore_checkpoints_on_retry() -> None:
    @step(retries=1)
    def fit(epochs: int) -> list[int]:
        return train(epochs)

    @step
    def other() -> bool:
        return context().restore() is None

    @pipeline
    def both(epochs: int = 5) -> dict[str, object]:
        return {"fit": fit(epochs), "other": other()}

    assert both.local() == {"fit": [0, 1, 2, 3, 4, 2], "other": True}
