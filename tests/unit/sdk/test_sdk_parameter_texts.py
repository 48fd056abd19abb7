"""Texts of parameters give what Python and pydantic make of them, or an error that names the part that is wrong."""

from __future__ import annotations

import datetime
import enum
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, field_validator

from penstock import InputError, codec
from penstock.hints import json_schema
from penstock.inputs import check_value, parse_text, to_json
from penstock_core.json_schema import mismatch


class Mode(enum.Enum):
    FAST = "f"
    SLOW = 2


class Optimizer(BaseModel):
    rate: float = Field(gt=0)
    layers: list[int] = [1]
    price: Decimal = Decimal("0")
    children: list[Optimizer] = []


class Config(BaseModel):
    optimizer: Optimizer
    mode: Mode = Mode.FAST
    name: str = "x"


class Before(BaseModel):
    names: list[str]

    @field_validator("names", mode="before")
    @classmethod
    def split(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


@dataclass
class Inner:
    n: int
    wait: datetime.timedelta = datetime.timedelta(0)


@dataclass
class Outer:
    inner: Inner
    names: list[str] = field(default_factory=list)
    price: Decimal | None = None
    within: Outer | None = None


class Pair(NamedTuple):
    low: int
    high: int = 1


class Row(TypedDict):
    n: int
    day: datetime.date


def outcome(read: Callable[[str], Any], text: str) -> Any:
    """What a function makes of a text, with its type; NaN equals NaN."""
    try:
        found = read(text)
    except (ValueError, InvalidOperation, OverflowError, RecursionError):
        return "refused"
    return type(found), repr(found)


NUMBERS = st.from_regex(r"\A\s?[+-]?(\d{1,3}(_\d)?)?\.?\d{0,20}(e[+-]?\d{1,3})?\s?\Z") | st.sampled_from(
    ["nan", "NaN", "inf", "-inf", "+Infinity", ".5", "1.", "+5", "-.5e-3", "1_000", "0x10", "1e400", "", ".", "5.0"]
)
TEXTS = NUMBERS | st.text(max_size=8) | st.integers().map(str) | st.floats().map(repr) | st.decimals().map(str)


@given(TEXTS)
def test_numbers_are_read_as_python_reads_them(text: str) -> None:
    for hint in (int, float, Decimal):
        assert outcome(lambda one, hint=hint: parse_text(one, hint), text) == outcome(hint, text)
        assert outcome(lambda one, hint=hint: parse_text(one, hint | None), text) == (
            (type(None), "None") if text.strip().lower() in ("null", "none") else outcome(hint, text)
        )


@given(TEXTS | st.text().map(json.dumps) | st.sampled_from(["null", "true", '"', "'a'", "[1]", '{"a": 1}', "@file"]))
def test_a_parameter_of_text_gets_the_text(text: str) -> None:
    assert parse_text(text, str) == text
    if text.strip().lower() not in ("null", "none", '"null"', '"none"'):
        optional = parse_text(text, str | None)
        assert optional == text or (optional is not None and optional in text)


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("null", str | None, None),
        ('"null"', str | None, "null"),
        ("'None'", str | None, "None"),
        ('"a"', str | None, '"a"'),
        ('"3"', int | str, "3"),
        ("007", int | str, "007"),
        ("nan", str | float, "nan"),
        ("['a', 'b']", list[str], ["a", "b"]),
        ("(1, 2)", tuple[int, int], (1, 2)),
        ("{'a': None}", dict[str, int | None], {"a": None}),
        ("[1.10, 0.1000000000000000055]", list[Decimal], [Decimal("1.10"), Decimal("0.1000000000000000055")]),
        ("[1.10, -2.50,]", list[Decimal], [Decimal("1.10"), Decimal("-2.50")]),
        ("[.5]", list[float], [0.5]),
        ('{"1": "a"}', dict[int, str], {1: "a"}),
        ("2", Mode, Mode.SLOW),
        ("FAST", Mode, Mode.FAST),
        ("f", Mode, Mode.FAST),
        ("'FAST'", Mode, Mode.FAST),
        ("1+2j", complex, 1 + 2j),
        ("10m", datetime.timedelta, datetime.timedelta(minutes=10)),
        ('"10m"', datetime.timedelta, datetime.timedelta(minutes=10)),
        ("08:30", datetime.time, datetime.time(8, 30)),
        ("2026-03-01T08:00:00Z", datetime.datetime, datetime.datetime(2026, 3, 1, 8, tzinfo=datetime.UTC)),
        ("{12345678-1234-5678-1234-567812345678}", UUID, UUID("12345678123456781234567812345678")),
        ('{"n": 1, "wait": "10m"}', Inner, Inner(1, datetime.timedelta(minutes=10))),
        ('{"n": 1, "wait": 90}', Inner, Inner(1, datetime.timedelta(seconds=90))),
        ('{"inner": {"n": 1}, "price": 1.10}', Outer, Outer(Inner(1), price=Decimal("1.10"))),
        ('{"inner": {"n": 1}, "within": {"inner": {"n": 2}}}', Outer, Outer(Inner(1), within=Outer(Inner(2)))),
        ("[1, 2]", Pair, Pair(1, 2)),
        ('{"low": 1}', Pair, Pair(1)),
        ('{"n": 1, "day": "2026-03-01"}', Row, {"n": 1, "day": datetime.date(2026, 3, 1)}),
        ('{"rate": "0.5", "price": 1.10}', Optimizer, Optimizer(rate=0.5, price=Decimal("1.10"))),
        ('{"names": "a,b"}', Before, Before(names=["a", "b"])),
        ('{"optimizer": {"rate": 1, "children": [{"rate": 2}]}, "more": 3}', Config,
         Config(optimizer=Optimizer(rate=1, children=[Optimizer(rate=2)]))),
    ],
)  # fmt: skip
def test_texts_of_other_types(text: str, hint: Any, value: Any) -> None:
    found = parse_text(text, hint)
    assert found == value and repr(found) == repr(value)
    # What the command sends, the platform accepts, and the step reads the same.
    written = to_json(found, hint)
    assert mismatch(written, json_schema.schema(hint)) is None
    assert codec.decode(json.loads(json.dumps(written)), hint) == value


