"""Tables of pandas, polars and pyarrow as Parquet. The file's metadata names the library of the table.

What Parquet would not give back as it was is refused (`FormatNotApplicableError`): types are compared with those that
reading gives.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.serialize.formats import FormatNotApplicableError

KIND = "penstock.kind"
_NAME = "penstock.name"
_COLUMN = "value"
_SMALL = 100_000
"""Maximum number of values of a table that is read back as a whole; of larger ones, the first rows are."""
_HEAD = 1_000


def write(value: Any, path: Path) -> None:
    """Write a table, or a series.

    Raises:
        FormatNotApplicableError: it does not round-trip; the message says why.
    """
    library = next(
        cls.__module__.partition(".")[0]
        for cls in type(value).__mro__
        if cls.__module__.startswith(("pandas.", "polars.", "pyarrow."))
    )
    if library == "polars":
        _write_polars(value, path)
        return
    if importlib.util.find_spec("pyarrow") is None:
        raise FormatNotApplicableError("Parquet needs pyarrow, which is not installed: pip install pyarrow")
    if library == "pyarrow":
        _write_arrow(value, path)
    else:
        from penstock.serialize import pandas_tables

        pandas_tables.write(value, path)


def read(path: Path) -> Any:
    """Read a table with the library that wrote it; any other Parquet file as a pandas table.

    Raises:
        ImportError: that library is not installed.
    """
    kind, name = _kind(path)
    if kind.startswith("polars"):
        frame = _read_polars(path)
        return frame if kind == "polars" else frame.to_series().rename(name)
    if kind == "arrow":
        return _read_arrow(path)
    from penstock.serialize import pandas_tables

    return pandas_tables.read(path)


def _kind(path: Path) -> tuple[str, str]:
    """Return the file's metadata, read with a library that is already imported."""
    if "polars" in sys.modules or importlib.util.find_spec("pyarrow") is None:
        import polars as pl

        found: Mapping[str, str] = pl.read_parquet_metadata(path)
        return found.get(KIND, ""), found.get(_NAME, "")
    import pyarrow.parquet as pq

    metadata: Mapping[bytes, bytes] = pq.read_metadata(path).metadata or {}
    return metadata.get(KIND.encode(), b"").decode(), metadata.get(_NAME.encode(), b"").decode()


def _write_polars(value: Any, path: Path) -> None:
    import polars as pl

    series = isinstance(value, pl.Series)
    if type(value) not in (pl.DataFrame, pl.Series):
        raise FormatNotApplicableError(f"a {type(value).__name__} is more than a polars table")
    frame = value.to_frame(_COLUMN) if isinstance(value, pl.Series) else value
    about = {KIND: "polars-series", _NAME: value.name} if series else {KIND: "polars"}
    try:
        frame.write_parquet(path, metadata=about)
        rows = None if frame.height * (frame.width + 1) <= _SMALL else _HEAD
        found = _read_polars(path, rows)
        same = found.schema == frame.schema and found.equals(frame if rows is None else frame.head(rows))
    except (pl.exceptions.PolarsError, TypeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk is full, and so on
        raise FormatNotApplicableError(f"polars cannot write it as Parquet: {error}") from error
    if not same:
        raise FormatNotApplicableError("it has a column that Parquet does not preserve")


def _read_polars(path: Path, rows: int | None = None) -> Any:
    import polars as pl

    return pl.read_parquet(path, n_rows=rows, hive_partitioning=False, glob=False)


def _write_arrow(value: Any, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.write_table(value.replace_schema_metadata({**(value.schema.metadata or {}), KIND: "arrow"}), path)
        same = _arrow_round_trips(path, value)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise FormatNotApplicableError(f"Parquet cannot store it: {error}") from error
    if not same:
        raise FormatNotApplicableError("it has a column that Parquet does not preserve")


def _arrow_round_trips(path: Path, value: Any) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if value.num_rows * (value.num_columns + 1) <= _SMALL:
        found = _read_arrow(path)
        return found.schema.equals(value.schema, check_metadata=True) and _equal_arrow(found, value)
    file = pq.ParquetFile(path)
    head = _unmarked(pa.Table.from_batches([next(file.iter_batches(batch_size=_HEAD))]))
    same = head.schema.equals(value.schema, check_metadata=True) and _equal_arrow(head, value.slice(0, len(head)))
    return same and file.metadata.num_rows == value.num_rows


def _equal_arrow(one: Any, other: Any) -> bool:
    """Whether two tables are equal; NaN, which Arrow finds unlike itself, is equal to NaN."""
    return one.num_rows == other.num_rows and (one.equals(other) or repr(one.to_pylist()) == repr(other.to_pylist()))


def _read_arrow(path: Path) -> Any:
    import pyarrow.parquet as pq

    return _unmarked(pq.read_table(path))


def _unmarked(table: Any) -> Any:
    return table.cast(_restored(table.schema))


def _restored(schema: Any) -> Any:
    """The schema without what `write` has added."""
    metadata = {key: entry for key, entry in (schema.metadata or {}).items() if key != KIND.encode()}
    return schema.with_metadata(metadata or None)
