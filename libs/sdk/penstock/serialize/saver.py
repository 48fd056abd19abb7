"""Save Python values: as inline JSON, as an artifact, or as items and fields of these."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path, PurePath
from typing import Any, cast

from penstock import codec, hints
from penstock.errors import ArtifactTooLargeError, ForbiddenFormatError, StoreFullError, UnsavableError
from penstock.hints import value_check
from penstock.serialize import files, folders, formats, value_parts
from penstock.serialize.formats import Format, FormatNotApplicableError
from penstock.store import FolderStore
from penstock_core.artifacts.folders import MEDIA_TYPE as MANIFEST
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef

MAX_ITEMS = 2_000
"""Longest list or dictionary that is saved item by item; each item is an artifact, and their references travel."""

MAX_DEPTH = 150
"""Deepest JSON data, in levels: readers of any language, and Python's own, have a limit. Deeper data is pickled."""

_INLINE_DEPTH = 64
_PLAIN = frozenset({int, float, str, bool, type(None)})


def save(
    value: object,
    hint: Any = Any,
    store: FolderStore | None = None,
    *,
    where: str = "the value",
    unsafe: bool = True,
) -> Any:
    """Save a value.

    Args:
        value: the value.
        hint: the declared type, against which the value is checked.
        store: the artifact store; None allows inline values only.
        where: the value's name in errors, such as `output 'train' of step 'split'`.
        unsafe: whether formats may be used whose loading can run code, such as pickle.

    Returns:
        the value as JSON (see `penstock_core.pipeline.values`), such as `{"value": 3}` or `{"artifact": {…}}`.

    Raises:
        TypeError: the value is not of the declared type.
        UnsavableError: it cannot be saved at all (a `TypeError`, too).
        ForbiddenFormatError: only an unsafe format could keep it (an `UnsavableError`, too).
        FileNotFoundError: it is a path that does not exist.
        ArtifactTooLargeError: it is larger than the platform's limit.
        StoreFullError: the disk has no room left.
    """
    cls = type(value)
    if (cls is bool or value is None or (cls is int and -(1 << 63) <= cast("int", value) < 1 << 63)) and hint is cls:
        return {"value": value}
    found = value_check.problem(value, hint)
    if found is not None:
        raise TypeError(f"{where} is declared as {hints.show(hint)}, but {found}")
    try:
        return _Saver(store, where, unsafe=unsafe).save(value, hint)
    except (ArtifactTooLargeError, StoreFullError) as error:
        raise type(error)(f"{where} cannot be stored: {error}") from error