@pytest.mark.parametrize(
    ("text", "hint", "says"),
    [
        ('[1, 2, "x", 4]', list[int], 'c[2]: expected int, got "x"'),
        ('{"a": [1, "b"]}', dict[str, list[float]], 'c.a[1]: expected float, got "b"'),
        ('{"a": 1}', dict[int, int], 'c.a: expected a key that is int, got "a"'),
        ("MEDIUM", Mode, 'c: expected one of FAST, SLOW, got "MEDIUM"'),
        ("x", Literal["a", 1] | None, 'c: expected one of "a", 1 or None, got "x"'),
        ("x", Annotated[float | None, "rate"], 'c: expected float or None, got "x"'),
        ("3.5", int, "c: expected int, got 3.5"),
        ("yes", bool, 'c: expected bool (true or false), got "yes"'),
        ("soon", datetime.timedelta, 'c: expected timedelta in seconds or such as 90s, 10m, 1h30m or 2d, got "soon"'),
        ("1.3.2026", datetime.date, 'c: expected date such as 2026-03-01, got "1.3.2026"'),
        ("1,5", Decimal, 'c: expected Decimal, got "1,5"'),
        ("[1, 2", list[int], "c: not valid JSON: Expecting ',' delimiter: line 1 column 6 (char 5)"),
        ("[1]", tuple[int, int], "c: expected at least 2 items, got [1]"),
        ('{"inner": {"n": "x"}}', Outer, 'c.inner.n: expected int, got "x"'),
        ('{"inner": {"m": 1}}', Outer, "c.inner.n: missing, expected int; c.inner.m: unknown field (fields: n, wait)"),
        ('{"inner": {"n": 1}, "within": {"inner": 3}}', Outer, "c.within.inner: 3 (int) is not Inner"),
        ('{"n": "x"}', Row, 'c.day: missing, expected date such as 2026-03-01; c.n: expected int, got "x"'),
        ('{"optimizer": {"rate": -1}}', Config, "c.optimizer.rate: expected float greater than 0, got -1"),
        ('{"optimizer": {"rate": 1, "layers": ["a"]}}', Config, 'c.optimizer.layers[0]: expected int, got "a"'),
        (
            '{"optimizer": {}, "mode": "x"}',
            Config,
            "c.optimizer.rate: missing, expected float; c.mode: expected one of",
        ),
        ('{"names": 3}', Before, "c.names: Input should be a valid list, got 3 (int)"),
        ('{"optimizer": ' + json.dumps(["x" * 1000]) + "}", Config, "c.optimizer: expected Optimizer, got a list (["),
    ],
)
def test_an_error_names_the_part_and_never_shows_the_whole(text: str, hint: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_text(text, hint, "c")
    assert str(caught.value).startswith(says) and len(str(caught.value)) < 200
    try:
        value = json.loads(text)
    except ValueError:
        return
    with pytest.raises(InputError) as again:
        check_value(value, hint, "c")
    assert str(again.value).startswith(says)


HINTS: list[Any] = [
    list[int], list[float | None], dict[str, int], tuple[int, str], list[bool], dict[str, list[str]], Mode, list[Mode],
    Optimizer, Config, Row, Literal["a", "b"], list[datetime.date], int | None,
]  # fmt: skip
DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, -1.0, "a", "2026-03-01", "f", "5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["rate", "layers", "optimizer", "n", "day", "mode", "name"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(HINTS), DATA)
def test_what_is_accepted_has_the_value_that_pydantic_gives(hint: Any, data: Any) -> None:
    text = json.dumps(data)
    try:
        found = parse_text(text, hint)
    except InputError:
        return
    if isinstance(found, Mode) or (isinstance(found, list) and any(isinstance(one, Mode) for one in found)):
        return  # by name, which pydantic does not know
    expected = TypeAdapter(hint).validate_json(text)
    assert found == expected
    assert math.isclose(len(repr(found)), len(repr(expected)), abs_tol=2 if isinstance(found, dict) else 0)


@given(st.sampled_from([Optimizer, Config]), DATA)
def test_pydantic_models_are_refused_where_pydantic_refuses_them(model: type[BaseModel], data: Any) -> None:
    """The schema that the platform checks is no stricter than the model: what pydantic takes, it takes."""
    try:
        model.model_validate(data)
    except ValueError:
        return
    assert mismatch(data, json_schema.schema(model)) is None
