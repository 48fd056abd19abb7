"""Runs of a pipeline that would be one too many."""

from __future__ import annotations

import pytest

from penstock_core import limits, overlap
from penstock_core.ir import Overlap
from penstock_core.limits import Book, Notice, Place


def place(n: int) -> Place:
    return (f"run{n}", "", 0)


def come(book: Book, n: int, policy: Overlap, most: int = 1, pipeline: str = "p") -> str | None:
    run = overlap.run_waiter(f"run{n}", overlap.run_limit("default", pipeline, most), 0, float(n))
    why = overlap.admit(book, run, policy)
    limits.serve(book, {}, float(n))
    return why


def go(book: Book, n: int) -> None:
    limits.leave(book, place(n))
    limits.serve(book, {}, 100.0)


def told_to_stop(book: Book) -> set[Place]:
    return {one for one, notice in book.owed if notice is Notice.CANCELLED}


@pytest.mark.parametrize("policy", Overlap)
def test_as_many_as_may_are_admitted_at_once(policy: Overlap) -> None:
    book = Book()
    assert [come(book, n, policy, most=3) for n in range(3)] == [None] * 3
    assert len(book.holders) == 3 and not told_to_stop(book)


@pytest.mark.parametrize("policy", Overlap)
def test_pipelines_do_not_count_for_each_other(policy: Overlap) -> None:
    book = Book()
    come(book, 0, policy)
    come(book, 1, policy, pipeline="q")
    assert len(book.holders) == 2 and not told_to_stop(book)


@pytest.mark.parametrize("policy", Overlap)
def test_a_run_that_is_known_stays_as_it_is(policy: Overlap) -> None:
    book = Book()
    come(book, 0, policy)
    come(book, 1, Overlap.QUEUE)
    before = book.copy()
    assert come(book, 0, policy) is None
    assert come(book, 1, policy) is None
    assert book == before


def test_queue() -> None:
    book = Book()
    for n in range(3):
        assert come(book, n, Overlap.QUEUE) is None
    go(book, 0)
    assert set(book.holders) == {place(1)}
    go(book, 2)  # cancelled while it waits
    go(book, 1)
    assert book == Book()


def test_skip() -> None:
    book = Book()
    come(book, 0, Overlap.SKIP)
    why = come(book, 1, Overlap.SKIP)
    assert why is not None and "another run of the pipeline is under way" in why and "overlap=skip" in why
    go(book, 0)
    assert come(book, 2, Overlap.SKIP) is None


def test_buffer_one() -> None:
    book = Book()
    assert come(book, 0, Overlap.BUFFER_ONE, most=2) is None
    assert come(book, 1, Overlap.BUFFER_ONE, most=2) is None
    assert come(book, 2, Overlap.BUFFER_ONE, most=2) is None
    why = come(book, 3, Overlap.BUFFER_ONE, most=2)
    assert why is not None and "2 runs" in why and "waits already" in why
    go(book, 0)
    assert set(book.holders) == {place(1), place(2)}


def test_cancel_previous_waits_until_the_oldest_is_over() -> None:
    book = Book()
    for n in range(3):
        come(book, n, Overlap.CANCEL_PREVIOUS, most=2)
    assert told_to_stop(book) == {place(0)}
    assert set(book.holders) == {place(0), place(1)} and set(book.waiters) == {place(2)}
    go(book, 0)
    assert set(book.holders) == {place(1), place(2)} and not told_to_stop(book)


def test_the_newest_is_the_one_that_was_asked_for_last_in_whatever_order_they_come() -> None:
    for order in ((0, 2, 1), (2, 0, 1), (2, 1, 0), (1, 0, 2)):
        book = Book()
        for n in order:
            come(book, n, Overlap.CANCEL_PREVIOUS)
        assert told_to_stop(book) == {place(0), place(1)}, order
        go(book, 0)
        go(book, 1)
        assert set(book.holders) == {place(2)}, order


def test_cancel_previous_takes_a_waiting_run_s_turn_too() -> None:
    book = Book()
    for n in range(4):
        come(book, n, Overlap.CANCEL_PREVIOUS)
    assert told_to_stop(book) == {place(0), place(1), place(2)}
    go(book, 0)  # run 1 and 2 are not over yet, but get no place any more
    assert set(book.holders) == {place(3)}
    go(book, 1)
    go(book, 2)
    assert set(book.holders) == {place(3)} and not book.waiters
