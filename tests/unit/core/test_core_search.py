"""Queries for runs as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.queries import search
from penstock_core.queries.search import Condition, InvalidQueryError, Key, Label, Sort

numbers = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(exclude_characters="<>=!", exclude_categories=["Cs", "Cc", "Zs"]), min_size=1).map(
    lambda text: text.strip()[:200]
)


@given(
    names.filter(bool), st.sampled_from(["<", "<=", ">", ">=", "=", "!="]), numbers, st.sampled_from(["", " ", "  "])
)
def test_conditions_round_trip(name: str, operator: str, number: float, space: str) -> None:
    read = search.condition(f"{name}{space}{operator}{space}{number!r}", numeric=True)
    assert (read.name, read.operator, read.number) == (name, operator, number)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("loss<0.2", Condition("loss", "<", "0.2", 0.2)),
        ("val/acc>=90e-2", Condition("val/acc", ">=", "90e-2", 0.9)),
        ("model=forest", Condition("model", "=", "forest")),
        ("model != a=b", Condition("model", "!=", "a=b")),
        ("name=", Condition("name", "=", "")),
        ("x=nan", Condition("x", "=", "nan")),
    ],
)
def test_conditions(text: str, read: Condition) -> None:
    assert search.condition(text) == read


@pytest.mark.parametrize("text", ["", "loss", "<0.2", "loss<", "loss<high", "a" * 201 + "=1", "a=" + "b" * 1001])
def test_invalid_conditions(text: str) -> None:
    with pytest.raises(InvalidQueryError, match=r"write a name|text can be compared"):
        search.condition(text)


def test_a_metric_is_compared_with_numbers_only() -> None:
    with pytest.raises(InvalidQueryError, match="not a number"):
        search.condition("loss=low", numeric=True)


def test_labels() -> None:
    assert search.label("team=a=b") == Label("team", "a=b")
    assert search.label("team=") == Label("team", "")
    assert search.label("team") == Label("team", None)
    with pytest.raises(InvalidQueryError, match="name=text"):
        search.label("=x")


@pytest.mark.parametrize("text", ["created_at", "-duration", "finished_at", "metric:loss", "-param:a:b"])
def test_orders_round_trip(text: str) -> None:
    assert str(search.sort(text)) == text


@pytest.mark.parametrize("text", ["", "-", "state", "metric", "metric:", "duration:x", "--duration"])
def test_invalid_orders(text: str) -> None:
    with pytest.raises(InvalidQueryError, match="metric:NAME"):
        search.sort(text)


orders = st.builds(Sort, st.sampled_from(search.COLUMNS), st.just(""), st.booleans()) | st.builds(
    Sort, st.sampled_from(["metric", "param"]), st.text(min_size=1, max_size=20), st.booleans()
)


@given(orders, numbers, st.from_regex(r"[A-Za-z0-9_-]{1,100}", fullmatch=True))
def test_cursors_round_trip(order: Sort, value: float, run_id: str) -> None:
    text = search.cursor(order, Key(value, run_id))
    assert search.parse_cursor(text, order) == Key(value, run_id)
    assert text.replace("-", "").replace("_", "").isalnum()
    with pytest.raises(InvalidQueryError):
        search.parse_cursor(text, Sort("duration", "", not order.descending))


@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{0,60}", fullmatch=True) | st.binary(max_size=40).map(str))
def test_invalid_cursors_are_rejected(text: str) -> None:
    with pytest.raises(InvalidQueryError, match="omit it"):
        search.parse_cursor(text, Sort())
