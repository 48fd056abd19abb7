"""Reading one part of a value without the rest, such as an element of a list for an item of a mapped step.

A path holds indexes of lists and keys of dictionaries, from outside to inside. In JSON data it is followed in the
form that `penstock.codec` writes, so only the part is decoded. In a `jsonl` artifact the line of an element is found by
an index that is made once, when the whole file is read and checked, and lies beside the store's objects.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from array import array
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from penstock import codec
from penstock.codec.scalars import TAG
from penstock.store import FolderStore

INDEX_INTERVAL = 256
"""The index has the offset of every n-th line."""

_CHUNK = 1024 * 1024
_HEAD = 5

Steps = Sequence[int | str]


class NoPartError(LookupError):
    """A value has no part at this path; the message says where the path ends."""


def count(value: object) -> int | None:
    """Return the number of elements of a list or tuple that is saved as one artifact, also in its JSON form."""
    if type(value) is dict:  # not types that consist of one, such as a sparse array
        entries = cast("dict[str, Any]", value)
        inner = entries.get("items") if entries.get(TAG) == "tuple" else None
        return len(cast("list[Any]", inner)) if isinstance(inner, list) else None
    return len(cast("list[Any]", value)) if type(value) in (list, tuple) else None


def within(tree: Any, path: Steps) -> Any:
    """Return the part of JSON data of `penstock.codec` at a path.

    Raises:
        NoPartError: there is no such part.
    """
    for depth, step in enumerate(path):
        try:
            tree = _child(tree, step)
        except (KeyError, IndexError, TypeError, StopIteration) as error:
            raise NoPartError(f"{_show(path[: depth + 1])} does not exist") from error
    return tree


def _child(tree: Any, step: int | str) -> Any:
    if isinstance(tree, list):
        return _at(cast("list[Any]", tree), step)
    if not isinstance(tree, dict):
        raise KeyError(step)
    entries = cast("dict[str, Any]", tree)
    kind = entries.get(TAG)
    if kind is None:
        return entries[cast("str", step)]
    if kind == "dict":
        return next(entry for key, entry in entries["items"] if codec.decode(key) == step)
    if kind in ("tuple", "set", "frozenset"):
        return _at(entries["items"], step)
    fields = entries["model"] if "model" in entries else {key: one for key, one in entries.items() if key != TAG}
    return fields[step] if isinstance(step, str) else _at(list(fields.values()), step)


def _at(items: list[Any], step: int | str) -> Any:
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < len(items):
        raise IndexError(step)
    return items[step]


def inside(value: Any, path: Steps) -> Any:
    """The part of a Python object at a path: items, and attributes of objects with named fields.

    Raises:
        NoPartError: there is no such part.
    """
    for depth, step in enumerate(path):
        try:
            named = isinstance(step, str) and not isinstance(value, dict)
            value = getattr(value, str(step)) if named else value[step]
        except (LookupError, TypeError, AttributeError) as error:
            raise NoPartError(f"{_show(path[: depth + 1])} does not exist") from error
    return value


def _show(path: Steps) -> str:
    return "".join(f"[{step!r}]" for step in path)


def line(store: FolderStore, sha256: str, index: int) -> bytes:
    """Line `index`, from 0, of a file of JSON lines. The file's digest was checked since it was written last.

    Raises:
        NoPartError: it has fewer lines.
        ArtifactMissingError, ArtifactDamagedError: see `FolderStore.check`.
    """
    path = store.path(sha256)
    places = _known(store, sha256, path) or _indexed(store, sha256, path)
    count = places[_HEAD - 1]
    if not 0 <= index < count:
        raise NoPartError(f"it has {count} items and no item [{index}]")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = places[_HEAD + index // INDEX_INTERVAL]
        for _ in range(index % INDEX_INTERVAL):
            start = content.find(b"\n", start) + 1
        end = content.find(b"\n", start)
        return content[start : end if end >= 0 else len(content)]


def _index_path(store: FolderStore, sha256: str) -> Path:
    return store.root / "lines" / sha256[:2] / sha256


def _stamp(status: os.stat_result) -> list[int]:
    """Changes with every write to the file: no program can set the last of these."""
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _known(store: FolderStore, sha256: str, path: Path) -> array[int] | None:
    """The index that was made before, if the file is still the one that it was made of."""
    places: array[int] = array("q")
    try:
        places.frombytes(_index_path(store, sha256).read_bytes())
        if places[: _HEAD - 1].tolist() == _stamp(path.stat()):
            return places
    except (OSError, ValueError):
        pass
    return None


def _indexed(store: FolderStore, sha256: str, path: Path) -> array[int]:
    if not store.has(sha256):
        store.check(sha256)  # raises with the words for it
    starts: array[int] = array("q", [0])
    digest, count, offset, last = hashlib.sha256(), 0, 0, b"\n"
    with path.open("rb") as file:
        stamp = _stamp(os.fstat(file.fileno()))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            place = -1
            while (place := chunk.find(b"\n", place + 1)) >= 0:
                count += 1
                if count % INDEX_INTERVAL == 0:
                    starts.append(offset + place + 1)
            offset += len(chunk)
            last = chunk[-1:]
        store.compare(sha256, digest.hexdigest(), file)
    count += last != b"\n"
    places = array("q", [*stamp, count]) + starts
    with suppress(OSError):  # a store that cannot be written: the next reader makes it again
        _keep(store, sha256, places)
    return places


def _keep(store: FolderStore, sha256: str, places: array[int]) -> None:
    target = _index_path(store, sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.temporary() as temporary:
        temporary.write_bytes(places.tobytes())
        temporary.replace(target)
