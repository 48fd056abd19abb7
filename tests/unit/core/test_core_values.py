"""Values and bindings: their sources, and size estimates that are never too small."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.pipeline import values
from penstock_core.pipeline.values import BoundFields, BoundItems, Inline, Output, Param, ResultRef, Value
from penstock_testkit import strategies

NESTED = BoundItems(
    (
        Output("b"),
        Param("p"),
        BoundFields({"z": Output("a", "rows"), "y": BoundItems((Param("q"), Output("b"))), "x": Inline({"node": 1})}),
        Param("p"),
    )
)


def test_sources_are_every_output_read_in_order() -> None:
    assert list(values.sources(NESTED)) == [Output("b"), Output("a", "rows"), Output("b")]
    assert list(values.sources(Output("a"))) == [Output("a")]
    assert not [*values.sources(Param("p")), *values.sources(Inline(1)), *values.sources(BoundItems(()))]


def test_params_are_every_parameter_read_in_order() -> None:
    assert list(values.params(NESTED)) == ["p", "q", "p"]
    assert list(values.params(Param("x"))) == ["x"]
    assert not [*values.params(Output("a")), *values.params(Inline(1)), *values.params(BoundFields({}))]


@given(strategies.bindings(["a", "b"]))
def test_a_binding_reads_the_outputs_named_in_its_json(binding: values.Binding) -> None:
    found: list[Any] = []

    def walk(part: Any) -> None:
        match part:
            case {"node": node, "output": output}:
                found.append(Output(node, output))
            case {"param": name}:
                found.append(name)
            case {"items": [*items]} | {"lists": [*items]}:
                for item in items:
                    walk(item)
            case {"fields": {**fields}}:
                for item in fields.values():
                    walk(item)
            case _:
                pass

    walk(orjson.loads(orjson.dumps(binding)))
    assert [item for item in found if isinstance(item, Output)] == list(values.sources(binding))
    assert [item for item in found if isinstance(item, str)] == list(values.params(binding))


@given(strategies.value)
def test_a_weight_is_at_least_the_length_of_the_json(value: Value) -> None:
    assert len(orjson.dumps(value).decode()) <= values.weight(value)


@given(strategies.json_values)
def test_a_json_weight_is_at_least_the_length_of_the_json(value: Any) -> None:
    assert len(orjson.dumps(value).decode()) <= values.json_weight(value)


@pytest.mark.parametrize("text", ["\0" * 1000, '"' * 1000, "\\" * 1000, "\x7f\n" * 500, "é" * 1000, "a" * 1000, ""])
def test_escapes_in_texts_are_counted(text: str) -> None:
    length = len(orjson.dumps(text).decode())
    assert length <= values.json_weight(text) <= 6 * max(length, 2)


@given(st.integers(-(10**60), 10**60))
def test_big_integers_are_counted(number: int) -> None:
    assert len(json.dumps(number)) <= values.json_weight(number)


def test_a_weight_does_not_overstate_plain_texts_and_lists_by_much() -> None:
    assert values.weight(Inline("a" * 10_000)) < 2.1 * 10_000
    assert values.weight(values.Items(tuple(Inline("a" * 100) for _ in range(100)))) < 2.5 * 100 * 100


def test_a_reference_has_a_small_weight() -> None:
    assert values.weight(values.ResultOf(ResultRef(key="a", attempt=1, output="result"))) <= 400
    assert 3 * values.INLINE_LIMIT < values.REQUEST_LIMIT
