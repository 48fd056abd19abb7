"""Reads results: finds the value in a run, fetches the artifacts it is made of, loads them or writes them to files.

Artifacts of a platform of this machine are read where they lie; those of another one are fetched once into the user's
cache folder. Every byte is checked against its digest.
"""

from __future__ import annotations

import json
import mimetypes
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from penstock import serialize, store
from penstock.client import views
from penstock.client.errors import ClientError, NotFoundError
from penstock.client.views import Preview, Run
from penstock.serialize import folders
from penstock.store import FolderStore
from penstock_core.folders import File, Manifest

if TYPE_CHECKING:
    from penstock.client.client import Client

_SUFFIXES = {
    "json": ".json", "jsonl": ".jsonl", "text": ".txt", "markdown": ".md", "html": ".html",
    "parquet": ".parquet", "npy": ".npy", "npz": ".npz",
    "png": ".png", "image": ".png", "tiff": ".tif", "plotly": ".json",
    "safetensors": ".safetensors", "skops": ".skops", "pickle": ".pkl",
}  # fmt: skip

Value = Mapping[str, Any]


def load(client: Client, run: Run, step: str | None, output: str) -> Any:
    """The Python object of an output; see `Client.value`."""
    value = whole(client, run, find(run, step, output))
    artifact_cache = ArtifactCache(client)
    artifact_cache.fetch(value)
    paths = {"file", "folder"} & {str(ref.get("format")) for ref in references(value)}
    folder = Path(tempfile.mkdtemp(prefix="penstock-")) if paths else None
    return serialize.load(
        value, Any, artifact_cache, folder=folder, where=f"output {output!r}" + (f" of step {step!r}" if step else "")
    )


def download(client: Client, run: Run, step: str | None, output: str, to: Path, file: str | None = None) -> Path:
    """Write an output to a file or folder, or one file of an output that is a folder; see `Client.download`."""
    value = whole(client, run, find(run, step, output))
    artifact_cache = ArtifactCache(client)
    if file is not None:
        return _download_file(artifact_cache, value, output, file, to)
    artifact_cache.fetch(value)
    name = output if output != "result" or step is None else step.replace("/", "-")
    target = to / filename(value, name) if to.is_dir() else to
    target.parent.mkdir(parents=True, exist_ok=True)
    write(value, artifact_cache, target)
    return target


def preview(client: Client, run: Run, step: str | None, output: str) -> Preview:
    """What an output looks like; see `Client.preview`."""
    value = whole(client, run, find(run, step, output))
    match value:
        case {"artifact": {"sha256": sha256, **reference}}:
            query = {name: reference.get(name) or None for name in ("format", "media_type", "filename")}
            unsafe = "true" if reference.get("unsafe") else None
            path = f"/v1/artifacts/{sha256}/preview"
            answer = client.transport.json("GET", path, query={**query, "unsafe": unsafe})
            return views.build(Preview, answer)
        case {"items": _} | {"fields": _}:
            found = references(value)
            rows = [
                [one.get("filename") or one.get("python_type"), one.get("format"), one.get("size")] for one in found
            ]
            columns = [{"name": name, "type": ""} for name in ("what", "format", "bytes")]
            return Preview("table", columns=columns, rows=rows, facts={"artifacts": len(found)})
        case {"of": _}:
            return _preview_of_part(client, value)
        case _:
            text = json.dumps(value.get("value"), indent=2, ensure_ascii=False)
            return Preview("text", size=len(text.encode()), text=text, language="json")


def _preview_of_part(client: Client, value: Value) -> Preview:
    """Parts are made here, of what they are a part of; what could run code stays closed."""
    artifact_cache = ArtifactCache(client)
    artifact_cache.fetch(value)
    try:
        found = part(value, artifact_cache, unsafe=False)
    except serialize.UnsafeFormatError as error:
        return Preview("none", reason=str(error))
    if "value" not in found:
        return Preview("none", reason="it is a part of another result: `penstock artifacts get` writes it to a file")
    text = json.dumps(found["value"], indent=2, ensure_ascii=False)
    return Preview("text", size=len(text.encode()), text=text, language="json")


