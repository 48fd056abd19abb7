"""NumPy arrays as `.npy`, SciPy's sparse arrays as `.npz`, both without pickles."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from penstock.serialize.formats import FormatNotApplicableError

_LAYOUT = "penstock_layout"
# Layouts for building a matrix, kept in the one that holds the same entries.
_STORED_AS = {"lil": "csr", "dok": "coo"}


def write_array(value: Any, path: Path) -> None:
    """Write an array.

    Raises:
        FormatNotApplicableError: it contains Python objects, or is a subclass.
    """
    if type(value) is not np.ndarray:
        raise FormatNotApplicableError(f"a {type(value).__name__} is more than an array")
    if value.dtype.hasobject:
        raise FormatNotApplicableError("its items are Python objects: give it a type such as float or str")
    if value.dtype.metadata:
        raise FormatNotApplicableError("its type has metadata")
    with path.open("wb") as file:
        try:
            np.save(file, value, allow_pickle=False)
        except ValueError as error:
            raise FormatNotApplicableError(f"npy cannot store it: {error}") from error
    if repr(_stored_type(path)) != repr(value.dtype):
        raise FormatNotApplicableError("npy does not preserve the type of its items")


def _stored_type(path: Path) -> Any:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return read(file)[2]


def read_array(path: Path) -> Any:
    """Read an array."""
    return np.load(path, allow_pickle=False)


def write_sparse(value: Any, path: Path) -> None:
    """Write a sparse array or matrix in its own layout.

    Raises:
        FormatNotApplicableError: its items are Python objects.
    """
    from scipy import sparse

    if value.dtype.hasobject:
        raise FormatNotApplicableError("its items are Python objects: give it a type such as float")
    kept = _STORED_AS.get(value.format)
    with path.open("wb") as file:
        # The order of entries and the file's bytes follow from the value alone.
        sparse.save_npz(file, value if kept is None else value.asformat(kept), compressed=False)
    if kept is not None:
        with zipfile.ZipFile(path, "a") as archive, archive.open(f"{_LAYOUT}.npy", "w") as entry:
            np.lib.format.write_array(entry, np.array(value.format), allow_pickle=False)


def read_sparse(path: Path) -> Any:
    """Read a sparse array or matrix."""
    from scipy import sparse

    found: Any = sparse.load_npz(path)
    with np.load(path, allow_pickle=False) as entries:
        layout = str(entries[_LAYOUT]) if _LAYOUT in entries else None
    return found if layout is None else found.asformat(layout)
