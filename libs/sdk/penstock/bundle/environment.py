"""The environment that a pipeline is compiled in: the interpreter and what is installed beside it.

Names and versions are read off the folders `name-version.dist-info` (PEP 376), which takes a millisecond where reading
all metadata takes a hundred. What is installed in editable form changes without a new version, so the digest counts
the times of its source files: those in the folders that its `.pth` file puts on the path.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_MAX_SOURCES = 5_000
_FOLDER = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(-py\d.*)?\.(dist|egg)-info\Z")


def environment_info() -> dict[str, Any]:
    """Interpreter, version, packages and their digest, as `EnvironmentInfo` of the contracts."""
    packages: dict[str, str] = {}
    editables: list[str] = []
    path_files: list[Path] = []
    for folder in dict.fromkeys(sys.path):
        _read_folder(folder, packages, editables, path_files)
    sources = _sources(editables, path_files)
    ordered = dict(sorted(packages.items()))
    text = json.dumps(
        [
            1,
            sys.executable,
            sys.version,
            platform.machine(),
            ordered,
            [_newest(path) for path in sources],
        ]
    )
    return {
        "python": sys.executable,
        "version": platform.python_version(),
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "packages": ordered,
    }


def _read_folder(folder: str, packages: dict[str, str], editables: list[str], path_files: list[Path]) -> None:
    try:
        names = os.listdir(folder or ".")  # noqa: PTH208 - names are all that is needed, of thousands
    except OSError:
        return
    for name in names:
        if name.endswith(".pth"):
            path_files.append(Path(folder, name))
        found = _FOLDER.match(name)
        if found is None:
            continue
        # The first on the path is the one that is imported.
        packages.setdefault(re.sub(r"[-_.]+", "-", found["name"]).lower(), found["version"])
        if name.endswith(".dist-info") and (source := _editable(Path(folder, name, "direct_url.json"))):
            editables.append(source)


def _editable(file: Path) -> str | None:
    """The folder that an editable installation stands for (PEP 610)."""
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    if not data.get("dir_info", {}).get("editable"):
        return None
    return unquote(urlsplit(str(data.get("url", ""))).path)


def _sources(editables: list[str], path_files: list[Path]) -> list[str]:
    """The folders that editable installations import from: a repository has tests and examples beside its packages."""
    on_path: list[str] = []
    for file in path_files:
        with suppress(OSError):
            on_path += file.read_text(errors="replace").splitlines()
    found: set[str] = set()
    for folder in editables:
        inside = [path for path in on_path if path.startswith(folder + os.sep)]
        found.update([folder] if folder in on_path or not inside else inside)
    return sorted(found)


def _newest(folder: str) -> list[Any]:
    """What tells one state of a source folder from another: number and newest time of its Python files."""
    count, newest = 0, 0
    for base, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in ("node_modules", "__pycache__")
        ]
        for name in names:
            if name.endswith(".py"):
                count += 1
                with suppress(OSError):
                    newest = max(newest, os.stat(os.path.join(base, name)).st_mtime_ns)  # noqa: PTH116, PTH118 - hot
        if count > _MAX_SOURCES:
            break
    return [folder, count, newest]
