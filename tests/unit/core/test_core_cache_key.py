"""The cache key: equal only for equal calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from penstock_core.cache import cache_key
from penstock_core.cache.cache_key import Parts
from penstock_core.pipeline.values import ArtifactRef, Fields, Inline, Items, ResultOf, ResultRef, Stored, Value
from penstock_testkit import strategies

TABLE = ArtifactRef(sha256="ab" * 32, size=10, media_type="application/x-parquet", format="parquet")
PARTS = Parts(
    code="c0de",
    environment="e57",
    entrypoint="flow:train",
    inputs={
        "data": Stored(TABLE),
        "depth": Inline(3),
        "options": Inline({"b": [1, 2.5, None], "a": "é"}),
        "many": Items((Inline(True), Fields({"x": Inline(1)}))),
    },
    salt="v1",
)


def test_the_key_of_a_known_call_never_changes() -> None:
    """A literal: a key that changes by accident empties every user's cache, and one that is too wide mixes results."""
    assert cache_key.key(PARTS) == "09bac8b646df45d1327a7aa8460b8c4841518bef4ba925a39b0a1a9ebfcc5b9e"


@pytest.mark.parametrize(
    "change",
    [{"code": "x"}, {"environment": "x"}, {"entrypoint": "flow:test"}, {"salt": "v2"}, {"salt": ""}, {"inputs": {}}],
)
def test_every_part_changes_the_key(change: dict[str, object]) -> None:
    assert cache_key.key(replace(PARTS, **change)) != cache_key.key(PARTS)  # type: ignore[arg-type]


def test_parts_are_delimited() -> None:
    one = Parts(code="ab", environment="c", entrypoint="", inputs={})
    assert cache_key.key(one) != cache_key.key(replace(one, code="a", environment="bc"))
    assert cache_key.key(one) != cache_key.key(replace(one, environment="", salt="c"))


def of(value: Value, name: str = "x") -> str | None:
    return cache_key.key(Parts(code="c", environment="e", entrypoint="p", inputs={name: value}))


DIFFERENT: list[Value] = [
    Inline(True),
    Inline(1),
    Inline(1.0),
    Inline("1"),
    Inline([1]),
    Inline("[1]"),
    Inline({"1": 1}),
    Inline(None),
    Inline("null"),
    Inline(""),
    Inline([]),
    Inline({}),
    Inline(0),
    Inline(0.0),
    Inline(-0.0),
    Inline(False),
    Inline(["value", 1]),
    Inline([["value", 1]]),
    Inline({"value": 1}),
    Items(()),
    Items((Inline(1),)),
    Items((Inline(1), Inline(1))),
    Items((Items((Inline(1),)),)),
    Fields({}),
    Fields({"1": Inline(1)}),
    Fields({"value": Inline(1)}),
    Stored(TABLE),
    Stored(replace(TABLE, sha256="cd" * 32)),
    Stored(replace(TABLE, format="pickle")),
    Inline(["artifact", TABLE.sha256, TABLE.format]),
]


def test_values_that_differ_in_any_way_have_different_keys() -> None:
    keys = [of(value) for value in DIFFERENT]
    twice = [(DIFFERENT[i], DIFFERENT[j]) for i in range(len(keys)) for j in range(i) if keys[i] == keys[j]]
    assert not twice
    assert None not in keys


def test_the_name_of_an_input_changes_the_key() -> None:
    assert of(Inline(1), "x") != of(Inline(1), "y")


def test_the_order_of_dictionaries_and_inputs_does_not_matter() -> None:
    assert of(Inline({"a": 1, "b": {"c": 2, "d": 3}})) == of(Inline({"b": {"d": 3, "c": 2}, "a": 1}))
    assert of(Fields({"a": Inline(1), "b": Inline(2)})) == of(Fields({"b": Inline(2), "a": Inline(1)}))
    backwards = dict(reversed(list(PARTS.inputs.items())))
    assert cache_key.key(replace(PARTS, inputs=backwards)) == cache_key.key(PARTS)


def test_the_order_of_lists_matters() -> None:
    assert of(Inline([1, 2])) != of(Inline([2, 1]))
    assert of(Items((Inline(1), Inline(2)))) != of(Items((Inline(2), Inline(1))))


def test_only_the_content_of_an_artifact_matters() -> None:
    other = replace(TABLE, size=11, media_type="x", python_type="DataFrame", filename="t", unsafe=True)
    assert of(Stored(other)) == of(Stored(TABLE))


EARLIER = ResultOf(ResultRef(key="a", attempt=1, output="result"))


@pytest.mark.parametrize("value", [EARLIER, Items((Inline(1), EARLIER)), Fields({"a": Items((EARLIER,))})])
def test_an_input_known_only_by_reference_has_no_key(value: Value) -> None:
    assert of(value) is None


@given(strategies.value, strategies.value)
def test_keys_are_equal_iff_values_are_equal(one: Value, other: Value) -> None:
    if of(one) is None or of(other) is None:
        return
    assert (of(one) == of(other)) == (exactly(one) == exactly(other))


def exactly(value: object) -> object:
    """Something that is equal for equal values where Python's 1 == 1.0 == True and 0.0 == -0.0 are not."""
    match value:
        case Inline(inline):
            return ("inline", exactly(inline))
        case Stored(artifact):
            return ("stored", artifact.sha256, artifact.format)
        case Items(items):
            return ("items", tuple(exactly(item) for item in items))
        case Fields(fields):
            return ("fields", frozenset((name, exactly(item)) for name, item in fields.items()))
        case dict():
            return frozenset((name, exactly(item)) for name, item in value.items())
        case list():
            return tuple(exactly(item) for item in value)
        case _:
            return (type(value), repr(value))
