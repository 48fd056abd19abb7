"""Whether a pandas table that was read back is the one that was written: values, types, labels and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from penstock.serialize.identity import identical


def difference(found: pd.DataFrame, frame: pd.DataFrame, *, whole: bool = True) -> str | None:
    """Return what of a table is different, as in "the type of column 'a'"; None if nothing is.

    Args:
        found: the table that was read back.
        frame: the table that was written.
        whole: whether `found` has all rows: an index of a range is one only then, and so is a frequency.
    """
    if found.shape != frame.shape:
        return "the number of rows or columns"
    if found.attrs != frame.attrs or found.flags != frame.flags:
        return "its attrs or flags"
    return (
        (
            _of_labels(found.columns, frame.columns, "column labels")
            if not _same_range(found.columns, frame.columns)
            else None
        )
        or _of_index(found.index, frame.index, whole=whole)
        or next(
            (
                f"{what} of column {label!r}"
                for i, label in enumerate(frame.columns)
                if (what := _of_values(found.iloc[:, i].array, frame.iloc[:, i].array))
            ),
            None,
        )
    )


def levels(index: Any) -> list[Any]:
    """The types of the levels of an index."""
    return list(index.dtypes) if isinstance(index, pd.MultiIndex) else [index.dtype]


def is_object(dtype: Any) -> bool:
    """Whether values of this type are Python objects."""
    return bool(dtype == np.dtype(object))


def _same_range(one: Any, other: Any) -> bool:
    """Labels that are a range may come back as integers."""
    return (
        isinstance(other, pd.RangeIndex) and one.dtype == other.dtype and one.equals(other) and one.name == other.name
    )


def _of_index(found: Any, index: Any, *, whole: bool) -> str | None:
    if not whole and isinstance(index, pd.RangeIndex):
        return None
    return _of_labels(found, index, "index", whole=whole)


def _of_labels(found: Any, labels: Any, what: str, *, whole: bool = True) -> str | None:
    if type(found) is not type(labels) or not identical(list(found.names), list(labels.names)):
        return f"the type or the names of the {what}"
    if whole and getattr(found, "freq", None) != getattr(labels, "freq", None):
        return f"the frequency of the {what}"
    for level in range(labels.nlevels):
        changed = _of_values(found.get_level_values(level).array, labels.get_level_values(level).array)
        if changed:
            return f"{changed} of the {what}"
    return None


def _of_values(found: Any, values: Any) -> str | None:
    """Compare columns by their types and values; objects one by one."""
    if type(found) is not type(values) or found.dtype != values.dtype:
        return "the type"
    if isinstance(values, pd.arrays.NumpyExtensionArray):
        return None if _same_numbers(np.asarray(found), np.asarray(values)) else "a value"
    if isinstance(values, pd.Categorical):
        changed = _of_values(found.categories.array, values.categories.array)
        if changed:
            return f"{changed} of the categories"
        return None if np.array_equal(found.codes, values.codes) else "a value"
    return None if found.equals(values) else "a value"


def _same_numbers(one: Any, other: Any) -> bool:
    if is_object(other.dtype):
        return all(map(identical, one, other))
    if other.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    return bool(np.array_equal(one, other, equal_nan=True) and np.array_equal(_signs(one), _signs(other)))


def _signs(numbers: Any) -> Any:
    """Zero has one, too."""
    return np.signbit(np.nan_to_num(np.stack([numbers.real, numbers.imag])))
