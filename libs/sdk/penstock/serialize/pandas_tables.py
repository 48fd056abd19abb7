"""pandas tables and series as Parquet, with index and types.

Parquet has no categories but texts, no times in seconds, and no frequency of an index. The file's metadata has what is
missing, and `read` restores it. The file is read back after it was written: small tables whole, of large ones the first
rows and the columns whose values can change. A table that would come back different is refused here and pickled.
"""

from __future__ import annotations

import base64
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.serialize import pandas_equality
from penstock.serialize.formats import FormatNotApplicableError

_KIND = b"penstock.kind"
_NAME = b"penstock.name"
_TYPES = b"penstock.types"
_FREQUENCY = b"penstock.frequency"
_COLUMN = "value"
_SAMPLE = 1000
_SMALL = 100_000
"""Maximum number of values of a table that is read back as a whole."""
_LARGEST_TYPES = 8 * 1024 * 1024
"""Largest size of the categories of a table in the metadata of its file, in bytes."""


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
        metadata[_NAME] = str(value.name).encode("utf-8", "surrogatepass")
    if any(map(_changes_in_parquet, table.schema.types)):
        metadata[_TYPES] = _encode_types(table)
    frequency = getattr(frame.index, "freqstr", None) if isinstance(frame.index, _TIMES) else None
    if frequency is not None:
        metadata[_FREQUENCY] = frequency.encode()
    table = table.replace_schema_metadata(metadata)
    dictionaries: Any = _repeating(table)
    try:
        pq.write_table(table, path, use_dictionary=dictionaries)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk is full, and so on
        raise FormatNotApplicableError(f"Parquet cannot store it: {error}") from error
    difference = _difference(path, frame)
    if difference is not None:
        raise FormatNotApplicableError(
            f"Parquet does not preserve {difference}: give each column one type, and use strings as column names"
        )


def read(path: Path) -> Any:
    """Read what `write` wrote; any other Parquet file as a DataFrame."""
    table = pq.read_table(path)
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    frame = _frame(table)
    if metadata.get(_KIND) != b"series":
        return frame
    name = metadata.get(_NAME)
    return frame[_COLUMN].rename(name.decode("utf-8", "surrogatepass") if name is not None else None)


_TIMES = (pd.DatetimeIndex, pd.TimedeltaIndex)


def _frame(table: Any) -> Any:
    """The DataFrame of a table from a file, with the types and the frequency that the file's metadata has."""
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    types = metadata.get(_TYPES)
    if types is not None:
        kept = pa.ipc.open_stream(base64.b64decode(types)).read_next_batch()
        for name, like in zip(kept.schema.names, kept.columns, strict=True):
            table = _restored(table, name, like)
    frame = table.to_pandas()
    frequency = metadata.get(_FREQUENCY)
    if frequency is not None and isinstance(frame.index, _TIMES):
        frame.index.freq = frequency.decode()
    return frame


def _changes_in_parquet(of: Any) -> bool:
    """Whether Parquet has no such type: categories, and times in seconds."""
    types: Any = pa.types
    return types.is_dictionary(of) or (types.is_timestamp(of) and of.unit == "s")


def _encode_types(table: Any) -> bytes:
    """Return the types that Parquet lacks, with all categories in order, as an Arrow stream of a batch without rows.

    Raises:
        FormatNotApplicableError: there are too many categories for a file's metadata.
    """
    columns: dict[str, Any] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            column = column.combine_chunks()
            columns[field.name] = column.slice(0, 0)
        elif _changes_in_parquet(field.type):
            columns[field.name] = pa.array([], field.type)
    batch = pa.RecordBatch.from_pydict(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    encoded = sink.getvalue()
    if encoded.size > _LARGEST_TYPES:
        raise FormatNotApplicableError("it has too many categories for Parquet")
    return base64.b64encode(encoded)


def _restored(table: Any, name: str, like: Any) -> Any:
    """Return the table with a column of the type of `like`, and of its categories if it has some."""
    position = table.schema.get_field_index(name)
    column = table.column(position)
    if pa.types.is_dictionary(like.type):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        index_in: Any = pc.index_in  # type: ignore[attr-defined] - made when the module is loaded
        codes = index_in(column, value_set=like.dictionary).cast(like.type.index_type).combine_chunks()
        column = pa.DictionaryArray.from_arrays(codes, like.dictionary, ordered=like.type.ordered)
    else:
        column = column.cast(like.type)
    return table.set_column(position, pa.field(name, like.type), column)


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


def _difference(path: Path, frame: pd.DataFrame) -> str | None:
    """Return what reading the file gives otherwise than it was, or None."""
    file = pq.ParquetFile(path)
    rows = len(frame)
    try:
        if frame.size + rows <= _SMALL:
            return pandas_equality.difference(_frame(file.read()), frame)
        if file.metadata.num_rows != rows:
            return "the number of rows"
        head = next(file.iter_batches(batch_size=_SAMPLE))
        found = _frame(pa.Table.from_batches([head]).replace_schema_metadata(file.schema_arrow.metadata))
        return pandas_equality.difference(found, frame.iloc[: len(found)], whole=False) or _changed_objects(file, frame)
    except Exception as error:
        return f"it ({error})"


def _changed_objects(file: Any, frame: pd.DataFrame) -> str | None:
    """Columns of objects are read back whole: any of their values can change."""
    if not any(map(pandas_equality.is_object, [*frame.dtypes, *pandas_equality.levels(frame.index)])):
        return None
    return pandas_equality.difference(_frame(file.read()), frame)
