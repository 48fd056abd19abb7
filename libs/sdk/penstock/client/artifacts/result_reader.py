"""Reads outputs: resolves them to artifacts, fetches these, and loads them or writes them to files.

Artifacts of a local platform are read in place; those of a remote one are fetched once into the user's cache folder.
Every byte is verified against its digest.
"""

from __future__ import annotations

import json
import mimetypes
import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from penstock import serialize, store
from penstock.client import views
from penstock.client.artifacts.atomic_files import write_atomically
from penstock.client.http.transport import Transport
from penstock.client.views import Preview, Run, get_items, get_run
from penstock.errors import ClientError, NotFoundError
from penstock.serialize import folders
from penstock.store import FolderStore
from penstock_core.artifacts.folders import File, Manifest

_SUFFIXES = {
    "json": ".json", "jsonl": ".jsonl", "text": ".txt", "markdown": ".md", "html": ".html",
    "parquet": ".parquet", "npy": ".npy", "npz": ".npz",
    "png": ".png", "image": ".png", "tiff": ".tif", "plotly": ".json",
    "safetensors": ".safetensors", "skops": ".skops", "pickle": ".pkl",
}  # fmt: skip

Value = Mapping[str, Any]


class ResultReader:
    """Reads the outputs and artifacts of runs; see `penstock.client.artifacts.Artifacts` for the methods."""

    def __init__(self, transport: Transport, home: Path) -> None:
        self._transport = transport
        self._home = home

    @cached_property
    def cache(self) -> ArtifactCache:
        """The local copies of artifacts. Needs the address of the platform, so it is created after a first answer."""
        return ArtifactCache(self._transport, self._home)

    def load(self, run: Run, step: str | None, output: str) -> Any:
        """Return an output as a Python object."""
        value = self._resolve(run, find(run, step, output))
        where = f"output {output!r}" + (f" of step {step!r}" if step else "")
        return load_value(value, self.cache, where)

    def download(self, run: Run, step: str | None, output: str, to: Path, file: str | None) -> Path:
        """Write an output, or one file of a folder; return its path."""
        value = self._resolve(run, find(run, step, output))
        if file is not None:
            return self._download_file(value, output, file, to)
        name = output if output != "result" or step is None else step.replace("/", "-")
        return download_value(value, self.cache, to, name)

    def preview(self, run: Run, step: str | None, output: str) -> Preview:
        """Return a preview of an output."""
        value = self._resolve(run, find(run, step, output))
        match value:
            case {"artifact": {"sha256": sha256, **reference}}:
                query = {name: reference.get(name) or None for name in ("format", "media_type", "filename")}
                unsafe = "true" if reference.get("unsafe") else None
                path = f"/v1/artifacts/{sha256}/preview"
                return views.build(Preview, self._transport.json("GET", path, query={**query, "unsafe": unsafe}))
            case {"items": _} | {"lists": _} | {"fields": _}:
                found = references(value)
                rows = [
                    [one.get("filename") or one.get("python_type"), one.get("format"), one.get("size")] for one in found
                ]
                columns = [{"name": name, "type": ""} for name in ("artifact", "format", "bytes")]
                return Preview("table", columns=columns, rows=rows, facts={"artifacts": len(found)})
            case {"of": _}:
                return self._preview_part(value)
            case _:
                return _preview_json(value.get("value"))

    def files(self, run: Run, step: str | None, output: str) -> list[File]:
        """Return the files of an output that is a folder."""
        return list(self._manifest(self._resolve(run, find(run, step, output)), output).files)

    def _preview_part(self, value: Value) -> Preview:
        """Preview a part of another value. It is computed here, without formats whose loading can run code."""
        self.cache.fetch(value)
        try:
            found = part(value, self.cache, unsafe=False)
        except serialize.UnsafeFormatError as error:
            return Preview("none", reason=str(error))
        if "value" not in found:
            reason = "it is a part of another result: `penstock artifacts get` writes it to a file"
            return Preview("none", reason=reason)
        return _preview_json(found["value"])

    def _download_file(self, value: Value, output: str, name: str, to: Path) -> Path:
        found = folders.relative(self._manifest(value, output), name)
        self.cache.fetch_object(found.pack or found.sha256, folder=value["artifact"]["sha256"])
        target = to / Path(found.path).name if to.is_dir() else to
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda part: folders.load_file(found, self.cache, part))
        return target

    def _manifest(self, value: Value, output: str) -> Manifest:
        match value:
            case {"artifact": dict() as reference} if folders.is_manifest(cast("dict[str, Any]", reference)):
                sha256 = str(cast("dict[str, Any]", reference)["sha256"])
                self.cache.fetch_object(sha256)
                return folders.read(sha256, self.cache)
            case _:
                raise ClientError(f"output {output!r} is not a folder: omit the name of the file to get all of it")

    def _resolve(self, run: Run, value: Value) -> Value:
        """Replace the references of a value to results of this run, or of earlier runs, by these results."""
        match value:
            case {"result": {"run_id": str() as named}} | {"collected": {"run_id": str() as named}} if (
                named and named != run.run_id
            ):
                # The result is reused from an earlier run, to which its references belong.
                return self._resolve(get_run(self._transport, named), value)
            case {"result": {"key": key, "output": output}}:
                step = run.steps.get(key)
                if step is None or output not in step.outputs:
                    raise ClientError(f"run {run.run_id}: output {output!r} of step {key!r} is not available")
                return self._resolve(run, step.outputs[output])
            case {"collected": {"key": key, "count": count, "output": output}}:
                # An item without a result, such as one that was skipped, counts as None.
                outputs = self._item_outputs(run, key)
                found = [outputs.get(f"{key}[{n}]", {}).get(output) or {"value": None} for n in range(count)]
                return {"items": [self._resolve(run, one) for one in found]}
            case {"of": inner, "path": path}:
                return {"of": self._resolve(run, inner), "path": path}
            case {"items": items}:
                return {"items": [self._resolve(run, item) for item in items]}
            case {"lists": lists}:
                return {"lists": [self._resolve(run, one) for one in lists]}
            case {"fields": fields}:
                return {"fields": {name: self._resolve(run, item) for name, item in fields.items()}}
            case _:
                return value

    def _item_outputs(self, run: Run, key: str) -> Mapping[str, Mapping[str, Value]]:
        """Return the outputs of the items of a mapped step by key. The view of a run lacks some if there are many."""
        shown = {name: step.outputs for name, step in run.steps.items() if name.startswith(f"{key}[")}
        step = run.steps.get(key)
        counts = (step.items if step is not None else None) or {}
        started = sum(number for state, number in counts.items() if state not in ("count", "finished"))
        if started <= len(shown):
            return shown
        return {item.key: item.outputs for item in get_items(self._transport, run.run_id, key)}


