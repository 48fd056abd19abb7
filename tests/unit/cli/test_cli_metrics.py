"""Sparklines of series."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_cli.display import output
from penstock_cli.runs import compare
from penstock_cli.runs.metrics import number, sparkline


@pytest.fixture(autouse=True)
def bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "symbols", lambda better, plain: better)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▅"),
        ([0.0, 7.0], "▁█"),
        ([3.0, 3.0, 3.0], "▅▅▅"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([0.0, math.nan, 7.0], "▁ █"),
        ([math.inf, 1.0, -math.inf], " ▅ "),
        ([-1e308, 1e308], "▁█"),
        ([0.0] * 10 + [8.0] * 10, "▁▁██"),
    ],
)
def test_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values, 4 if len(values) == 20 else 20) == line


@given(st.lists(st.floats(), max_size=200), st.integers(1, 80))
def test_sparklines_of_any_values_fit(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(width, len(values))


def test_human_readable_numbers() -> None:
    assert [number(value) for value in (None, math.nan, math.inf, 1 / 3, 1e-9)] == [
        "",
        "nan",
        "inf",
        "0.333333",
        "1e-09",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"artifact": "a" * 64}, "a" * 12),
        ("b" * 64, "b" * 12),
        ({"sha256": "c" * 64, "begins": "[1,2,3"}, "[1,2,3… " + "c" * 12),
        (1 / 3, "0.333333"),
        (None, "null"),
        ([1, "ü"], '[1, "ü"]'),
        ("red\x1b[31m", "red\N{REPLACEMENT CHARACTER}[31m"),
        ("x" * 100, "x" * 39 + "…"),
    ],
)
def test_comparison_cells(value: object, shown: str) -> None:
    assert compare.text(value) == shown