def _download_file(artifact_cache: ArtifactCache, value: Value, output: str, name: str, to: Path) -> Path:
    found = folders.relative(_manifest(artifact_cache, value, output), name)
    artifact_cache.fetch_object(found.pack or found.sha256)
    target = to / Path(found.path).name if to.is_dir() else to
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, lambda part: folders.load_file(found, artifact_cache, part))
    return target


def listing(client: Client, run: Run, step: str | None, output: str) -> list[File]:
    """The files of an output that is a folder; see `Client.files`."""
    return list(_manifest(ArtifactCache(client), whole(client, run, find(run, step, output)), output).files)


def _manifest(artifact_cache: ArtifactCache, value: Value, output: str) -> Manifest:
    match value:
        case {"artifact": dict() as reference} if folders.is_manifest(cast("dict[str, Any]", reference)):
            sha256 = str(cast("dict[str, Any]", reference)["sha256"])
            artifact_cache.fetch_object(sha256)
            return folders.read(sha256, artifact_cache)
        case _:
            raise ClientError(f"output {output!r} is no folder: leave the file out to get all of it")


def find(run: Run, step: str | None, output: str) -> Value:
    """The value of an output, or of an artifact that a step logged; `checkpoint` is the last checkpoint of a step.

    Raises:
        NotFound: there is none of that name (yet); says which there are.
    """
    if step is None:
        return _pick(run.outputs, output, f"run {run.run_id} ({run.state})")
    if step not in run.steps:
        known = ", ".join(list(run.steps)[:20]) or "none"
        raise NotFoundError(404, f"run {run.run_id} has no step {step!r}", f"its steps: {known}")
    view = run.steps[step]
    if output == "checkpoint" and view.checkpoint is not None and output not in view.outputs:
        return view.checkpoint.value
    return _pick({**view.artifacts, **view.outputs}, output, f"step {step!r} of run {run.run_id} ({view.state})")


def _pick(values: Mapping[str, Any], output: str, owner: str) -> Value:
    if output in values:
        return values[output]
    if output == "result" and len(values) == 1:
        return next(iter(values.values()))
    raise NotFoundError(404, f"{owner} has no output {output!r}", f"it has: {', '.join(values) or 'none'}")


def whole(client: Client, run: Run, value: Value) -> Value:
    """The value with its references to results of the run, or of earlier ones, replaced by these."""
    match value:
        case {"result": {"run_id": str() as named}} | {"collected": {"run_id": str() as named}} if (
            named and named != run.run_id
        ):
            # It was taken over from another run, to which its references belong.
            return whole(client, client.get(named), value)
        case {"result": {"key": key, "output": output}}:
            step = run.steps.get(key)
            if step is None or output not in step.outputs:
                raise ClientError(f"run {run.run_id}: output {output!r} of step {key!r} is not known (any more)")
            return whole(client, run, step.outputs[output])
        case {"collected": {"key": key, "count": count, "output": output}}:
            # An item without a result, such as one that was skipped, counts as None.
            found = [run.steps[item].outputs if (item := f"{key}[{n}]") in run.steps else {} for n in range(count)]
            return {"items": [whole(client, run, one.get(output) or {"value": None}) for one in found]}
        case {"of": inner, "path": path}:
            return {"of": whole(client, run, inner), "path": path}
        case {"items": items}:
            return {"items": [whole(client, run, item) for item in items]}
        case {"fields": fields}:
            return {"fields": {name: whole(client, run, item) for name, item in fields.items()}}
        case _:
            return value