def load_value(value: Value, cache: ArtifactCache, where: str, *, unsafe: bool = True) -> Any:
    """Fetch the artifacts of a value and load it; `where` names it in errors."""
    cache.fetch(value)
    paths = {"file", "folder"} & {str(reference.get("format")) for reference in references(value)}
    folder = Path(tempfile.mkdtemp(prefix="penstock-")) if paths else None
    return serialize.load(value, Any, cache, folder=folder, where=where, unsafe=unsafe)


def download_value(value: Value, cache: ArtifactCache, to: Path, name: str) -> Path:
    """Fetch the artifacts of a value and write it into the folder `to` under `name`, or as the file `to`."""
    cache.fetch(value)
    target = to / filename(value, name) if to.is_dir() else to
    target.parent.mkdir(parents=True, exist_ok=True)
    write(value, cache, target)
    return target


def _preview_json(plain: Any) -> Preview:
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    return Preview("text", size=len(text.encode()), text=text, language="json")


def find(run: Run, step: str | None, output: str) -> Value:
    """Return the value of an output, of a logged artifact, or of the last `checkpoint` of a step.

    Raises:
        NotFoundError: there is none of that name (yet); the error lists the names there are.
    """
    if step is None:
        return _pick(run.outputs, output, f"run {run.run_id} ({run.state})")
    if step not in run.steps:
        known = ", ".join(list(run.steps)[:20]) or "none"
        raise NotFoundError(404, "Not found", f"run {run.run_id} has no step {step!r}; its steps: {known}")
    view = run.steps[step]
    if output == "checkpoint" and view.checkpoint is not None and output not in view.outputs:
        return view.checkpoint.value
    return _pick({**view.artifacts, **view.outputs}, output, f"step {step!r} of run {run.run_id} ({view.state})")


