"""Values of a run in a warm worker: live objects between steps, artifacts loaded once, results saved at the end.

What has no plain form, such as an array or a table, passes from step to step as it is, and is stored only if it is an
output of the run. Artifacts among the inputs, such as models, stay loaded for the next requests.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from penstock import codec, serialize
from penstock.serialize import files
from penstock.serialize.live_objects import LiveObjects
from penstock.store import FolderStore
from penstock_core import plain_data
from penstock_core.pipeline import values
from penstock_core.pipeline.values import INLINE_LIMIT, Fields, Inline, Items, Stored, Value

_LOADED = 16
"""Artifacts of requests that stay loaded."""

_LOADED_BYTES = 256 * 1024 * 1024
"""Their stored bytes together."""

_RECORDED = 256 * 1024
"""Characters of JSON of a value between steps that is recorded: a larger one would not fit into a fact."""

Json = dict[str, Any]

_Key = tuple[str, str, str]
"""Digest, format and type of a loaded artifact."""


class LoadedArtifacts:
    """Loads artifacts. Those that all requests share stay loaded, of the others those that were used last."""

    def __init__(self, store: FolderStore, *, unsafe: bool) -> None:
        self.store = store
        self.unsafe = unsafe
        self._folder: Path | None = None
        self._shared: dict[_Key, Any] = {}
        self._loaded: OrderedDict[_Key, tuple[Any, int]] = OrderedDict()
        self._size = 0

    def load(self, value: Stored, hint: Any, where: str, *, shared: bool = False) -> Any:
        """Return the object in an artifact. All requests of this worker get the same one, except files.

        Args:
            value: the artifact.
            hint: the type that the step declares.
            where: names the input in errors.
            shared: whether it stays loaded because all requests use it.
        """
        saved = json.loads(plain_data.write(value))
        if value.artifact.format in (files.FILE, files.FOLDER):
            self._folder = self._folder or Path(tempfile.mkdtemp(prefix="request-", dir=Path.cwd()))
            return serialize.load(saved, hint, self.store, folder=self._folder, where=where, unsafe=self.unsafe)
        key = (value.artifact.sha256, value.artifact.format, repr(hint))
        if key in self._shared:
            return self._shared[key]
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key][0]
        loaded = serialize.load(saved, hint, self.store, where=where, unsafe=self.unsafe)
        if shared:
            self._shared[key] = loaded
            return loaded
        self._loaded[key] = loaded, value.artifact.size
        self._size += value.artifact.size
        while self._loaded and (len(self._loaded) > _LOADED or self._size > _LOADED_BYTES):
            self._size -= self._loaded.popitem(last=False)[1][1]
        return loaded

    def remove_files(self) -> None:
        """Remove the files of the requests that have finished."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class WarmValues(LiveObjects):
    """The values of one run."""

    def __init__(self, results: Callable[[str, str], Value], artifacts: LoadedArtifacts) -> None:
        super().__init__(results)
        self._artifacts = artifacts
        self._saved: dict[int, Json] = {}

    def made(self, live: Any, hint: Any) -> Value:
        """Return the value of what a step returned: plain data if it has such a form, else a live object."""
        try:
            made: Value = Inline(codec.encode(live, hint, paths=False))
        except codec.NotJsonError:
            return self.value(live)
        return self.keep(made, live)

    def input(self, value: Value, hint: Any, where: str) -> Any:
        """Return the object that a step gets for an input.

        Raises:
            TypeError: it does not have the declared type.
        """
        if isinstance(value, Stored) and not self.knows(value):
            return self._artifacts.load(value, hint, where)
        return self.load(value, hint)

    def saved(self, value: Value, where: str) -> Json:
        """Return an output of the run as JSON, after its live objects were stored as artifacts."""
        if id(value) not in self._saved:
            self._saved[id(value)] = self._save(value, where)
        return self._saved[id(value)]

    def _save(self, value: Value, where: str) -> Json:
        store, unsafe = self._artifacts.store, self._artifacts.unsafe
        match value:
            case Inline(data) if type(data) in (int, float, bool, type(None)):
                return {"value": data}
            case Inline(data):
                if len(json.dumps(data)) <= INLINE_LIMIT:
                    return {"value": data}
                return cast("Json", serialize.save(data, Any, store, where=where, unsafe=unsafe))
            case Items(items):
                return {"items": [self.saved(one, where) for one in items]}
            case Fields(fields):
                return {"fields": {name: self.saved(one, where) for name, one in fields.items()}}
            case Stored() if not self.knows(value):
                return cast("Json", json.loads(plain_data.write(value)))
            case _:
                return cast("Json", serialize.save(self.load(value, Any), Any, store, where=where, unsafe=unsafe))

    def recorded(self, named: Mapping[str, Value]) -> dict[str, Any]:
        """Return the values of an attempt that can be recorded: those that are plain and not large, or were stored."""
        found: dict[str, Any] = {}
        for name, value in named.items():
            if id(value) in self._saved:
                found[name] = self._saved[id(value)]
            elif not self._is_live(value) and not _is_large(value):
                found[name] = value
        return found

    def _is_live(self, value: Value) -> bool:
        if isinstance(value, Stored):
            return self.knows(value)
        return any(self._is_live(one) for one in values.components(value))


def _is_large(value: Value) -> bool:
    if isinstance(value, Inline) and type(value.value) in (int, float, bool, type(None)):
        return False
    return len(plain_data.write(value)) > _RECORDED


def artifacts_of(saved: Any) -> bool:
    """Whether a saved value has artifacts in it."""
    match saved:
        case {"artifact": _}:
            return True
        case {"items": list() as several}:
            return any(map(artifacts_of, cast("list[Any]", several)))
        case {"fields": dict() as fields}:
            return any(map(artifacts_of, cast("dict[str, Any]", fields).values()))
        case _:
            return False
