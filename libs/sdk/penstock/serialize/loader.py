"""Load saved values."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from penstock import codec, hints
from penstock.errors import UnloadableError, UnsafeFormatError
from penstock.hints import value_check
from penstock.serialize import files, folders, formats, value_parts
from penstock.store import FolderStore


def load(
    value: Mapping[str, Any],
    hint: Any = Any,
    store: FolderStore | None = None,
    *,
    folder: Path | None = None,
    where: str = "the value",
    unsafe: bool = True,
) -> Any:
    """Load a value.

    Args:
        value: the value as JSON, as returned by `save`. References to the run's log must be resolved before.
        hint: the expected type: plain data is converted where that is lossless, then checked.
        store: the artifact store. Bytes are verified against their digest.
        folder: where files and folders are restored, each in a new folder; default: the working folder.
        where: the value's name in errors, such as `input 'data' of step 'train'`.
        unsafe: whether formats may be loaded whose loading can run code, such as pickle.

    Raises:
        TypeError: the value does not fit the hint.
        ArtifactMissingError: the store does not have the artifact.
        ArtifactDamagedError: its bytes are not those that were stored.
        UnloadableError: it has an unknown format, or reading it failed.
        UnsafeFormatError: it is of an unsafe format (an `UnloadableError`, too).
    """
    loaded = _Loader(store, folder, where, unsafe=unsafe).load(value, hint)
    found = value_check.problem(loaded, hint)
    if found is not None:
        raise TypeError(f"{where} is declared as {hints.show(hint)}, but {found}")
    return loaded


class _Loader:
    def __init__(self, store: FolderStore | None, folder: Path | None, where: str, *, unsafe: bool) -> None:
        self.store = store
        self.folder = folder
        self.where = where
        self.unsafe = unsafe

    def load(self, value: Mapping[str, Any], hint: Any) -> Any:
        match value:
            case {"value": data}:
                return self.decode(data, hint)
            case {"artifact": dict() as ref}:
                return self.artifact(cast("dict[str, Any]", ref), hint)
            case {"items": list() as entries}:
                items = [
                    self.load(entry, hints.item(hint, index)) for index, entry in enumerate(cast("list[Any]", entries))
                ]
                return gather(items, hint)
            case {"lists": list() as lists}:
                return gather(self.joined(cast("list[Any]", lists), hint), hint)
            case {"fields": dict() as fields}:
                return self.fields(cast("dict[str, Any]", fields), hint)
            case {"of": dict() as whole, "path": list() as path}:
                return self.part(cast("dict[str, Any]", whole), cast("list[int | str]", path), hint)
            case {"result": _} | {"collected": _}:
                raise UnloadableError(f"{self.where} is a reference to the run's log, which must be read first")
            case _:
                raise UnloadableError(f"{self.where} has an unknown format, with the keys {sorted(value)}")

    def joined(self, lists: list[Any], hint: Any) -> list[Any]:
        """The items of several lists, one after the other."""
        items: list[Any] = []
        for number, one in enumerate(lists):
            loaded = self.load(one, list[hints.item(hint)])
            if not isinstance(loaded, list | tuple):
                raise TypeError(f"{self.where}: part {number} of it is {hints.short_repr(loaded)}, not a list")
            items += cast("list[Any]", loaded)
        return items

    def decode(self, data: Any, hint: Any) -> Any:
        try:
            return codec.decode(data, hint)
        except codec.MismatchError as error:
            raise TypeError(f"{self.where} is declared as {hints.show(hint)}, but {error}") from error

    def fields(self, fields: dict[str, Any], hint: Any) -> Any:
        cls = hints.class_of(hints.strip(hint))
        inner = hints.fields(cls) if hints.is_named_tuple(cls) else {}
        entry_hint = hints.entry(hint)[1]
        loaded = {name: self.load(entry, inner.get(name, entry_hint)) for name, entry in fields.items()}
        return spread(loaded, hint)

    def part(self, whole: dict[str, Any], path: list[int | str], hint: Any) -> Any:
        """A part of a value; of an artifact that is a list, no more than its line is read."""
        try:
            return self.part_of(whole, path, hint)
        except value_parts.NoPartError as error:
            raise UnloadableError(f"{self.where} refers to a part that does not exist: {error}") from error

    def part_of(self, whole: dict[str, Any], path: list[int | str], hint: Any) -> Any:
        match whole:
            case _ if not path:
                return self.load(whole, hint)
            case {"value": data}:
                return self.decode(value_parts.within(data, path), hint)
            case {"items": list() as entries} if isinstance(path[0], int) and 0 <= path[0] < len(entries):
                return self.part_of(entries[path[0]], path[1:], hint)
            case {"fields": dict() as fields} if path[0] in fields:
                return self.part_of(fields[path[0]], path[1:], hint)
            case {"of": dict() as inner, "path": list() as first}:
                return self.part_of(cast("dict[str, Any]", inner), [*first, *path], hint)
            case {"artifact": dict() as ref}:
                return self.part_of_artifact(cast("dict[str, Any]", ref), path, hint)
            case {"lists": list() as lists}:
                return value_parts.inside(self.joined(cast("list[Any]", lists), Any), path)
            case {"items": _} | {"fields": _}:
                raise value_parts.NoPartError(f"[{path[0]!r}] does not exist")
            case _:
                return self.load(whole, hint)  # raises with the words for it

    def part_of_artifact(self, ref: dict[str, Any], path: list[int | str], hint: Any) -> Any:
        store, name, sha256 = self.needed_store(ref), str(ref.get("format", "")), str(ref.get("sha256", ""))
        if name == formats.LINES.name and isinstance(path[0], int):
            line = value_parts.line(store, sha256, path[0])
            return self.decode(value_parts.within(json.loads(line), path[1:]), hint)
        if name == formats.JSON.name:
            return self.decode(value_parts.within(formats.JSON.load(store.check(sha256)), path), hint)
        return value_parts.inside(self.artifact(ref, Any), path)

    def needed_store(self, ref: dict[str, Any]) -> FolderStore:
        if self.store is None:
            raise UnloadableError(
                f"{self.where} is the artifact {ref.get('sha256')}, and there is no artifact store to load it from"
            )
        return self.store

    def artifact(self, ref: dict[str, Any], hint: Any) -> Any:
        name, sha256 = str(ref.get("format", "")), str(ref.get("sha256", ""))
        store = self.needed_store(ref)
        if name == files.FILE:
            return self.file(store, sha256, ref)
        form = formats.FORMATS.get(name)
        if not self.unsafe and (ref.get("unsafe") or (form is not None and form.unsafe)):
            raise UnsafeFormatError(
                f"{self.where} was saved in the format {name!r}, whose loading can run code, and this project forbids "
                "such formats. Let the producing step return plain data, a table, an array or a file"
            )
        if name == files.FOLDER:
            target = self.fresh() / _filename(ref, "folder")
            folders.restore(ref, store, target)
            return target
        path = store.check(sha256)
        if form is None:
            raise UnloadableError(
                f"{self.where} has the unregistered format {name!r}: "
                "import the module that registers it with penstock.serialize.register"
            )
        try:
            loaded = form.load(path)
        except ImportError as error:
            library = str(ref.get("python_type", "")).partition(":")[0].partition(".")[0] or name
            raise UnloadableError(
                f"{self.where} was made with {library}, and cannot be read from {name} here: {error}"
            ) from error
        except Exception as error:
            made_by = f" (a {ref['python_type']})" if ref.get("python_type") else ""
            raise UnloadableError(f"{self.where}{made_by} cannot be read from {name}: {error!r}") from error
        return self.decode(loaded, hint) if form in (formats.JSON, formats.LINES) else loaded

    def file(self, store: FolderStore, sha256: str, ref: dict[str, Any]) -> Path:
        target = self.fresh() / _filename(ref, "file")
        store.copy_to(sha256, target)
        target.chmod(0o444)
        return target

    def fresh(self) -> Path:
        """Make a new folder, so that files of the same name do not collide."""
        return Path(tempfile.mkdtemp(prefix="input-", dir=self.folder or Path.cwd()))


def gather(items: list[Any], hint: Any) -> Any:
    """A list of loaded items as the collection type of the hint."""
    for option in hints.members(hint):
        cls = hints.class_of(option)
        if cls in (tuple, set, frozenset):
            return cls(items)
        if hints.is_named_tuple(cls):
            return cast("Any", cls)(*items)
        if cls is not None and issubclass(list, cls):
            return items
    return items


def spread(fields: dict[str, Any], hint: Any) -> Any:
    """A dictionary of loaded fields, or the NamedTuple of the hint."""
    for option in hints.members(hint):
        cls = hints.class_of(option)
        if hints.is_named_tuple(cls):
            return cast("Any", cls)(**fields)
    return fields


def _filename(ref: dict[str, Any], default: str) -> str:
    """The name that the file had. It comes from outside, so only its last part is taken."""
    name = Path(str(ref.get("filename") or default)).name
    return default if name in ("", ".", "..") or "\0" in name else name
