"""The source bundle: the files of a project as a tar that depends on their names and contents only.

Included: regular files, and links to files. Excluded: names that begin with a dot, caches, virtual environments,
`node_modules`, the state folder, matches of `.penstockignore` (a file in the root, in the syntax of `.gitignore`), and
files over 1 MiB that are not Python, which `warnings` lists.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.bundle.ignore import Rules
from penstock_core.errors import DefinitionError
from penstock_core.source_bundles import MAX_ENTRIES, TOTAL_LIMIT

FILE_LIMIT = 1024 * 1024
"""Largest file that is no Python source, in bytes."""

_IGNORE_FILE = ".penstockignore"
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
_BINARIES = (".so", ".pyd", ".dylib")
_ENDINGS = (".pyc", ".pyo", ".egg-info")
# A folder that holds one of these is a virtual environment, or a cache by the rules of bford.info/cachedir.
_MARKS = ("pyvenv.cfg", "CACHEDIR.TAG")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed project.

    Attributes:
        root: its folder.
        data: the tar's bytes.
        digest: their SHA-256 in hexadecimal.
        files: names of its files, relative to the root, sorted.
        warnings: excluded files, with reasons.
    """

    root: Path
    data: bytes
    digest: str
    files: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def write(self, path: Path) -> Path:
        """Write the tar to a file; return its path."""
        path.write_bytes(self.data)
        return path


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    path: Path
    size: int
    executable: bool


def project_of(file: Path) -> tuple[Path, str]:
    """Root folder and module name of a Python file: up while there is an `__init__.py`."""
    file = file.resolve()
    parts = [] if file.stem == "__init__" else [file.stem]
    root = file.parent
    while (root / "__init__.py").exists() and root != root.parent:
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def root_of(file: Path, module: str) -> Path | None:
    """The folder that was first on the module path when `file` was imported as `module`; None where there is none."""
    path = file.resolve()
    names, parts = (path.parent if path.stem == "__init__" else path.with_suffix("")).parts, module.split(".")
    return Path(*names[: -len(parts)]) if list(names[-len(parts) :]) == parts else None


def pack(root: Path, exclude: Iterable[Path] = (), libraries: Mapping[str, Path] | None = None) -> Bundle:
    """Pack the project in the folder `root`.

    Args:
        root: the folder.
        exclude: files and folders to leave out.
        libraries: packages and modules outside of it, by the path that they get in the bundle.

    Raises:
        DefinitionError: the project is too large; the message names the largest files.
    """
    root = root.resolve()
    home = os.environ.get("PENSTOCK_HOME")
    left_out = {Path(path).resolve() for path in (*exclude, *([home] if home else []))}
    warnings: list[str] = []
    found = sorted(_walk(root, left_out, warnings), key=lambda file: file.name)
    large = [file for file in found if file.size > FILE_LIMIT and not file.name.endswith(".py")]
    if large:
        shown = ", ".join(f"{file.name} ({_size(file.size)})" for file in large[:5])
        more = f" and {len(large) - 5} more" if len(large) > 5 else ""
        warnings.append(
            f"files larger than {_size(FILE_LIMIT)} are not part of the source and are not available to steps: "
            f"{shown}{more}. Read data from its original location, or list these files in {_IGNORE_FILE}"
        )
        found = [file for file in found if file not in large]
    _check_total(root, found)
    for name, path in (libraries or {}).items():
        added, reason = _library(name, path, TOTAL_LIMIT - sum(file.size for file in found))
        if reason:
            warnings.append(
                f"library {name!r} in {path.parent} is not part of the source, because {reason}: only this machine has "
                "it for steps. Install it into the environment, or copy what the pipeline needs into its folder"
            )
        else:
            known = {file.name for file in found}
            found += [file for file in added if file.name not in known]
    return _pack(root, sorted(found, key=lambda file: file.name), warnings)