class _Saver:
    def __init__(self, store: FolderStore | None, where: str, *, unsafe: bool) -> None:
        self.store = store
        self.where = where
        self.unsafe = unsafe

    def save(self, value: object, hint: Any) -> Any:
        own = formats.registered_format(value)
        if own is not None:
            if own.unsafe and not self.unsafe:
                raise self.forbidden(value, f"{own.name!r}, which was registered as unsafe")
            return self.artifact(value, own)
        if isinstance(value, PurePath):
            return self.path(Path(value))
        if type(value) is bytes:
            return self.artifact(value, formats.BYTES)
        library = formats.library_formats(value)
        if library:
            return self.first(value, library)
        if self.needs_items(value):
            return self.items(value, hint)
        return self.data(value, hint)

    def first(self, value: object, tried: tuple[Format, ...], reason: str = "") -> Any:
        """Save in the first of these formats that fits; as a pickle, or what stands in for it, where none does."""
        reasons = [reason] if reason else []
        for form in tried:
            try:
                return self.artifact(value, form)
            except FormatNotApplicableError as unfit:
                reasons.append(str(unfit))
        if self.unsafe:
            return self.artifact(value, formats.PICKLE)
        for form in formats.safe_formats(value):
            try:
                return self.artifact(value, form)
            except FormatNotApplicableError as unfit:
                reasons.append(str(unfit))
        raise self.forbidden(value, "pickle", next((one for one in reversed(reasons) if one), ""))

    def forbidden(self, value: object, form: str, reason: str = "") -> ForbiddenFormatError:
        why = f" ({reason})" if reason else ""
        return ForbiddenFormatError(
            f"{self.where} is a {type(value).__qualname__} that only {form} can store{why}, and this project forbids "
            "formats whose loading can run code. Return plain data, a dataclass, a table, an array or a file instead, "
            "or register a format with penstock.serialize.register"
        )

    def data(self, value: object, hint: Any) -> Any:
        """JSON, inline if it is small; what has no exact JSON form is pickled."""
        try:
            tree = codec.encode(value, hint, paths=False)
        except codec.NotJsonError as error:
            if contains_path(value):
                kind = type(value).__name__
                raise UnsavableError(
                    f"{self.where} contains a path inside a {kind}, and the file would be lost. Return each path as a "
                    f"separate output (a field of a NamedTuple), in a list or dictionary of up to {MAX_ITEMS}, "
                    f"or return the folder that contains them"
                ) from error
            return self.first(value, (), str(error))
        if isinstance(tree, bool | int | float | None):
            return {"value": tree}
        levels = depth(tree)
        if levels > MAX_DEPTH:
            return self.first(value, (), f"it is nested more than {MAX_DEPTH} levels deep")
        text = json.dumps(tree, separators=(",", ":"), ensure_ascii=False)
        if len(text) <= values.INLINE_LIMIT and len(text.encode()) <= values.INLINE_LIMIT and levels <= _INLINE_DEPTH:
            return {"value": tree}
        if type(tree) is str:
            return self.artifact(tree, formats.TEXT)
        return self.artifact(tree, formats.json_format(tree), python_type=formats.type_name(value))

    def needs_items(self, value: object, levels: int = _INLINE_DEPTH) -> bool:
        """Whether a list or dictionary holds things that have a format of their own, directly or deeper."""
        if type(value) is list:
            inner = cast("list[object]", value)
        elif type(value) is dict and all(type(key) is str for key in cast("dict[object, object]", value)):
            inner = list(cast("dict[str, object]", value).values())
        else:
            return False
        if len(inner) > MAX_ITEMS:
            return False
        return any(
            type(entry) not in _PLAIN and (has_format(entry) or (levels > 0 and self.needs_items(entry, levels - 1)))
            for entry in inner
        )

    def items(self, value: Any, hint: Any) -> Any:
        if isinstance(value, dict):
            inner = hints.entry(hint)[1]
            return {"fields": {key: self.save(entry, inner) for key, entry in cast("dict[str, Any]", value).items()}}
        return {"items": [self.save(entry, hints.item(hint)) for entry in cast("list[Any]", value)]}

    def path(self, path: Path) -> Any:
        if not path.exists():
            raise FileNotFoundError(
                f"{self.where} is the path {str(path)!r}, which does not exist "
                f"(relative paths start at the step's working folder, {Path.cwd()})"
            )
        store = self.needed_store()
        filename = path.resolve().name if path.name in ("", "..") else path.name
        if not (path.is_file() or path.is_dir()):
            raise UnsavableError(
                f"{self.where} is the path {str(path)!r}, which is neither a file nor a folder but a pipe, socket or "
                "device: write what is read from it to a file"
            )
        if path.is_file():
            sha256, size = store.put_file(path)
            ref = ArtifactRef(sha256=sha256, size=size, media_type=files.media_type(path), format=files.FILE)
        else:
            data, manifest = folders.save(path, store)
            sha256, size = store.put_bytes(data)
            ref = ArtifactRef(sha256=sha256, size=size, media_type=MANIFEST, format=files.FOLDER, total=manifest.total)
        return artifact_json(dataclasses.replace(ref, filename=filename, python_type="pathlib:Path"))

    def artifact(self, value: object, form: Format, python_type: str = "") -> Any:
        store = self.needed_store()
        with store.temporary() as temporary:
            try:
                project_types = form.save(value, temporary) is True
            except (FormatNotApplicableError, OSError):
                raise
            except RecursionError as error:
                raise UnsavableError(
                    f"{self.where}, a {type(value).__qualname__}, is nested too deeply to be saved: give it as a flat "
                    "list of its parts"
                ) from error
            except Exception as error:
                kind = type(value).__qualname__
                raise UnsavableError(
                    f"{self.where}, a {kind}, cannot be saved as {form.name}: {error}. Return plain data instead, or "
                    "register a format for it with penstock.serialize.register"
                ) from error
            sha256, size = store.adopt(temporary)
        return artifact_json(
            ArtifactRef(
                sha256=sha256,
                size=size,
                media_type=form.media_type,
                format=form.name,
                python_type=python_type or formats.type_name(value),
                unsafe=form.unsafe,
                items=value_parts.count(value),
                project_types=project_types,
            )
        )

    def needed_store(self) -> FolderStore:
        if self.store is None:
            raise UnsavableError(f"{self.where} is too large, or not plain data: storing it requires an artifact store")
        return self.store


def artifact_json(ref: ArtifactRef) -> dict[str, Any]:
    """The JSON form of an artifact value."""
    return {"artifact": {field.name: getattr(ref, field.name) for field in dataclasses.fields(ref)}}


def has_format(value: object) -> bool:
    """Whether a value on its own is saved in a specific format."""
    return (
        isinstance(value, PurePath)
        or type(value) is bytes
        or formats.registered_format(value) is not None
        or bool(formats.library_formats(value))
    )


def contains_path(value: object, levels: int = MAX_DEPTH) -> bool:
    """Whether plain containers, data classes and pydantic models hold a path."""
    if isinstance(value, PurePath):
        return True
    if levels == 0:
        return False
    if isinstance(value, dict):
        inner: list[Any] = list(cast("dict[Any, Any]", value).values())
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(cast("list[Any]", value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    elif hasattr(value, "__pydantic_fields_set__"):
        inner = list(vars(value).values())
    else:
        return False
    return any(contains_path(entry, levels - 1) for entry in inner)


def depth(tree: Any) -> int:
    """Levels of nesting of JSON data."""
    level, found = [tree], 0
    while level:
        found += 1
        level = [
            entry
            for one in level
            if isinstance(one, list | dict)
            for entry in (cast("dict[str, Any]", one).values() if isinstance(one, dict) else cast("list[Any]", one))
        ]
    return found
