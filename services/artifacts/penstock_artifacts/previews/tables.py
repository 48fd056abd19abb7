"""Tables: Parquet, arrays and separated values, as columns with types and the first rows."""

from __future__ import annotations

import csv
import io
import math
import mmap
from typing import Any

from penstock_artifacts.previews.readers import NoPreviewError

ROWS = 20
COLUMNS = 100
_CELL = 200
_PART = 256 * 1024


def parquet(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """Schema, counts and first rows of a Parquet file."""
    del size
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole: Any = pq.ParquetFile(
        pa.PythonFile(file, "r"), thrift_string_size_limit=32 << 20, thrift_container_size_limit=1 << 20
    )
    schema, metadata = whole.schema_arrow, whole.metadata
    shown = list(schema)[:COLUMNS]
    rows: list[list[Any]] = []
    if metadata.num_rows and shown:
        # By the names of leaves, so that only the shown columns are decoded.
        names = [field.name for field in shown]
        batch = next(whole.iter_batches(batch_size=ROWS, columns=names, use_threads=False))
        columns = [_values(batch.column(index)) for index in range(batch.num_columns)]
        rows = [list(row) for row in zip(*columns, strict=True)][:ROWS]
    return {
        "kind": "table",
        "columns": [{"name": field.name[:_CELL], "type": str(field.type)[:_CELL]} for field in shown],
        "rows": rows,
        "truncated": metadata.num_rows > len(rows) or len(schema) > len(shown),
        "facts": {
            "rows": metadata.num_rows,
            "columns": len(schema),
            "row_groups": metadata.num_row_groups,
            "made_by": str(metadata.created_by)[:_CELL],
        },
    }


def _values(column: Any) -> list[Any]:
    """The cells of a column. Time zone files are not accessible: zoned times are shown as UTC."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        plain = column.cast(pa.int64()).cast(pa.timestamp(kind.unit))
        return [None if one is None else f"{one}Z" for one in _texts(plain)]
    if pa.types.is_duration(kind):
        return [None if one is None else f"{one} {kind.unit}" for one in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_temporal(kind):
        return _texts(column)
    try:
        return [cell(one) for one in column.to_pylist()]
    except Exception:
        # Such as zoned times inside of lists: the other columns are shown.
        return ["(not shown)"] * len(column)


def _texts(column: Any) -> list[Any]:
    import pyarrow as pa

    return [cell(one) for one in column.cast(pa.string()).to_pylist()]


def cell(value: Any) -> Any:
    """A cell as JSON: numbers and short texts unchanged, everything else as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 1 << 53:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, bytes):
        value = value[:_CELL].hex()
    text = str(value).encode("utf-8", "replace").decode()
    return text if len(text) <= _CELL else text[:_CELL] + "…"


def array(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """Type, shape and first values of an `.npy` file; of more than two dimensions the first table of them."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise NoPreviewError(f"it has version {version} of the npy format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(file, max_header_size=100_000)
    if dtype.hasobject:
        raise NoPreviewError("it holds Python objects: loading them could run code")
    start = file.tell()
    count = math.prod(shape)
    if start + count * dtype.itemsize > size:
        raise NoPreviewError("it is truncated")
    facts = {"type": str(dtype)[:_CELL], "shape": " x ".join(map(str, shape)) or "one value", "values": count}
    table: Any = np.zeros((0, 0))
    if count:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole = np.ndarray(shape, dtype, content, start, order="F" if by_column else "C")
            while whole.ndim > 2:
                whole = whole[0]
            table = np.atleast_1d(whole) if whole.ndim < 2 else whole
            table = np.array(table[:ROWS] if table.ndim == 1 else table[:ROWS, :COLUMNS])
            del whole
    rows = [[cell(one) for one in (row if isinstance(row, list) else [row])] for row in table.tolist()]
    names = dtype.names if dtype.names and table.ndim == 1 else [str(n) for n in range(len(rows[0]) if rows else 0)]
    if dtype.names and table.ndim == 1:
        rows = [[cell(one) for one in row] for row in table.tolist()]
    columns = [{"name": str(name)[:_CELL], "type": str(dtype[name] if dtype.names else dtype)} for name in names]
    shown = sum(len(row) for row in rows)
    return {"kind": "table", "columns": columns, "rows": rows, "facts": facts, "truncated": shown < count}


def separated(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """The first rows of a file of separated values."""
    part = file.read(_PART).decode("utf-8-sig", "replace")
    whole = size <= _PART
    lines = part.splitlines(keepends=True)[: None if whole else -1][: ROWS * 20]
    if not lines:
        raise NoPreviewError("it has no lines")
    csv.field_size_limit(_PART)
    separator = max(",;\t|", key=lines[0].count)
    rows = [row for _, row in zip(range(ROWS + 1), csv.reader(lines, delimiter=separator), strict=False)]
    wide = max(len(row) for row in rows)
    names, rows = rows[0], rows[1:]
    columns = [{"name": names[n][:_CELL] if n < len(names) else "", "type": "text"} for n in range(min(wide, COLUMNS))]
    return {
        "kind": "table",
        "columns": columns,
        "rows": [[cell(one) for one in row[:COLUMNS]] + [None] * (len(columns) - len(row)) for row in rows],
        "truncated": not whole or part.count("\n") > len(rows) + 1 or wide > COLUMNS,
        "facts": {"columns": wide, **({"rows": max(0, len(part.splitlines()) - 1)} if whole else {})},
    }
