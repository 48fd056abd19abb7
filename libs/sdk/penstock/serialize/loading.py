"""From a value that travelled back to a Python value."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from penstock import codec, hints
from penstock.hints import check
from penstock.serialize import files, formats
from penstock.store import FolderStore
from penstock_core.errors import PenstockError


class Unloadable(PenstockError):
    """A value cannot be read; the message says why."""


def load(
    value: Mapping[str, Any],
    hint: Any = Any,
    store: FolderStore | None = None,
    *,
    folder: Path | None = None,
    where: str = "the value",
) -> Any:
    """Load a value.

    Args:
        value: the value as JSON, as `save` gave it. References to results of the run's log must be replaced before.
        hint: what the reader expects: plain data is converted to it where that loses nothing, then held against it.
        store: where artifacts lie. Their bytes are checked against their digest.
        folder: where files and folders are put, each in a new folder; default: the working folder.
        where: what the value is, for errors, such as `input 'data' of step 'train'`.

    Raises:
        TypeError: the value is not what the hint says.
        ArtifactMissing: the store does not have it.
        ArtifactDamaged: its bytes are not those that were stored.
        Unloadable: it is of an unknown form, or reading it failed.
    """
    loaded = _Loader(store, folder, where).load(value, hint)
    found = check.problem(loaded, hint)
    if found is not None:
        raise TypeError(f"{where} is declared as {hints.show(hint)}, but {found}")
    return loaded


class _Loader:
    def __init__(self, store: FolderStore | None, folder: Path | None, where: str) -> None:
        self.store = store
        self.folder = folder
        self.where = where

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
            case {"fields": dict() as fields}:
                return self.fields(cast("dict[str, Any]", fields), hint)
            case {"result": _}:
                raise Unloadable(f"{self.where} is a reference to the run's log, which must be read first")
            case _:
                raise Unloadable(f"{self.where} is of an unknown form, with the keys {sorted(value)}")

    def decode(self, data: Any, hint: Any) -> Any:
        try:
            return codec.decode(data, hint)
        except codec.Mismatch as error:
            raise TypeError(f"{self.where} is declared as {hints.show(hint)}, but {error}") from error

    def fields(self, fields: dict[str, Any], hint: Any) -> Any:
        cls = hints.klass(hints.strip(hint))
        inner = hints.fields(cls) if hints.is_named_tuple(cls) else {}
        entry_hint = hints.entry(hint)[1]
        loaded = {name: self.load(entry, inner.get(name, entry_hint)) for name, entry in fields.items()}
        return spread(loaded, hint)

    def artifact(self, ref: dict[str, Any], hint: Any) -> Any:
        name, sha256 = str(ref.get("format", "")), str(ref.get("sha256", ""))
        if self.store is None:
            raise Unloadable(f"{self.where} is the artifact {sha256}, and no store was given to load it from")
        if name == files.FILE:
            return self.file(self.store, sha256, ref)
        path = self.store.check(sha256)
        if name == files.FOLDER:
            target = self.fresh() / _filename(ref, "folder")
            files.unpack(path, target)
            return target
        form = formats.FORMATS.get(name)
        if form is None:
            raise Unloadable(
                f"{self.where} was saved in the format {name!r}, which is not known here: "
                "import the module that registers it with penstock.serialize.register"
            )
        try:
            loaded = form.load(path)
        except Exception as error:
            made_by = f" (a {ref['python_type']})" if ref.get("python_type") else ""
            raise Unloadable(f"{self.where}{made_by} cannot be read from {name}: {error!r}") from error
        return self.decode(loaded, hint) if name == formats.JSON.name else loaded

    def file(self, store: FolderStore, sha256: str, ref: dict[str, Any]) -> Path:
        target = self.fresh() / _filename(ref, "file")
        store.copy_to(sha256, target)
        target.chmod(0o444)
        return target

    def fresh(self) -> Path:
        """A new folder, so that files of one name do not meet."""
        return Path(tempfile.mkdtemp(prefix="input-", dir=self.folder or Path.cwd()))


def gather(items: list[Any], hint: Any) -> Any:
    """A list of loaded items as the kind of collection that the hint asks for."""
    for option in hints.members(hint):
        cls = hints.klass(option)
        if cls in (tuple, set, frozenset):
            return cls(items)
        if hints.is_named_tuple(cls):
            return cast("Any", cls)(*items)
        if cls is not None and issubclass(list, cls):
            return items
    return items


def spread(fields: dict[str, Any], hint: Any) -> Any:
    """A dictionary of loaded fields, or the NamedTuple that the hint asks for."""
    for option in hints.members(hint):
        cls = hints.klass(option)
        if hints.is_named_tuple(cls):
            return cast("Any", cls)(**fields)
    return fields


def _filename(ref: dict[str, Any], default: str) -> str:
    """The name that the file had. It comes from outside, so only its last part is taken."""
    name = Path(str(ref.get("filename") or default)).name
    return default if name in ("", ".", "..") or "\0" in name else name
