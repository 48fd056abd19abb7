"""The inputs of runs: text from the command line, values from Python, JSON for the platform."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import sdk_sample_pipelines as samples
from hypothesis import given
from hypothesis import strategies as st
from sdk_sample_types import Color, Config, Plain

from penstock import InputError, codec, pipeline
from penstock.hints.json_schema import schema
from penstock.inputs import check_inputs, check_value, parse_inputs, parse_text, to_json
from penstock_core.json_schema import mismatch


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("3", int, 3),
        ("-3", int, -3),
        ("3", float, 3.0),
        ("1e3", float, 1000.0),
        ("3", str, "3"),
        ("3", Any, 3),
        ("three", Any, "three"),
        ("true", bool, True),
        ("False", bool, False),
        ("true", str, "true"),
        ("null", int | None, None),
        ("none", int | None, None),
        ("", str, ""),
        ("[1, 2]", list[int], [1, 2]),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ('{"depth": 4}', Config, Config(4)),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ("RED", Color, Color.RED),
        ("b", Literal["a", "b"], "b"),
        ("1", Literal["a", 1], 1),
        ("2024-05-01", datetime.date, datetime.date(2024, 5, 1)),
        ("a.csv", Path, Path.cwd() / "a.csv"),
        ("~/a.csv", Path | None, Path.home() / "a.csv"),
        ("/a.csv", Path | str, Path("/a.csv")),
        ("https://example.com/a.csv", Path | str, "https://example.com/a.csv"),
        ("", Path | str, ""),
        ('"quoted"', str, '"quoted"'),
        ("3", int | str, 3),
        ("x", int | str, "x"),
    ],
)
def test_text_is_converted_by_type_hint(text: str, hint: Any, value: Any) -> None:
    found = parse_text(text, hint)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "says"),
    [
        ("three", int, 'expected int, got "three"'),
        ("3.5", int, r"expected int, got 3\.5"),
        ("true", int, "expected int, got true"),
        ("yes", bool, r'expected bool \(true or false\), got "yes"'),
        ("1,2", list[int], r'expected list such as \[1, 2\], got "1,2"'),
        ('["a"]', list[int], r'\[0\]: expected int, got "a"'),
        ("BLUE", Color, 'expected one of RED, GREEN, got "BLUE"'),
        ("c", Literal["a", "b"], 'expected one of "a", "b", got "c"'),
        ("x", pd.DataFrame, "expected DataFrame"),
    ],
)
def test_mismatching_text(text: str, hint: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_text(text, hint)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_text("NaN", float))
    assert to_json(math.nan, float) == {"$type": "float", "value": "nan"}


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none() | st.lists(st.integers()) | st.text())
def test_json_input_keeps_its_own_type(value: Any) -> None:
    hint = type(value) if value is not None else None
    text = value if isinstance(value, str) else json.dumps(value)
    assert parse_text(text, hint) == value


@pytest.mark.parametrize(
    ("value", "hint", "written"),
    [
        (3, int, 3),
        (Path("/a"), Path | str, "/a"),
        (Path("/a"), Any, {"$type": "path", "value": "/a"}),
        (Path("/a"), Path | None, "/a"),
        (Color.RED, Color, "RED"),
        (Color.RED, Any, {"$type": "sdk_sample_types:Color", "name": "RED"}),
        (Config(1), Config, {"depth": 1, "rates": [0.1], "color": "RED", "more": {}}),
        ((1, 2), tuple[int, ...], [1, 2]),
        ((1, 2), Any, {"$type": "tuple", "items": [1, 2]}),
        ({"a": (1,)}, dict[str, tuple[int]], {"a": [1]}),
        (datetime.date(2024, 5, 1), datetime.date, "2024-05-01"),
        (2**70, int, {"$type": "int", "value": hex(2**70)}),
        (True, bool, True),
    ],
)
def test_json_is_plain_when_the_hint_restores_the_type(value: Any, hint: Any, written: Any) -> None:
    assert to_json(value, hint) == written
    assert str(codec.decode(written, hint)) == str(value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (math.nan, float),
        (2**70, int),
        ([0.5, math.inf], list[float]),
        ({"a": math.nan}, dict[str, float]),
        (Color.RED, Color),
        (datetime.datetime(2024, 5, 1), datetime.datetime | None),
        (Path("/a"), Path | str),
    ],
)
def test_the_platform_accepts_every_input_format(value: Any, hint: Any) -> None:
    described = schema(hint)
    assert mismatch(to_json(value, hint), described) is None
    assert mismatch(codec.encode(value), described) is None


def test_a_run_s_inputs() -> None:
    texts = {"source": "a.csv", "size": "1", "config": '{"depth": 5}'}
    values = parse_inputs(samples.training, texts)
    assert values == {"source": Path.cwd() / "a.csv", "size": 1.0, "config": samples.Config(5)}
    written = check_inputs(samples.training, values)
    assert written["config"] == {"depth": 5, "names": ["a"]}
    assert check_inputs(samples.training, {}) == {}
    assert check_inputs(samples.training, {"config": {"depth": 5}}) == {"config": {"depth": 5, "names": ["a"]}}
    json.dumps(written)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sourc": "x"}, "inputs.sourc: unknown parameter .*did you mean 'source'"),
        ({"zzz": "x"}, r"inputs.zzz: unknown parameter \(parameters: source, size, config\)"),
        ({"size": "big"}, '^Invalid run request for pipeline .training.: inputs.size: expected float, got "big"$'),
        ({"config": {"deep": 1}}, "inputs.config.deep: unknown field .fields: depth"),
    ],
)
def test_wrong_inputs_are_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_inputs(samples.training, values)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(InputError, match=r"inputs.n: missing, expected int"):
        check_inputs(samples.single, {})
    with pytest.raises(InputError, match=r'inputs\.n: expected int, got "x"'):
        parse_inputs(samples.single, {"n": "x"})


def test_objects_cannot_be_inputs() -> None:
    @pipeline
    def anything(value: Any) -> None: ...

    with pytest.raises(
        InputError, match=r"must be plain data \(it is sent as JSON\), but a Plain cannot be stored as JSON"
    ):
        check_inputs(anything, {"value": Plain(1)})


def test_single_values_are_checked_or_converted() -> None:
    assert check_value("RED", Color) is Color.RED
    assert check_value(1, int) == 1
    with pytest.raises(InputError, match='depth: expected int, got "a"'):
        check_value("a", int, "depth")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("0.5", 0.5), ("250ms", 0.25)]
)
def test_a_duration_is_seconds_or_has_units(text: str, seconds: float) -> None:
    assert parse_text(text, datetime.timedelta) == datetime.timedelta(seconds=seconds)
    assert parse_text(text, datetime.timedelta | None) == datetime.timedelta(seconds=seconds)


def test_an_invalid_duration_error_shows_valid_forms() -> None:
    with pytest.raises(InputError, match="such as 90s, 10m"):
        parse_text("soon", datetime.timedelta)


def test_decimals_keep_their_digits() -> None:
    assert str(parse_text("1.10", decimal.Decimal)) == "1.10"
    assert str(parse_text("0.1000000000000000055", decimal.Decimal)) == "0.1000000000000000055"
