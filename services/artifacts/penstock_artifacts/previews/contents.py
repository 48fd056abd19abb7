"""The contents of folders, archives, weights and estimators: names and sizes, from their indexes."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import Any, cast

from penstock_artifacts.previews.readers import NoPreviewError
from penstock_core.artifacts import folders

_SHOWN = 100
_MEMBERS = 100_000
_HEADER = 32 * 1024 * 1024
_SCHEMA = 8 * 1024 * 1024
_NAME = 300


def folder(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """The files of a folder, from its manifest, or from its tar in earlier versions."""
    if file.peek(1)[:1] == b"{":
        return _manifest(file, size)
    rows: list[list[Any]] = []
    files = total = 0
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for number, member in enumerate(archive):
            if number >= _MEMBERS:
                raise NoPreviewError(f"it contains more than {_MEMBERS} files")
            files, total = files + member.isreg(), total + member.size
            if len(rows) < _SHOWN:
                rows.append([_name(member.name) + ("/" if member.isdir() else ""), member.size])
    return _listing(("name", "bytes"), rows, {"files": files, "bytes": total}, files)


def _manifest(file: io.BufferedReader, size: int) -> dict[str, Any]:
    if size > folders.MANIFEST_LIMIT:
        raise NoPreviewError("its manifest is too large")
    held = folders.decode(file.read())
    rows: list[list[Any]] = [[_name(one.path), one.size] for one in held.files[:_SHOWN]]
    rows += [[_name(name) + "/", 0] for name in held.folders[: _SHOWN - len(rows)]]
    files = len(held.files)
    return _listing(("name", "bytes"), rows, {"files": files, "bytes": held.total}, files)


def archive(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """The files of a zip."""
    del size
    with zipfile.ZipFile(file) as opened:
        found = opened.infolist()
    rows: list[list[Any]] = [[_name(one.filename), one.file_size] for one in found[:_SHOWN]]
    return _listing(
        ("name", "bytes"), rows, {"files": len(found), "bytes": sum(o.file_size for o in found)}, len(found)
    )


def arrays(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """The arrays of an `.npz`, from their headers; the data is not unpacked."""
    del size
    import numpy as np

    rows: list[list[Any]] = []
    facts: dict[str, Any] = {}
    with zipfile.ZipFile(file) as opened:
        found = opened.infolist()
        for one in found[:_SHOWN]:
            with opened.open(one) as member:
                beginning = io.BytesIO(member.read(64 * 1024))
            version = np.lib.format.read_magic(beginning)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(beginning, max_header_size=60_000)
            name = one.filename.removesuffix(".npy")
            rows.append([_name(name), str(dtype)[:_NAME], " x ".join(map(str, shape))])
            if name == "data" and len(shape) == 1:
                facts["stored_values"] = shape[0]
            if name == "shape" and shape and shape[0] <= 8 and not dtype.hasobject:
                dims = np.frombuffer(beginning.read(shape[0] * dtype.itemsize), dtype)
                facts["shape"] = " x ".join(map(str, dims.tolist()))
    return _listing(("name", "type", "shape"), rows, {"arrays": len(found), **facts}, len(found))


def tensors(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """The tensors of a safetensors file, from its header."""
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, _HEADER):
        raise NoPreviewError("its header is damaged, or too large")
    header: dict[str, Any] = json.loads(file.read(length))
    about = header.pop("__metadata__", {})
    rows: list[list[Any]] = []
    count = 0
    for name, tensor in header.items():
        values = 1
        for edge in tensor["shape"]:
            values *= int(edge)
        count += values
        if len(rows) < _SHOWN:
            rows.append([_name(name), str(tensor["dtype"])[:20], " x ".join(map(str, tensor["shape"])), values])
    facts: dict[str, Any] = {"tensors": len(header), "values": count}
    modules = json.loads(about["penstock"])["modules"] if "penstock" in about else []
    if modules:
        facts["class"] = _name(modules[0]["class"])
    return _listing(("name", "type", "shape", "values"), rows, facts, len(header))


def estimator(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """The class of an estimator that skops wrote, and its files; the estimator is not loaded."""
    shown = archive(file, size)
    with zipfile.ZipFile(file) as opened, opened.open("schema.json") as member:
        text = member.read(_SCHEMA + 1)
    if len(text) > _SCHEMA:
        return shown
    tree = cast("dict[str, Any]", json.loads(text))
    facts = {"class": _name(f"{tree['__module__']}.{tree['__class__']}")}
    return {**shown, "facts": facts | shown["facts"]}


def _listing(columns: tuple[str, ...], rows: list[list[Any]], facts: dict[str, Any], count: int) -> dict[str, Any]:
    numbers = ("bytes", "values")
    return {
        "kind": "table",
        "columns": [{"name": name, "type": "number" if name in numbers else "text"} for name in columns],
        "rows": rows,
        "facts": facts,
        "truncated": count > len(rows),
    }


def _name(text: str) -> str:
    return text[:_NAME].encode("utf-8", "replace").decode()
