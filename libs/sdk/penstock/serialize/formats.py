"""The formats of artifacts: how a value becomes a file and comes back."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Unsavable(TypeError):
    """A value cannot be saved; the message says where it stands and what to do."""


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write values of some types to a file and to read them back.

    Attributes:
        name: kept with the artifact; loading goes by it.
        save: writes a value to a path.
        load: reads the file at a path.
        media_type: of the file.
        unsafe: loading can run code, so that no service does it.
    """

    name: str
    save: Callable[[Any, Path], object]
    load: Callable[[Path], Any]
    media_type: str = "application/octet-stream"
    unsafe: bool = False


FORMATS: dict[str, Format] = {}
_REGISTERED: dict[type, str] = {}
# Types of libraries, found by name so that nothing is imported before the user's own code does.
_BY_NAME: dict[str, str] = {
    "pandas.DataFrame": "parquet",
    "pandas.Series": "parquet",
    "numpy.ndarray": "npy",
    "matplotlib.figure.Figure": "png",
}


def register(
    cls: type[T],
    name: str,
    *,
    save: Callable[[T, Path], object],
    load: Callable[[Path], T],
    media_type: str = "application/octet-stream",
    unsafe: bool = False,
) -> Format:
    """Save values of `cls`, and of its subclasses, in a format of your own. Do it where the steps are defined.

    Args:
        cls: the type of the values.
        name: names the format; must be new, or the one that this module registered before.
        save: writes a value to a path, which is an empty file.
        load: reads a value from a path, which must not be written to.
        media_type: of the file.
        unsafe: say True when loading a file from a stranger could run code.

    Raises:
        ValueError: the name is taken by a format of the platform.
    """
    if name in FORMATS and name not in _REGISTERED.values():
        raise ValueError(f"format {name!r} is one of the platform's own: choose another name")
    FORMATS[name] = Format(name, save, load, media_type, unsafe)
    _REGISTERED[cls] = name
    return FORMATS[name]


def own_format(value: object) -> Format | None:
    """The format that the user registered for a value's type."""
    for cls in type(value).__mro__ if _REGISTERED else ():
        if cls in _REGISTERED:
            return FORMATS[_REGISTERED[cls]]
    return None


def library_format(value: object) -> Format | None:
    """The format for an object of a well-known library."""
    for cls in type(value).__mro__:
        top, _, rest = f"{cls.__module__}.{cls.__qualname__}".partition(".")
        # `pandas.core.frame.DataFrame` is `pandas.DataFrame`.
        name = _BY_NAME.get(f"{top}.{rest}") or _BY_NAME.get(f"{top}.{cls.__qualname__}")
        if name is not None:
            return _format_of(name)
    return None


def _format_of(name: str) -> Format | None:
    if name == "parquet" and not _has_pyarrow():
        return None
    return FORMATS[name]


def _has_pyarrow() -> bool:
    try:
        import pyarrow.parquet  # imported here only: slow, and needed for tables only
    except ImportError:
        return False
    return pyarrow.parquet is not None


def type_name(value: object) -> str:
    """`module:Class` of a value, for people."""
    cls = type(value)
    return f"{cls.__module__}:{cls.__qualname__}"


def _add(
    name: str,
    save: Callable[[Any, Path], object],
    load: Callable[[Path], Any],
    media_type: str,
    unsafe: bool = False,
) -> Format:
    FORMATS[name] = Format(name, save, load, media_type, unsafe)
    return FORMATS[name]


# ------------------------------------------------------------------------------------------------- built-in formats


def _write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, separators=(",", ":"), allow_nan=False), encoding="ascii")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _write_text(value: str, path: Path) -> None:
    path.write_bytes(value.encode())


def _read_text(path: Path) -> str:
    return path.read_bytes().decode()


def _write_pickle(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(value, file, protocol=5)


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - the user's own results, in the user's own process


class Unfit(Exception):
    """A value of a format's type that this format would not give back as it was. It is pickled instead."""


def _write_array(value: Any, path: Path) -> None:
    import numpy as np

    if type(value) is not np.ndarray or value.dtype.hasobject or value.dtype.metadata:
        raise Unfit
    with path.open("wb") as file:
        np.save(file, value, allow_pickle=False)


def _read_array(path: Path) -> Any:
    import numpy as np

    return np.load(path, allow_pickle=False)


def _write_figure(value: Any, path: Path) -> None:
    value.savefig(path, format="png")


def _read_figure(path: Path) -> Any:
    """A figure that shows the picture: the drawing itself is not kept."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    picture: Any = imread(path)
    figure = Figure(figsize=(picture.shape[1] / 100, picture.shape[0] / 100), dpi=100)
    figure.figimage(picture)
    return figure


def _write_parquet(value: Any, path: Path) -> None:
    from penstock.serialize import tables  # pandas and pyarrow, only for those who have a table

    tables.write(value, path)


def _read_parquet(path: Path) -> Any:
    from penstock.serialize import tables

    return tables.read(path)


JSON = _add("json", _write_json, _read_json, "application/json")
TEXT = _add("text", _write_text, _read_text, "text/plain; charset=utf-8")
BYTES = _add("bytes", lambda value, path: path.write_bytes(value), Path.read_bytes, "application/octet-stream")
PICKLE = _add("pickle", _write_pickle, _read_pickle, "application/x-python-pickle", unsafe=True)
_add("npy", _write_array, _read_array, "application/x-npy")
_add("png", _write_figure, _read_figure, "image/png")
_add("parquet", _write_parquet, _read_parquet, "application/vnd.apache.parquet")
