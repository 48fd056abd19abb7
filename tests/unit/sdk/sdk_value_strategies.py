"""Generated values of every supported type, and strict equality, written without the product's code."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import zoneinfo
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pydantic
from hypothesis import strategies as st


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = (1, 2)


class Kind(str, enum.Enum):  # noqa: UP042 - the older form is what users have
    A = "a"


class Level(enum.IntEnum):
    ONE = 1


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Pair(NamedTuple):
    left: Any
    right: Any = None


@dataclasses.dataclass(frozen=True)
class Node:
    value: Any
    more: Any = None


class Base(pydantic.BaseModel):
    n: int = 1


class Derived(Base):
    m: Any = None


class Model(pydantic.BaseModel):
    model_config = {"extra": "allow", "serialize_by_alias": True, "populate_by_name": True}
    count: int = pydantic.Field(default=3, alias="theCount")
    mode: Mode = Mode.FAST
    anything: Any = None
    base: Base = Base()
    ratio: float = 1.0
    at: dt.datetime | None = None
    path: Path | None = None
    _hidden: int = pydantic.PrivateAttr(default=0)


_zones = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=2)), zoneinfo.ZoneInfo("Europe/Berlin")])
_times = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1), timezones=_zones)
_numpy_scalars = st.sampled_from(
    [
        *(np.float64(0.1), np.float32(0.5), np.float16(-0.0), np.int8(-3), np.uint64(2**63), np.bool_(True)),
        *(np.str_("x"), np.datetime64("2026-01-01"), np.timedelta64(3, "s"), np.complex64(1j), np.float64("nan")),
    ]
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.characters(categories=["Cs"]),
    st.binary(max_size=5),
    st.complex_numbers(),
    st.decimals(places=3) | st.sampled_from(list(map(decimal.Decimal, ["1.10", "-0", "1E+3", "NaN", "Infinity"]))),
    _times,
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    _numpy_scalars,
    st.sampled_from([*Mode, *Kind, *Level, Rights.READ, Rights.READ | Rights.WRITE, Rights(0)]),
    st.sampled_from([range(3), bytearray(b"x"), dt.UTC, ...]),
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.text(max_size=3) | st.integers() | st.booleans() | st.sampled_from(["$type", Kind.A, Mode.FAST, (1, "a")])
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict),
        st.sets(st.integers() | st.text(max_size=2), max_size=3),
        st.frozensets(st.booleans() | st.floats(allow_nan=False), max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Node, inner, inner),
        st.builds(Derived, m=inner),
        st.lists(st.sampled_from("ab")).map(Counter),
        models(inner),
    )


@st.composite
def models(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Model:
    given: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "theCount": st.integers(0, 3),
                "mode": st.sampled_from(Mode),
                "anything": inner,
                "base": st.sampled_from([Base(n=2), Derived(m=Kind.A)]),
                "ratio": st.floats(),
                "at": _times,
                "other": inner,
            },
        )
    )
    made = Model(**given)
    made._hidden = draw(st.integers(0, 1))
    return made


def _array(draw: st.DrawFn, rows: int) -> Any:
    """A pandas array of one of its types."""
    numbers = draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))
    maybe = [None if n == 3 else n for n in numbers]
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    times = pd.array(pd.to_datetime(numbers, unit="D")).as_unit(unit)
    kinds: list[Any] = [
        lambda: np.array(numbers, dtype=draw(st.sampled_from(["i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "?"]))),
        lambda: np.array([-0.0 if n == 0 else np.nan if n == 1 else n for n in numbers]),
        lambda: np.array(numbers, dtype="c16"),
        lambda: pd.array(maybe, dtype=draw(st.sampled_from(["Int8", "UInt32", "Int64", "Float32", "Float64"]))),
        lambda: pd.array([None if n is None else bool(n) for n in maybe], dtype="boolean"),
        lambda: pd.array(
            [None if n is None else "abc"[n] for n in maybe], dtype=draw(st.sampled_from(["str", "string"]))
        ),
        lambda: pd.array(numbers, dtype=draw(st.sampled_from(["int16[pyarrow]", "double[pyarrow]"]))),
        lambda: times,
        lambda: times.tz_localize(draw(st.sampled_from(["UTC", "Europe/Berlin", "+02:00"]))),
        lambda: pd.array(pd.to_timedelta(numbers, unit="D")).as_unit(unit),
        lambda: times.to_period(draw(st.sampled_from(["D", "M", "Y"]))),
        lambda: pd.arrays.IntervalArray.from_breaks(
            list(range(rows + 1)), closed=draw(st.sampled_from(["left", "both"]))
        ),
        lambda: pd.arrays.SparseArray(numbers),
        lambda: _objects([[n] if n else "x" for n in numbers]),
        lambda: _objects([decimal.Decimal(n).scaleb(-n) for n in numbers]),
        lambda: _objects([dt.date(2026, 1, 1 + n) for n in numbers]),
        lambda: _objects([{"a": n} if n else [n] for n in numbers]),
        lambda: _objects([n > 1 if n else None for n in numbers]),
    ]
    made = draw(st.sampled_from(kinds))()
    if draw(st.integers(0, 3)) == 0:
        values = (
            pd.Series(made).dropna() if not isinstance(made, pd.arrays.SparseArray) else pd.Series(np.asarray(made))
        )
        try:
            found = list(dict.fromkeys(values))
            more = draw(st.permutations(found))
            return pd.Categorical(made, categories=pd.Index(more, dtype=values.dtype), ordered=draw(st.booleans()))
        except (TypeError, ValueError, NotImplementedError):
            return made
    return made


def _objects(values: list[Any]) -> Any:
    made = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        made[i] = value
    return made


def _index(draw: st.DrawFn, rows: int) -> Any:
    kinds: list[Any] = [
        lambda: pd.RangeIndex(rows),
        lambda: pd.RangeIndex(5, 5 + 2 * rows, 2, name=draw(st.sampled_from([None, "r"]))),
        lambda: pd.Index(_array(draw, rows), name=draw(st.sampled_from([None, "i", 3]))),
        lambda: pd.MultiIndex.from_arrays([_array(draw, rows), _array(draw, rows)], names=["a", None]),
        lambda: pd.date_range(
            "2026-01-05",
            periods=rows,
            freq=draw(st.sampled_from(["D", "W-MON", "h"])),
            tz=draw(st.sampled_from([None, "Europe/Berlin"])),
        ),
        lambda: pd.timedelta_range("1h", periods=rows, freq="h"),
        lambda: pd.CategoricalIndex(list(range(rows)), categories=list(range(rows + 2))[::-1]),
    ]
    try:
        return draw(st.sampled_from(kinds))()
    except (TypeError, NotImplementedError):  # pandas itself makes no index of such values
        return pd.RangeIndex(rows)


@st.composite
def pandas_tables(draw: st.DrawFn) -> Any:
    rows = draw(st.integers(0, 4))
    columns = [pd.Series(_array(draw, rows)) for _ in range(draw(st.integers(0, 3)))]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(rows))
    labels: list[Any] = draw(
        st.sampled_from([["a", "b", "c"], ["a", "a", "b"], [0, 1, 2], ["a", 1, None], [("x", 1), ("x", 2), ("y", 1)]])
    )
    names = labels[: len(columns)]
    frame.columns = pd.MultiIndex.from_tuples(names) if names and isinstance(names[0], tuple) else pd.Index(names)
    frame.index = _index(draw, rows)
    if draw(st.integers(0, 9)) == 0:
        frame.attrs["source"] = draw(st.sampled_from(["x", (1, 2)]))
    if len(columns) == 1 and draw(st.booleans()):
        return frame.iloc[:, 0].rename(draw(st.sampled_from([None, "s", 3])))
    return frame


@st.composite
def polars_tables(draw: st.DrawFn) -> Any:
    rows = draw(st.integers(0, 4))
    numbers = [None if n == 3 else n for n in draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows))]
    texts = [None if n is None else "abc"[n] for n in numbers]
    whole = pl.Series("n", numbers, dtype=pl.Int64)
    kinds: list[Any] = [
        lambda: whole.cast(
            draw(
                st.sampled_from(
                    [pl.Int8, pl.UInt64, pl.Float32, pl.Boolean, pl.Decimal(10, 2), pl.Null if rows == 0 else pl.Int16]
                )
            )
        ),
        lambda: pl.Series(
            "t", texts, dtype=draw(st.sampled_from([pl.String, pl.Categorical, pl.Enum(["c", "b", "a", "d"])]))
        ),
        lambda: whole.cast(
            pl.Datetime(
                draw(st.sampled_from(["ms", "us", "ns"])), draw(st.sampled_from([None, "UTC", "Europe/Berlin"]))
            )
        ),
        lambda: whole.cast(draw(st.sampled_from([pl.Date, pl.Time, pl.Duration("ms"), pl.Duration("ns")]))),
        lambda: pl.Series("l", [None if n is None else [n] * n for n in numbers], dtype=pl.List(pl.Int8)),
        lambda: pl.Series("s", [{"x": n} for n in numbers], dtype=pl.Struct({"x": pl.Int8})),
        lambda: pl.Series("a", [[n, n] for n in numbers], dtype=pl.Array(pl.Int8, 2)),
        lambda: pl.Series("f", [float("nan") if n == 0 else -0.0 for n in numbers], dtype=pl.Float64),
        lambda: pl.Series("b", [b"x"] * rows, dtype=pl.Binary),
    ]
    columns = [draw(st.sampled_from(kinds))().rename(f"c{i}") for i in range(draw(st.integers(0, 3)))]
    frame = pl.DataFrame(columns)
    return (
        frame.to_series().rename(draw(st.sampled_from(["", "s"])))
        if frame.width == 1 and draw(st.booleans())
        else frame
    )


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = draw(st.sampled_from([(), (0,), (3,), (2, 3), (0, 2)]))
    kind = draw(
        st.sampled_from(
            ["i1", ">i4", "f2", "f8", "c8", "?", "U3", "S2", "M8[s]", "m8[ns]", "O", "T", [("a", "i4"), ("b", "f8")]]
        )
    )
    made: Any = np.zeros(shape, dtype=kind, order=draw(st.sampled_from("CF")))
    return draw(
        st.sampled_from(
            [
                lambda: made,
                lambda: np.ma.masked_array(np.zeros(shape)),
                lambda: made.view(np.recarray) if made.dtype.names else made,
            ]
        )
    )()


@st.composite
def arrow_tables(draw: st.DrawFn) -> Any:
    rows = draw(st.integers(0, 3))
    kinds = [
        pa.int8(),
        pa.timestamp("s"),
        pa.timestamp("ns", "Europe/Berlin"),
        pa.duration("s"),
        pa.decimal128(5, 2),
        pa.list_(pa.int8()),
        pa.large_string(),
        pa.date64(),
        pa.float64(),
        pa.null(),
        pa.binary(3),
    ]
    columns: dict[str, Any] = {}
    for i in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(kinds))
        columns[f"c{i}"] = pa.nulls(rows, kind)
        if draw(st.booleans()) and kind not in (pa.null(),):
            columns[f"c{i}"] = columns[f"c{i}"].dictionary_encode() if kind == pa.int8() else columns[f"c{i}"]
    if draw(st.booleans()):
        columns["d"] = pa.DictionaryArray.from_arrays(
            pa.array([1] * rows, pa.int8()), draw(st.sampled_from([["x", "y"], [3, 1]]))
        )
    return pa.table(columns)


nested = st.recursive(scalars, _containers, max_leaves=6)
tables = pandas_tables() | polars_tables() | arrow_tables()
values = (
    nested
    | tables
    | arrays()
    | st.lists(tables | arrays() | scalars, max_size=3)
    | st.dictionaries(st.text(max_size=2), arrays() | scalars, max_size=2)
)


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same type and content, down to signs of zero, zones and labels."""
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.DataFrame | pd.Series | pd.Index):
        return _same_pandas(one, other)
    if isinstance(one, pl.DataFrame | pl.Series):
        schema = (
            one.schema == other.schema
            if isinstance(one, pl.DataFrame)
            else (one.dtype, one.name) == (other.dtype, other.name)
        )
        return bool(schema and one.equals(other))
    if isinstance(one, pa.Table):
        return bool(
            one.schema.equals(other.schema, check_metadata=True)
            and same(one.to_pylist(), other.to_pylist())
            and len(one) == len(other)
        )
    if isinstance(one, np.ndarray):
        return repr(one.dtype) == repr(other.dtype) and one.shape == other.shape and same(one.tolist(), other.tolist())
    if isinstance(one, pydantic.BaseModel):
        state = ["__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"]
        return all(same(getattr(one, name), getattr(other, name)) for name in state)
    if isinstance(one, Node):
        return same(vars(one), vars(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, dt.datetime):
        return same((str(one), one.fold, repr(one.tzinfo)), (str(other), other.fold, repr(other.tzinfo)))
    return repr(one) == repr(other) if not isinstance(one, set | frozenset) else one == other


def _same_pandas(one: Any, other: Any) -> bool:
    if isinstance(one, pd.Index):
        levels = [(one.get_level_values(i).array, other.get_level_values(i).array) for i in range(one.nlevels)]
        return (
            same(list(one.names), list(other.names))
            and getattr(one, "freq", None) == getattr(other, "freq", None)
            and all(_same_array(a, b) for a, b in levels)
        )
    if isinstance(one, pd.Series):
        return same(one.name, other.name) and same(one.index, other.index) and _same_array(one.array, other.array)
    return (
        one.shape == other.shape
        and one.attrs == other.attrs
        and same(one.index, other.index)
        and (
            same(one.columns, other.columns)
            or (isinstance(one.columns, pd.RangeIndex) or isinstance(other.columns, pd.RangeIndex))
        )
        and all(_same_array(one.iloc[:, i].array, other.iloc[:, i].array) for i in range(one.shape[1]))
    )


def _same_array(one: Any, other: Any) -> bool:
    if repr(one.dtype) != repr(other.dtype):
        return False
    if isinstance(one, pd.Categorical):
        return _same_array(one.categories.array, other.categories.array) and list(one.codes) == list(other.codes)
    return same([_bare(x) for x in one], [_bare(x) for x in other])


def _bare(value: Any) -> Any:
    return (str(value), str(getattr(value, "unit", ""))) if isinstance(value, pd.Timestamp | pd.Timedelta) else value
