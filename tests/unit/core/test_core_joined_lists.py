"""Lists that consist of lists: resolved to items where they are known, else left to their reader."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.facts import AttemptFinished, AttemptRequested, Fact
from penstock_core.pipeline import tagged, values
from penstock_core.pipeline.values import (
    ArtifactRef,
    BoundItems,
    BoundLists,
    Collected,
    CollectedRef,
    Element,
    Fields,
    Inline,
    Items,
    Lists,
    Output,
    Param,
    ResultOf,
    ResultRef,
    Stored,
    Value,
)
from penstock_core.run import value_resolution
from penstock_core.run.value_resolution import UnresolvableBindingError, joined, pick
from penstock_testkit.run_driver import RUN, RunDriver, end, mapped_node, node, pipeline


def requests(driver: RunDriver, *facts: Fact) -> list[AttemptRequested]:
    return [fact for fact in driver.facts(*facts) if isinstance(fact, AttemptRequested)]


def ended(key: str, result: Value) -> AttemptFinished:
    return replace(end(key), outputs={"result": result})


STORED = Stored(ArtifactRef(sha256="a" * 64, size=9, media_type="", format="jsonl", items=3))
TABLE = Stored(ArtifactRef(sha256="b" * 64, size=9, media_type="", format="pickle"))
COLLECTED = Collected(CollectedRef(key="each", count=2, output="result"))
REFERENCE = ResultOf(ResultRef(key="a", attempt=1, output="result"))


@pytest.mark.parametrize(
    ("lists", "whole"),
    [
        ([], Items(())),
        ([Inline([1, 2]), Items((Inline(3),))], Items((Inline(1), Inline(2), Inline(3)))),
        ([Inline({"$type": "tuple", "items": [1]}), Inline([])], Items((Inline(1),))),
        ([Inline([1]), STORED], Lists((Inline([1]), STORED))),
        ([Lists((Inline([1]), STORED)), COLLECTED], Lists((Inline([1]), STORED, COLLECTED))),
    ],
)
def test_known_items_are_joined(lists: list[Value], whole: Value) -> None:
    assert joined(lists) == whole


@pytest.mark.parametrize(
    ("index", "element"),
    [
        (0, Inline(1)),
        (1, Element(STORED, (0,))),
        (3, Element(STORED, (2,))),
        (5, Element(COLLECTED, (1,))),
        (6, Element(Lists((REFERENCE, Inline([7]))), (0,))),
        (9, Element(Lists((REFERENCE, Inline([7]))), (3,))),
    ],
)
def test_an_element_is_in_the_list_where_its_index_falls(index: int, element: Value) -> None:
    assert pick(Lists((Inline([1]), STORED, COLLECTED, REFERENCE, Inline([7]))), (index,)) == element


def test_an_element_beyond_lists_of_known_lengths_does_not_exist() -> None:
    with pytest.raises(tagged.NoSuchPartError, match=r"a list of 4 has no element \[4\]"):
        pick(Lists((Inline([1]), STORED)), (4,))


LEAVES = st.lists(st.integers(0, 3), max_size=3).map(Inline) | st.lists(st.integers(0, 3).map(Inline), max_size=3).map(
    lambda items: Items(tuple(items))
)


@given(st.lists(LEAVES, max_size=5))
def test_joined_lists_are_the_lists_of_python(lists: list[Value]) -> None:
    def plain(value: Value) -> list[Any]:
        match value:
            case Inline(data):
                return data
            case Items(items):
                return [item.value for item in items if isinstance(item, Inline)]
            case _:
                raise AssertionError(value)

    expected = [item for one in lists for item in plain(one)]
    assert plain(joined(lists)) == expected
    for index, item in enumerate(expected):
        assert pick(joined(lists), (index,)) == Inline(item)
        assert pick(Lists(tuple(lists)), (index,)) == Inline(item)


def test_a_step_gets_lists_that_only_it_can_load() -> None:
    whole = BoundLists((Output("a"), BoundItems((Param("url"),)), Output("b")))
    driver = RunDriver(pipeline(node("a"), node("b"), node("c", x=whole)), RUN)
    driver(end("a", result=[1]))
    (request,) = requests(driver, ended("b", STORED))
    assert request.inputs == {"x": Lists((Inline([1]), Items((Inline("u"),)), STORED))}
    assert list(values.artifacts(request.inputs["x"])) == ["a" * 64]


def test_a_mapped_step_has_an_item_for_each_element_of_all_lists() -> None:
    each = mapped_node(node("each", x=Inline([1, 2])), "x")
    whole = BoundLists((Output("each"), BoundItems((Output("a"),)), Output("b")))
    driver = RunDriver(pipeline(each, node("a"), node("b"), mapped_node(node("c", x=whole), "x")), RUN)
    driver(end("each[0]", result="e0"), end("each[1]", result="e1"), end("a", result="a"))
    made = requests(driver, ended("b", STORED))
    assert [one.inputs["x"] for one in made] == [
        *map(Inline, ("e0", "e1", "a")),
        *(Element(STORED, (n,)) for n in range(3)),
    ]


@pytest.mark.parametrize("result", [Inline("text"), Inline({"a": 1}), Inline(None), Fields({"a": Inline(1)})])
def test_a_step_whose_list_is_no_list_fails_with_the_reason(result: Any) -> None:
    whole = BoundLists((Inline([1]), Output("a")))
    driver = RunDriver(pipeline(node("a"), node("c", x=whole)), RUN)
    driver(ended("a", result))
    assert driver.finished is not None
    assert "a is not a list (type: " in str(driver.finished.error)


def test_the_length_of_a_list_that_nobody_can_count_is_an_error() -> None:
    driver = RunDriver(pipeline(node("a"), mapped_node(node("c", x=BoundLists((Output("a"),))), "x")), RUN)
    driver(ended("a", TABLE))
    assert driver.finished is not None and "is not a list (type: pickle)" in str(driver.finished.error)


def test_references_to_the_log_are_those_of_their_run() -> None:
    moved = values.with_run_id(Lists((REFERENCE, COLLECTED, Inline([1]))), "kother")
    assert moved == Lists(
        (
            ResultOf(ResultRef(key="a", attempt=1, output="result", run_id="kother")),
            Collected(CollectedRef(key="each", count=2, output="result", run_id="kother")),
            Inline([1]),
        )
    )
    assert values.weight(moved) > values.weight(REFERENCE)


def test_a_result_of_a_mapped_step_is_known_by_reference_in_a_list() -> None:
    assert value_resolution.joined([COLLECTED]) == Lists((COLLECTED,))
    with pytest.raises(UnresolvableBindingError):
        value_resolution.resolve(RunDriver(pipeline(node("a")), RUN).state, BoundLists((Param("url"),)))