def references(value: Value) -> list[dict[str, Any]]:
    """The artifacts that a value is made of."""
    match value:
        case {"artifact": dict() as reference}:
            return [cast("dict[str, Any]", reference)]
        case {"items": items}:
            return [reference for item in items for reference in references(item)]
        case {"fields": fields}:
            return [reference for item in fields.values() for reference in references(item)]
        case {"of": inner}:
            return references(inner)
        case _:
            return []


class ArtifactCache(FolderStore):
    """The platform's own artifact folder where it is on this machine, the user's cache folder otherwise."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._local = FolderStore(client.home / "artifacts") if client.transport.locate().pid is not None else None
        super().__init__(cache_folder())

    def path(self, sha256: str) -> Path:
        """Where the object lies, or would lie in the cache."""
        if self._local is not None and self._local.has(sha256):
            return self._local.path(sha256)
        return super().path(sha256)

    def fetch(self, value: Value) -> None:
        """Get what a value needs and is not here."""
        for reference in references(value):
            self.fetch_object(str(reference["sha256"]))
            for part in folders.parts(reference, self):
                self.fetch_object(part)

    def fetch_object(self, sha256: str) -> None:
        """Get one object, unless it is here."""
        if self.has(sha256):
            return
        with self.temporary() as temporary:
            with temporary.open("wb") as file:
                self._client.transport.download(f"/v1/artifacts/{sha256}", file)
            found, _ = self.adopt(temporary)
        store.compare(sha256, found, super().path(found))


def cache_folder() -> Path:
    """Where fetched artifacts are kept: `$XDG_CACHE_HOME/penstock`, by default `~/.cache/penstock`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock" / "artifacts"


def filename(value: Value, name: str) -> str:
    """The name of a file for a value: the one it had, or one with the ending of its format."""
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


def write(value: Value, artifact_cache: FolderStore, target: Path) -> None:
    """Write a value: an artifact's bytes, a folder's files, plain data as JSON, lists and dictionaries as folders."""
    match value:
        case {"artifact": {"format": "folder"} as reference}:
            if target.exists():
                raise ClientError(f"{target} exists already: choose another name for the folder")
            folders.restore(reference, artifact_cache, target)
        case {"artifact": {"sha256": sha256}}:
            _replace(target, lambda part: artifact_cache.copy_to(sha256, part))
        case {"items": items}:
            write({"fields": {str(index): item for index, item in enumerate(items)}}, artifact_cache, target)
        case {"fields": fields}:
            target.mkdir(parents=True, exist_ok=True)
            for name, item in fields.items():
                safe = name.replace("/", "-").replace("\0", "-").lstrip(".") or "_"
                write(item, artifact_cache, target / filename(item, safe))
        case {"of": _}:
            write(part(value, artifact_cache), artifact_cache, target)
        case {"value": plain}:
            text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
            _replace(target, lambda part: part.write_text(text))
        case _:
            raise ClientError(f"the value is of an unknown form, with the keys {sorted(value)}")


def part(value: Value, artifact_cache: FolderStore, *, unsafe: bool = True) -> Value:
    """A part of another value as a value of its own.

    Raises:
        UnsafeRefused: reading it could run code, and `unsafe` does not permit that.
    """
    loaded = serialize.load(
        value, Any, artifact_cache, folder=Path(tempfile.mkdtemp(prefix="penstock-")), unsafe=unsafe
    )
    return serialize.save(loaded, Any, FolderStore(artifact_cache.root))


def export(client: Client, run_id: str, to: Path) -> Path:
    """Write the history of a run as JSON lines: into the folder `to`, or as the file `to`."""
    target = to / f"{run_id}.jsonl" if to.is_dir() else to

    def fetch(part: Path) -> None:
        with part.open("wb") as file:
            client.transport.download(f"/v1/runs/{quote(run_id)}/history", file)

    _replace(target, fetch)
    return target


def _replace(target: Path, fill: Any) -> None:
    """Write a file beside its place and move it there whole."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        fill(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
