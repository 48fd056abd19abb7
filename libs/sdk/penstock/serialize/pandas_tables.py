"""pandas tables and series as Parquet, with index and types.

What Parquet would change (columns of mixed objects, columns of one name, numbers as labels beside texts …) is found by
reading the types, and where there are object columns the values, back; such a table is refused here and pickled.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.serialize.formats import FormatNotApplicableError

_KIND = b"penstock.kind"
_COLUMN = "value"
_SAMPLE = 1000


def write(value: Any, path: Path) -> None:
    """Write a DataFrame or a Series.

    Raises:
        FormatNotApplicableError: it does not round-trip.
    """
    if type(value) not in (pd.DataFrame, pd.Series):
        raise FormatNotApplicableError(f"a {type(value).__name__} is more than a pandas table")
    series = isinstance(value, pd.Series)
    # A series' name may be anything; it is kept by pandas' own metadata only when it is a text.
    frame: Any = value.to_frame(_COLUMN) if series else value
    if series and not (value.name is None or type(value.name) is str):
        raise FormatNotApplicableError("its name is not a string")
    table = _table(frame)
    metadata: dict[bytes, bytes] = dict(table.schema.metadata or {})
    metadata[_KIND] = b"series" if series else b"frame"
    if series and value.name is not None:
        metadata[b"penstock.name"] = str(value.name).encode("utf-8", "surrogatepass")
    table = table.replace_schema_metadata(metadata)
    if not _round_trips(table, frame):
        raise FormatNotApplicableError(
            "Parquet does not preserve it: give each column one type, and use strings as column names"
        )
    dictionaries: Any = _repeating(table)
    pq.write_table(table, path, use_dictionary=dictionaries)


def read(path: Path) -> Any:
    """Read what `write` wrote; any other Parquet file as a DataFrame."""
    table = pq.read_table(path)
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    frame = table.to_pandas()
    if metadata.get(_KIND) != b"series":
        return frame
    name = metadata.get(b"penstock.name")
    return frame[_COLUMN].rename(name.decode("utf-8", "surrogatepass") if name is not None else None)


def _table(frame: pd.DataFrame) -> Any:
    try:
        with warnings.catch_warnings():
            # pandas and pyarrow warn of what they will change; that is what `FormatNotApplicableError` is for.
            warnings.simplefilter("error")
            return pa.Table.from_pandas(frame)
    except Exception as error:
        raise FormatNotApplicableError(f"Parquet cannot store it: {error}") from error


def _repeating(table: Any) -> bool | list[str]:
    """Return the columns that a dictionary encoding makes smaller: those whose sample has repeated values.

    Building one for measurements, which all differ, takes most of the time that a file takes and saves nothing.
    """
    types: Any = pa.types
    if table.num_rows < _SAMPLE or any(types.is_nested(field.type) for field in table.schema):
        return True  # too small to matter; the parts of nested columns have names of their own
    rows = np.linspace(0, table.num_rows - 1, _SAMPLE).astype(np.int64)
    count: Any = pc.count_distinct  # type: ignore[attr-defined] - made when the module is loaded
    found: list[str] = []
    for name, column in zip(table.column_names, table.take(pa.array(rows)).columns, strict=True):
        try:
            repeats = count(column, mode="all").as_py() <= _SAMPLE // 2
        except pa.ArrowNotImplementedError:
            repeats = True
        if repeats:
            found.append(name)
    return found


def _round_trips(table: Any, frame: pd.DataFrame) -> bool:
    """Whether reading gives the same types; for objects, whose values may change without it, the same values."""
    index: Any = frame.index
    objects = any(_is_object(dtype) for dtype in [*frame.dtypes, *_levels(index)])
    try:
        found = (table if objects else table.slice(0, 0)).to_pandas()
        same: bool = (
            list(found.dtypes) == list(frame.dtypes)
            and found.columns.equals(frame.columns)
            and found.columns.dtype == frame.columns.dtype
            and list(found.columns.names) == list(frame.columns.names)
            and _kind(found.columns) is _kind(frame.columns)
            and _levels(found.index) == _levels(index)
            and list(found.index.names) == list(index.names)
        )
        return same and (not objects or _equal_objects(found, frame))
    except Exception:
        return False


def _kind(labels: Any) -> type:
    """A RangeIndex may come back as an integer index."""
    return pd.Index if isinstance(labels, pd.RangeIndex) else type(labels)


def _levels(index: Any) -> list[Any]:
    return list(index.dtypes) if isinstance(index, pd.MultiIndex) else [index.dtype]


def _is_object(dtype: Any) -> bool:
    return bool(dtype == np.dtype(object))


def _equal_objects(found: pd.DataFrame, frame: pd.DataFrame) -> bool:
    """Object values must be equal, of the same types, and missing in the same way."""
    pairs: list[tuple[Any, Any]] = [(found.index, frame.index)] if any(map(_is_object, _levels(frame.index))) else []
    pairs += [(found.iloc[:, i], frame.iloc[:, i]) for i, dtype in enumerate(frame.dtypes) if _is_object(dtype)]
    return all(_same(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one is other or one == other)