def _library(name: str, path: Path, room: int) -> tuple[list[_File], str]:
    """The files of a package or module outside of the folder, or why they cannot be packed."""
    if path.is_file():
        files, warnings = [_File(name, path, path.stat().st_size, executable=False)], list[str]()
    else:
        warnings = []
        try:
            walked = list(_walk(path, set(), warnings))
        except DefinitionError:
            return [], "it has too many files"
        files = [dataclasses.replace(file, name=f"{name}/{file.name}") for file in walked]
    binary = next((file.name for file in files if file.name.endswith(_BINARIES)), None)
    large = next((file.name for file in files if file.size > FILE_LIMIT and not file.name.endswith(".py")), None)
    if binary is not None:
        return [], f"{binary} is compiled for one kind of machine"
    if warnings or large is not None:
        return [], warnings[0] if warnings else f"{large} is larger than {_size(FILE_LIMIT)}"
    if sum(file.size for file in files) > room:
        return [], f"the source would have more than {_size(TOTAL_LIMIT)}"
    return files, ""


def _walk(root: Path, left_out: set[Path], warnings: list[str]) -> Iterator[_File]:
    rules = Rules.read(root / _IGNORE_FILE)
    seen = 0
    folders = [""]
    while folders:
        base = folders.pop()
        try:
            entries = list(os.scandir(root / base))
        except OSError as error:
            warnings.append(f"folder {base or '.'} cannot be read and is left out: {error.strerror}")
            continue
        if base and any(entry.name in _MARKS for entry in entries):
            continue
        seen += len(entries)
        if seen > MAX_ENTRIES:
            raise DefinitionError(
                f"the folder {root} contains more than {MAX_ENTRIES} files and folders: move the pipeline into "
                f"a separate "
                f"folder, or list other files in {root / _IGNORE_FILE}"
            )
        for entry in entries:
            name = f"{base}/{entry.name}" if base else entry.name
            if _skipped(entry.name) or (left_out and Path(entry.path).resolve() in left_out):
                continue
            folder = entry.is_dir(follow_symlinks=False)
            if rules.match(name, folder):
                continue
            if folder:
                folders.append(name)
            elif (file := _file(entry, name, warnings)) is not None:
                yield file


def _skipped(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED or name.endswith(_ENDINGS)


def _file(entry: os.DirEntry[str], name: str, warnings: list[str]) -> _File | None:
    """A regular file, or a link to one; other entries are excluded."""
    try:
        status = entry.stat()
    except OSError:
        warnings.append(f"{name} is a link to nothing and is left out")
        return None
    if stat.S_ISREG(status.st_mode):
        return _File(name, Path(entry.path), status.st_size, bool(status.st_mode & 0o100))
    if stat.S_ISDIR(status.st_mode):
        warnings.append(f"{name} is a link to a folder and is left out: links are followed to files only")
    return None


def _check_total(root: Path, files: list[_File]) -> None:
    total = sum(file.size for file in files)
    if total > TOTAL_LIMIT:
        largest = sorted(files, key=lambda file: file.size, reverse=True)[:5]
        shown = ", ".join(f"{file.name} ({_size(file.size)})" for file in largest)
        raise DefinitionError(
            f"the source in {root} has {_size(total)}, more than {_size(TOTAL_LIMIT)}. The largest files: {shown}. "
            f"List files that no step needs in {root / _IGNORE_FILE}"
        )


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**19 else f"{size / 2**10:.1f} KiB"


def _pack(root: Path, files: list[_File], warnings: list[str]) -> Bundle:
    buffer = io.BytesIO()
    names: list[str] = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            try:
                # Read whole, so that a file that changes meanwhile cannot tear the archive.
                data = file.path.read_bytes()
            except OSError as error:
                warnings.append(f"{file.name} cannot be read and is left out: {error.strerror}")
                continue
            member = tarfile.TarInfo(file.name)
            member.size, member.mode = len(data), 0o755 if file.executable else 0o644
            archive.addfile(member, io.BytesIO(data))
            names.append(file.name)
    data = buffer.getvalue()
    return Bundle(root, data, hashlib.sha256(data).hexdigest(), tuple(names), tuple(warnings))
