"""Artifact formats: how values are written to files and read back, and which format a value takes.

No library is imported here: types of libraries are found by name, and what reads and writes them is imported when
the first such value comes, which is when the user's own code has the library already.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from penstock.serialize import project_types

T = TypeVar("T")

LONG = 1_000
"""Lists of more items have a line for each of them, so that one can be read without the others."""


class FormatNotApplicableError(Exception):
    """A value of a format's type that this format would not give back as it was; says why. The next format is tried."""


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write values of some types to a file and to read them back.

    Attributes:
        name: recorded with the artifact; selects the loader.
        save: writes a value to a path. Built-in formats return True where loading the file imports modules of the
            project.
        load: reads the file at a path.
        media_type: of the file.
        unsafe: loading can execute code, so that no service loads it.
    """

    name: str
    save: Callable[[Any, Path], object]
    load: Callable[[Path], Any]
    media_type: str = "application/octet-stream"
    unsafe: bool = False


FORMATS: dict[str, Format] = {}
_REGISTERED: dict[type, str] = {}

# By the name of a type, so that nothing is imported before the user's own code does. The first format that fits the
# value is taken; where none does, it is pickled.
_BY_NAME: dict[str, tuple[str, ...]] = {
    "pandas.DataFrame": ("parquet",),
    "pandas.Series": ("parquet",),
    "polars.DataFrame": ("parquet",),
    "polars.Series": ("parquet",),
    "pyarrow.Table": ("parquet",),
    "numpy.ndarray": ("npy",),
    "scipy._spbase": ("npz",),
    "matplotlib.figure.Figure": ("png",),
    "plotly.BaseFigure": ("plotly",),
    "PIL.Image.Image": ("image", "tiff"),
    "torch.Tensor": ("safetensors",),
    "torch.Module": ("safetensors",),
    "penstock.Markdown": ("markdown",),
    "penstock.Html": ("html",),
}
# What pickle keeps better, faster and always the same; these formats are for projects that forbid it.
_INSTEAD_OF_PICKLE: dict[str, tuple[str, ...]] = {"sklearn.BaseEstimator": ("skops",)}


def register(
    cls: type[T],
    name: str,
    *,
    save: Callable[[T, Path], object],
    load: Callable[[Path], T],
    media_type: str = "application/octet-stream",
    unsafe: bool = False,
) -> Format:
    """Register a format for values of `cls` and its subclasses. Call it in the module that defines the steps.

    Args:
        cls: the type of the values.
        name: names the format; must be new, or the one that this module registered before.
        save: writes a value to a path, which is an empty file.
        load: reads a value from a path, which must not be written to.
        media_type: of the file.
        unsafe: whether loading an untrusted file can execute code.

    Raises:
        ValueError: the name is taken by a format of the platform.
    """
    if (name in FORMATS and name not in _REGISTERED.values()) or name in ("file", "folder"):
        raise ValueError(f"format {name!r} is one of the platform's own: choose another name")
    FORMATS[name] = Format(name, save, load, media_type, unsafe)
    _REGISTERED[cls] = name
    return FORMATS[name]


def registered_format(value: object) -> Format | None:
    """The format that the user registered for a value's type."""
    for cls in type(value).__mro__ if _REGISTERED else ():
        if cls in _REGISTERED:
            return FORMATS[_REGISTERED[cls]]
    return None


def library_formats(value: object) -> tuple[Format, ...]:
    """The formats to try, in order, for an object of a well-known library; empty for any other object."""
    if _is_state_dict(value):
        return (FORMATS["safetensors"],)
    return _named(value, _BY_NAME)


def safe_formats(value: object) -> tuple[Format, ...]:
    """The formats to try for a value that would be pickled, where that is forbidden."""
    return _named(value, _INSTEAD_OF_PICKLE)


def _named(value: object, table: dict[str, tuple[str, ...]]) -> tuple[Format, ...]:
    for cls in type(value).__mro__:
        module, name = cls.__module__, cls.__qualname__
        # `pandas.core.frame.DataFrame` is `pandas.DataFrame`.
        found = table.get(f"{module}.{name}") or table.get(f"{module.partition('.')[0]}.{name}")
        if found is not None:
            return tuple(FORMATS[one] for one in found)
    return ()


