"""Folder manifests: the files of a folder artifact, and the objects of the store that hold their bytes.

A manifest is JSON in one canonical form, so that folders with equal content are the same artifact. A file is an object
of its own, which all folders with this file share. Small files are stored together in packs, because a thousand objects
of a kilobyte are slow to transfer. The content of the files determines where a pack ends, so that a changed file
changes one pack.

Manifests come from user code. `read` checks them, and refuses paths that lead out of the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from penstock_core import ids
from penstock_core.errors import PenstockError

MEDIA_TYPE = "application/vnd.penstock.folder+json"
MANIFEST_LIMIT = 64 * 1024 * 1024
"""Largest manifest in bytes: about 400,000 files."""

SMALL = 64 * 1024
"""Files up to this size, in bytes, are packed."""

PACK_LIMIT = 4 * 1024 * 1024
"""A pack of this size, in bytes, ends."""

_VERSION = 1
_ENDS = 64
"""One file in so many, by its digest, ends its pack."""


class UnsafeFolderError(PenstockError, ValueError):
    """A manifest or archive of a folder is invalid, for example because a path outside of the folder."""

    user_fault: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of a folder.

    Attributes:
        path: relative to the folder, parts separated by `/`.
        size: in bytes.
        sha256: of its bytes.
        executable: whether its owner may execute it.
        pack: digest of the object that it is a part of; None: its bytes are an object of their own.
        offset: where it starts in its pack.
    """

    path: str
    size: int
    sha256: str
    executable: bool = False
    pack: str | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of a folder. `folders` are the empty ones; `links` map a path to a relative target."""

    files: tuple[File, ...] = ()
    folders: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def objects(self) -> list[str]:
        """Digests of the objects with the files' bytes, without duplicates, in the order of the files."""
        return list(dict.fromkeys(file.pack or file.sha256 for file in self.files))

    def file(self, path: str) -> File | None:
        """Return the file at a path."""
        return next((file for file in self.files if file.path == path), None)


def ends_pack(sha256: str, packed: int) -> bool:
    """Whether a pack of `packed` bytes ends after the file with this digest."""
    return packed >= PACK_LIMIT or int(sha256[:8], 16) % _ENDS == 0


def encode(manifest: Manifest) -> bytes:
    """Encode the manifest in its canonical form."""
    packs = {pack: number for number, pack in enumerate(dict.fromkeys(f.pack for f in manifest.files if f.pack))}
    files: list[dict[str, Any]] = []
    for file in sorted(manifest.files, key=lambda file: file.path):
        entry: dict[str, Any] = {"path": file.path, "size": file.size, "sha256": file.sha256}
        if file.executable:
            entry["executable"] = True
        if file.pack is not None:
            entry |= {"pack": packs[file.pack], "offset": file.offset}
        files.append(entry)
    body: dict[str, Any] = {"version": _VERSION, "files": files}
    if packs:
        body["packs"] = list(packs)
    if manifest.folders:
        body["folders"] = sorted(manifest.folders)
    if manifest.links:
        body["links"] = dict(sorted(manifest.links))
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def decode(data: bytes) -> Manifest:
    """Decode and check a manifest.

    Raises:
        UnsafeFolderError: it is invalid, or has paths that lead out of the folder or conflict with each other.
    """
    if len(data) > MANIFEST_LIMIT:
        raise UnsafeFolderError(f"the folder's manifest has {len(data)} bytes; the limit is {MANIFEST_LIMIT}")
    try:
        body = json.loads(data)
        version = body["version"]
        if version != _VERSION:
            raise UnsafeFolderError(f"the folder's manifest has unknown version {version!r}")
        packs = [ids.check_digest(pack) for pack in body.get("packs", [])]
        manifest = Manifest(
            files=tuple(_file(entry, packs) for entry in body["files"]),
            folders=tuple(body.get("folders", [])),
            links=tuple(cast("Mapping[str, str]", body.get("links", {})).items()),
        )
        _check_paths(manifest)
    except UnsafeFolderError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UnsafeFolderError(f"the folder's manifest cannot be read: {error!r}"[:500]) from error
    return manifest


def _file(entry: Mapping[str, Any], packs: list[str]) -> File:
    size, offset = _count(entry["size"]), _count(entry.get("offset", 0))
    number = entry.get("pack")
    return File(
        path=entry["path"],
        size=size,
        sha256=ids.check_digest(entry["sha256"]),
        executable=entry.get("executable") is True,
        pack=None if number is None else packs[_count(number)],
        offset=offset,
    )


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise UnsafeFolderError(f"the folder's manifest has {value!r} where a non-negative number is required"[:300])
    return value


def _check_paths(manifest: Manifest) -> None:
    taken: set[str] = set()
    for path in [*(file.path for file in manifest.files), *manifest.folders, *(path for path, _ in manifest.links)]:
        problem = path_problem(path)
        if problem is not None:
            raise UnsafeFolderError(f"the folder has {path!r}, which {problem}"[:500])
        if path in taken:
            raise UnsafeFolderError(f"the folder has {path!r} twice"[:500])
        taken.add(path)
    leaves = {file.path for file in manifest.files} | {path for path, _ in manifest.links}
    for path in taken:
        for above in _above(path):
            if above in leaves:
                raise UnsafeFolderError(f"the folder has {path!r} below {above!r}, which is not a folder"[:500])
    for path, target in manifest.links:
        if link_leaves(path, target):
            raise UnsafeFolderError(
                f"the folder has the link {path!r} to {target!r}, which is outside of the folder"[:500]
            )


def _above(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def path_problem(path: Any) -> str | None:
    """Return why a path is invalid, as the end of a sentence; None if it is valid."""
    if type(path) is not str or not path:
        return "is not a path"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "is outside of the folder"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "has control characters in its name"
    if any(0xD800 <= ord(letter) < 0xE000 for letter in path):
        return "has a name that is not valid UTF-8"
    return None


def link_leaves(path: str, target: Any) -> bool:
    """Whether a link at `path` is invalid or may lead out of the folder.

    `..` is allowed only at the beginning of the target: behind a name, which may be a link itself, it could lead
    anywhere.
    """
    if type(target) is not str or not target or target.startswith("/") or "\0" in target:
        return True
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
    return ups > path.count("/") or ".." in parts[ups:]