def _pick(values: Mapping[str, Any], output: str, owner: str) -> Value:
    if output in values:
        return values[output]
    if output == "result" and len(values) == 1:
        return next(iter(values.values()))
    raise NotFoundError(404, "Not found", f"{owner} has no output {output!r}; it has: {', '.join(values) or 'none'}")


def references(value: Value) -> list[dict[str, Any]]:
    """Return the references of the artifacts in a value."""
    match value:
        case {"artifact": dict() as reference}:
            return [cast("dict[str, Any]", reference)]
        case {"items": items} | {"lists": items}:
            return [reference for item in items for reference in references(item)]
        case {"fields": fields}:
            return [reference for item in fields.values() for reference in references(item)]
        case {"of": inner}:
            return references(inner)
        case _:
            return []


class ArtifactCache(FolderStore):
    """Reads from the artifact folder of a local platform; fetches from a remote one into the user's cache folder."""

    def __init__(self, transport: Transport, home: Path) -> None:
        self._transport = transport
        self._local = FolderStore(home / "artifacts") if transport.locate().pid is not None else None
        super().__init__(cache_folder())

    def path(self, sha256: str) -> Path:
        """Return the path of an object, or the path that it will have in the cache."""
        if self._local is not None and self._local.has(sha256):
            return self._local.path(sha256)
        return super().path(sha256)

    def fetch(self, value: Value) -> None:
        """Fetch the objects of a value that are not on this machine."""
        for reference in references(value):
            self.fetch_object(str(reference["sha256"]))
            for part in folders.parts(reference, self):
                self.fetch_object(part, folder=str(reference["sha256"]))

    def fetch_object(self, sha256: str, *, folder: str | None = None) -> None:
        """Fetch an object unless it is on this machine; `folder` is the digest of the folder that it is a file of."""
        if self.has(sha256):
            return
        with self.temporary() as temporary:
            with temporary.open("wb") as file:
                self._transport.download(f"/v1/artifacts/{sha256}", file, query={"folder": folder} if folder else None)
            found, _ = self.adopt(temporary)
        store.compare(sha256, found, super().path(found))


def cache_folder() -> Path:
    """Return the folder of fetched artifacts: in `$XDG_CACHE_HOME/penstock`, default `~/.cache/penstock`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "artifacts"


def filename(value: Value, name: str) -> str:
    """Return a file name for a value: its original one, or `name` with the suffix of its format."""
    match value:
        case {"artifact": {"filename": str(own)}} if Path(own).name not in ("", ".", ".."):
            return Path(own).name
        case {"artifact": reference}:
            ending = _SUFFIXES.get(reference.get("format", "")) or mimetypes.guess_extension(
                str(reference.get("media_type", "")).partition(";")[0]
            )
            return name + (ending or ".bin")
        case {"value": _}:
            return name + ".json"
        case _:
            return name


def write(value: Value, cache: FolderStore, target: Path) -> None:
    """Write a value to a file or folder.

    An artifact is written as its bytes or files, plain data as JSON, a list or dictionary as a folder of its items.
    """
    match value:
        case {"artifact": {"format": "folder"} as reference}:
            if target.exists():
                raise ClientError(f"{target} already exists: choose another folder")
            folders.restore(reference, cache, target)
        case {"artifact": {"sha256": sha256}}:
            write_atomically(target, lambda part: cache.copy_to(sha256, part))
        case {"items": items}:
            write({"fields": {str(index): item for index, item in enumerate(items)}}, cache, target)
        case {"lists": lists}:
            write({"fields": {str(index): one for index, one in enumerate(lists)}}, cache, target)
        case {"fields": fields}:
            target.mkdir(parents=True, exist_ok=True)
            for name, item in fields.items():
                safe = name.replace("/", "-").replace("\0", "-").lstrip(".") or "_"
                write(item, cache, target / filename(item, safe))
        case {"of": _}:
            write(part(value, cache), cache, target)
        case {"value": plain}:
            text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
            write_atomically(target, lambda part: part.write_text(text))
        case _:
            raise ClientError(f"unknown kind of value, with the keys {sorted(value)}")


def part(value: Value, cache: FolderStore, *, unsafe: bool = True) -> Value:
    """Load a value and save it as a value of its own.

    Raises:
        UnsafeFormatError: `unsafe` is False and loading the format can run code.
    """
    loaded = serialize.load(value, Any, cache, folder=Path(tempfile.mkdtemp(prefix="penstock-")), unsafe=unsafe)
    return serialize.save(loaded, Any, FolderStore(cache.root))