def _is_state_dict(value: object) -> bool:
    torch = sys.modules.get("torch")
    if torch is None or type(value) not in (dict, OrderedDict) or not value:
        return False
    entries = cast("dict[Any, Any]", value)
    return all(type(key) is str and isinstance(entry, torch.Tensor) for key, entry in entries.items())


def type_name(value: object) -> str:
    """`module:Class` of a value, for people."""
    cls = type(value)
    return f"{cls.__module__}:{cls.__qualname__}"


# ------------------------------------------------------------------------------------------------- built-in formats


def _write_json(value: Any, path: Path) -> bool:
    data = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")
    path.write_bytes(data)
    return project_types.in_json(data)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _write_lines(value: Any, path: Path) -> bool:
    found = False
    with path.open("wb") as file:
        for entry in value:
            line = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode("ascii")
            file.write(line + b"\n")
            found = found or project_types.in_json(line)
    return found


def _read_lines(path: Path) -> Any:
    with path.open("rb") as file:
        return [json.loads(line) for line in file]


def json_format(tree: Any) -> Format:
    """The format of JSON data that is too large to travel: long lists have a line for each item."""
    return LINES if type(tree) is list and len(cast("list[Any]", tree)) > LONG else JSON


def _write_text(value: str, path: Path) -> None:
    path.write_bytes(value.encode())


def _read_text(path: Path) -> str:
    return path.read_bytes().decode()


def _read_report(name: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        from penstock import reports  # for those who have one

        return getattr(reports, name)(_read_text(path))

    return read


def _write_pickle(value: Any, path: Path) -> bool:
    with path.open("wb") as file:
        pickler = project_types.Pickler(file)
        pickler.dump(value)
    return pickler.saw_project_types()


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)  # noqa: S301 - the user's own results, in the user's own process


def _add(
    name: str, save: Callable[[Any, Path], object], load: Callable[[Path], Any], media_type: str, unsafe: bool = False
) -> Format:
    FORMATS[name] = Format(name, save, load, media_type, unsafe)
    return FORMATS[name]


def _lazy_import(module: str, function: str) -> Callable[..., Any]:
    """Return a function that imports a module of this package when it is called, because that needs a library."""

    def call(*args: Any) -> Any:
        return getattr(importlib.import_module(f"penstock.serialize.{module}"), function)(*args)

    return call


JSON = _add("json", _write_json, _read_json, "application/json")
LINES = _add("jsonl", _write_lines, _read_lines, "application/jsonl")
TEXT = _add("text", _write_text, _read_text, "text/plain; charset=utf-8")
BYTES = _add("bytes", lambda value, path: path.write_bytes(value), Path.read_bytes, "application/octet-stream")
PICKLE = _add("pickle", _write_pickle, _read_pickle, "application/x-python-pickle", unsafe=True)
_add("markdown", _write_text, _read_report("Markdown"), "text/markdown; charset=utf-8")
_add("html", _write_text, _read_report("Html"), "text/html; charset=utf-8")
_add(
    "parquet",
    _lazy_import("parquet_tables", "write"),
    _lazy_import("parquet_tables", "read"),
    "application/vnd.apache.parquet",
)
_add("npy", _lazy_import("arrays", "write_array"), _lazy_import("arrays", "read_array"), "application/x-npy")
_add("npz", _lazy_import("arrays", "write_sparse"), _lazy_import("arrays", "read_sparse"), "application/x-npz")
_add("png", _lazy_import("images", "write_figure"), _lazy_import("images", "read_figure"), "image/png")
_add(
    "plotly",
    _lazy_import("images", "write_plotly"),
    _lazy_import("images", "read_plotly"),
    "application/vnd.plotly.v1+json",
)
_add("image", _lazy_import("images", "write_png"), _lazy_import("images", "read_image"), "image/png")
_add("tiff", _lazy_import("images", "write_tiff"), _lazy_import("images", "read_image"), "image/tiff")
_add("safetensors", _lazy_import("tensors", "write"), _lazy_import("tensors", "read"), "application/x-safetensors")
_add("skops", _lazy_import("estimators", "write"), _lazy_import("estimators", "read"), "application/x-skops")
