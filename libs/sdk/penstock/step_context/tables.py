"""`log_table`: what users call a table becomes one of their library, or plain rows where they have none.

Checks come first, so that an error names the row and the column, not what some library thinks of them.
"""

from __future__ import annotations

import datetime
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, cast

_LIBRARIES = ("pandas", "polars", "pyarrow")
_KINDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("texts", (str,)),
    ("truth values", (bool,)),
    ("numbers", (int, float)),
    ("bytes", (bytes,)),
    ("times", (datetime.datetime,)),
    ("dates", (datetime.date,)),
)
_EXPECTED = "pass a table of pandas, polars or pyarrow, a list of dictionaries, or a dictionary of lists"


def table(name: str, given: object) -> object:
    """The table to be saved.

    Raises:
        TypeError: it is not a table, or a column mixes kinds of values.
        ValueError: rows or columns do not fit each other.
    """
    if any(cls.__module__.partition(".")[0] in _LIBRARIES for cls in type(given).__mro__):
        if not hasattr(given, "columns"):
            raise TypeError(f"log_table({name!r}): a {type(given).__name__} is not a table: {_EXPECTED}")
        return given
    if isinstance(given, Mapping):
        columns = _columns(name, cast("Mapping[Any, Any]", given))
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        columns = _from_rows(name, cast("Sequence[Any]", given))
    else:
        raise TypeError(f"log_table({name!r}): a {type(given).__name__} is not a table: {_EXPECTED}")
    kinds = {column: _kind(name, column, values) for column, values in columns.items()}
    return _build_table({column: _coerce_numbers(values, kinds[column]) for column, values in columns.items()})


def _columns(name: str, given: Mapping[Any, Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for column, values in given.items():
        _check_column(name, column)
        if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
            raise TypeError(f"log_table({name!r}): column {column!r} must be a list, not {type(values).__name__}")
        columns[column] = [_plain(value) for value in values]
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        lengths_text = ", ".join(f"{column!r} has {length}" for column, length in list(lengths.items())[:5])
        raise ValueError(f"log_table({name!r}): all columns must have the same number of values; {lengths_text}")
    return columns


def _from_rows(name: str, rows: Sequence[Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(
                f"log_table({name!r}): row {number} must be a dictionary, not {type(row).__name__}: {_EXPECTED}"
            )
        row = cast("Mapping[Any, Any]", row)
        if number == 0:
            for column in row:
                _check_column(name, column)
                columns[column] = []
        if row.keys() != columns.keys():
            odd = sorted(map(repr, row.keys() ^ columns.keys()))
            raise ValueError(
                f"log_table({name!r}): row {number} and row 0 have different columns ({', '.join(odd[:5])}): "
                "use None for missing values"
            )
        for column, value in row.items():
            columns[column].append(_plain(value))
    return columns


def _check_column(name: str, column: object) -> None:
    if not isinstance(column, str):
        raise TypeError(f"log_table({name!r}): column names must be strings, not {column!r}")


def _plain(value: Any) -> Any:
    """Numbers of numpy and the like as Python's own."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", 0) == 0 else value


def _kind(name: str, column: str, values: list[Any]) -> str:
    """What all values of a column are; empty for none."""
    found, first = "", 0
    for row, value in enumerate(values):
        if value is None:
            continue
        kind = next((kind for kind, types in _KINDS if isinstance(value, types)), None)
        if kind is None:
            raise TypeError(
                f"log_table({name!r}): row {row}, column {column!r}: a {type(value).__name__} cannot be a cell "
                f"of a table"
            )
        if found and kind != found:
            raise TypeError(
                f"log_table({name!r}): column {column!r} mixes {found} (row {first}) with {kind} (row {row}): "
                "give each column one type"
            )
        found, first = (found, first) if found else (kind, row)
    return found


def _coerce_numbers(values: list[Any], kind: str) -> list[Any]:
    """Whole numbers beside fractions become fractions."""
    if kind == "numbers" and any(isinstance(value, float) for value in values):
        return [None if value is None else float(value) for value in values]
    return values


def _build_table(columns: dict[str, list[Any]]) -> object:
    """A table of the first library that is there; rows without one."""
    if importlib.util.find_spec("pyarrow") is not None:
        import pyarrow as pa

        try:
            return pa.table(columns)
        except (pa.ArrowInvalid, OverflowError):  # whole numbers beyond 64 bits
            pass
    elif importlib.util.find_spec("polars") is not None:
        import polars as pl

        try:
            return pl.DataFrame(columns)
        except (pl.exceptions.PolarsError, OverflowError):
            pass
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
