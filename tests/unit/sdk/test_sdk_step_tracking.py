"""Values that `context()` accepts and rejects: numbers, tags, tables."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock import context
from penstock.runner.recorder import Recorder
from penstock.step_context import tables
from penstock.step_context.contexts import Context, MemorySink
from penstock_core.queries import series

WRONG_METRICS: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "a text": (("loss", "0.1"), TypeError, r"log_metric\('loss'\): the value must be a number, not str"),
    "nothing": (("loss", None), TypeError, "must be a number, not NoneType"),
    "a complex number": (("loss", 1j), TypeError, "must be a number, not complex"),
    "several numbers": (("loss", np.zeros(3)), TypeError, "must be a number, not ndarray"),
    "a huge number": (("loss", 10**400), ValueError, "too large for a floating-point number"),
    "no name": (("", 1.0), ValueError, "1 to 200 characters, not 0"),
    "a long name": (("x" * 201, 1.0), ValueError, "1 to 200 characters, not 201"),
    "a name that is no text": ((3, 1.0), TypeError, "the name must be text, not int"),
    "a list for a name": ((["a"], 1.0), TypeError, "the name must be text, not list"),
    "a control character": (("a\nb", 1.0), ValueError, "control characters"),
    "half a character": (("a\ud800", 1.0), ValueError, "lone surrogate"),
    "half a step": (("loss", 1.0, 0.5), TypeError, "step must be a whole number, not float"),
    "a huge step": (("loss", 1.0, 2**63), ValueError, "more than 63 bits"),
}


@pytest.mark.parametrize(("given", "error", "text"), WRONG_METRICS.values(), ids=WRONG_METRICS.keys())
def test_an_invalid_metric_is_reported(given: tuple[Any, ...], error: type[Exception], text: str) -> None:
    sink = MemorySink()
    with pytest.raises(error, match=text):
        Context(sink=sink).log_metric(*given)
    assert not sink.history


def test_several_metrics_and_parameters_are_logged_at_once() -> None:
    sink = MemorySink()
    mine = Context(sink=sink)
    mine.log_metrics({"loss": np.float32(0.5), "accuracy": 1}, step=3)
    mine.log_params({"solver": "sgd", "layers": [1, 2]})
    assert [(one.name, one.value, one.step) for one in sink.history] == [("loss", 0.5, 3), ("accuracy", 1.0, 3)]
    assert mine.params == {"solver": "sgd", "layers": [1, 2]}
    with pytest.raises(TypeError, match=r"log_metric\('text'\): the value must be a number"):
        mine.log_metrics({"text": "x"})  # type: ignore[dict-item]
    for method in (mine.log_metrics, mine.log_params):
        with pytest.raises(TypeError, match=r"takes a dictionary of values by name, not list"):
            method([("loss", 1.0)])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name must be text, not int"):
        mine.log_params({1: 2})  # type: ignore[dict-item]


def test_metrics_accept_library_numbers_and_special_values() -> None:
    sink = MemorySink()
    mine = Context(sink=sink)
    mine.log_metric("a", np.float32(0.5), step=np.int64(3))
    mine.log_metric("a", True)
    mine.log_metric("a", math.nan)
    mine.log_metric("a", math.inf)
    values = [(one.value, one.step) for one in sink.history]
    assert values[:2] == [(0.5, 3), (1.0, None)]
    assert math.isnan(values[2][0])
    assert values[3] == (math.inf, None)
    assert all(type(value) is float for value, _ in values)


WRONG_TAGS: dict[str, tuple[tuple[Any, ...], type[Exception], str]] = {
    "a list": (("stage", ["a"]), TypeError, r"set_tag\('stage'\): the value must be a string or a number, not list"),
    "a long text": (("stage", "x" * 1001), ValueError, "at most 1,000 characters"),
    "a control character": (("stage", "a\0"), ValueError, "no control characters"),
    "a long name": (("x" * 101, "a"), ValueError, "1 to 100 characters, not 101"),
    "a name of two lines": (("a\nb", "a"), ValueError, "set_tag: the name .* has control characters"),
}


@pytest.mark.parametrize(("given", "error", "text"), WRONG_TAGS.values(), ids=WRONG_TAGS.keys())
def test_an_invalid_tag_is_reported(given: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Context().set_tag(*given)


def test_tags_are_text_and_bounded() -> None:
    sink = MemorySink()
    mine = Context(sink=sink)
    mine.set_tag("stage", "candidate")
    mine.set_tag("stage", "final")
    mine.set_tag("fold", 3)
    assert mine.tags == sink.tags == {"stage": "final", "fold": "3"}
    for number in range(62):
        mine.set_tag(f"t{number}", "x")
    mine.set_tag("t3", "y")
    with pytest.raises(ValueError, match="at most 64 tags"):
        mine.set_tag("one more", "x")


def test_everything_works_outside_of_a_step() -> None:
    context().log_metric("outside", 1.0, step=1)
    context().set_tag("outside", "yes")
    context().log_table("outside", [{"a": 1}])
    assert context().metrics["outside"] == 1.0
    assert context().tags["outside"] == "yes"


ROWS = [{"a": 1, "b": "x"}, {"a": 2.5, "b": None}]
TABLES: dict[str, object] = {
    "rows": ROWS,
    "columns": {"a": [1, 2.5], "b": ["x", None]},
    "columns of arrays": {"a": np.array([1, 2.5]), "b": ("x", None)},
    "pandas": pd.DataFrame(ROWS),
    "polars": pl.DataFrame({"a": [1.0, 2.5], "b": ["x", None]}),
    "pyarrow": pa.table({"a": [1.0, 2.5], "b": ["x", None]}),
}


@pytest.mark.parametrize("given", TABLES.values(), ids=TABLES.keys())
def test_tables_of_several_forms_are_accepted(given: object) -> None:
    sink = MemorySink()
    Context(sink=sink).log_table("t", given)
    kept: Any = sink.artifacts["t"]
    rows = (
        kept.to_pylist() if isinstance(kept, pa.Table) else kept.to_dict(*(["records"] if hasattr(kept, "loc") else []))
    )
    if isinstance(kept, pa.Table):
        assert rows == [{"a": 1.0, "b": "x"}, {"a": 2.5, "b": None}]


def test_an_empty_table_and_cells_of_all_kinds() -> None:
    sink = MemorySink()
    mine = Context(sink=sink)
    mine.log_table("empty", [])
    day = datetime.date(2026, 1, 2)
    mine.log_table("kinds", [{"d": day, "t": datetime.datetime(2026, 1, 2), "y": b"1", "n": np.int8(3), "o": True}])
    kept: Any = sink.artifacts["kinds"]
    assert kept.to_pylist()[0]["d"] == day
    mine.log_table("large", {"n": [2**70]})
    assert sink.artifacts["large"] == [{"n": 2**70}]


WRONG_TABLES: dict[str, tuple[object, type[Exception], str]] = {
    "a number": (3, TypeError, r"log_table\('t'\): a int is not a table: pass a table of pandas"),
    "a text": ("abc", TypeError, "a str is not a table"),
    "a series": (pd.Series([1]), TypeError, "a Series is not a table"),
    "a list of numbers": ([1, 2], TypeError, "row 0 must be a dictionary, not int"),
    "a row with another column": (
        [{"a": 1}, {"a": 1, "b": 2}],
        ValueError,
        r"row 1 and row 0 have different columns .*'b'",
    ),
    "a row without a column": ([{"a": 1, "b": 2}, {"a": 1}], ValueError, "use None for missing values"),
    "columns of two lengths": ({"a": [1], "b": [1, 2]}, ValueError, "'a' has 1, 'b' has 2"),
    "a column that is a text": ({"a": "xyz"}, TypeError, "column 'a' must be a list, not str"),
    "a column without name": ({3: [1]}, TypeError, "column names must be strings, not 3"),
    "texts among numbers": ({"a": [1, None, "x"]}, TypeError, r"mixes numbers \(row 0\) with texts \(row 2\)"),
    "a list in a cell": ([{"a": [1]}], TypeError, "row 0, column 'a': a list cannot be a cell"),
}


@pytest.mark.parametrize(("given", "error", "text"), WRONG_TABLES.values(), ids=WRONG_TABLES.keys())
def test_an_invalid_table_is_reported_with_its_row(given: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Context().log_table("t", given)


def test_without_a_table_library_rows_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    assert tables.table("t", {"a": [1, 2], "b": ["x", None]}) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


# ----------------------------------------------------------------------------------------------------------- recorder


def recorder(folder: Path) -> Recorder:
    same = dict[str, Any]
    return Recorder(str(folder / "slot"), lambda name, value: {"value": 1}, same, lambda saved: None, same)


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "slot.points").read_bytes().splitlines()]


def test_a_recorder_writes_a_line_for_each_measurement(tmp_path: Path) -> None:
    sink = recorder(tmp_path)
    mine = Context(sink=sink)
    for value in (0.1, math.nan, math.inf, -math.inf, 1e308):
        mine.log_metric('a "name" \N{SNOWMAN}', value, step=-1)
    mine.log_metric("other", 1e-300)
    found = lines(tmp_path)
    assert [line[3] for line in found] == [0.1, "nan", "inf", "-inf", 1e308, 1e-300]
    assert [line[0] for line in found][-2:] == ['a "name" \N{SNOWMAN}', "other"]
    assert [line[1] for line in found][-2:] == [-1, None]
    assert sink.size == (tmp_path / "slot.points").stat().st_size
    assert sink.metrics == {'a "name" \N{SNOWMAN}': 1e308, "other": 1e-300}


def test_excess_measurements_are_dropped_with_one_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(series, "NAMES", 3)
    monkeypatch.setattr(series, "POINTS", 10)
    mine = Context(sink=recorder(tmp_path))
    for number in range(5):
        mine.log_metric(f"m{number}", 1.0)
    for number in range(20):
        mine.log_metric("m0", float(number))
    assert len(lines(tmp_path)) == 10
    assert {line[0] for line in lines(tmp_path)} == {"m0", "m1", "m2"}
    assert capsys.readouterr().err.count("further metrics are dropped") == 1
    assert mine.metrics["m0"] == 19.0
