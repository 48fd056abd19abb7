"""The environment that a pipeline is compiled in: the interpreter and the distributions installed beside it.

Names and versions are read from the names of the folders `name-version.dist-info` (PEP 376), which takes a millisecond
where reading all metadata takes a hundred. Only `site-packages` and `dist-packages` count: other folders of the module
path hold code of projects, which is identified by its content (see `penstock.bundle.imports`).

    python -P -c "from penstock.bundle import environment; environment.main()"

prints the environment of an interpreter as JSON; executors use it to find the interpreter for a version.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from penstock.bundle.imports import INSTALLED
from penstock_core.environments.installed import Environment

_FOLDER = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(-py\d.*)?\.(dist|egg)-info\Z")


def environment_info() -> dict[str, Any]:
    """Implementation, version, packages and their digest, as `EnvironmentInfo` of the contracts."""
    packages: dict[str, str] = {}
    for folder in _site_folders():
        _read_folder(folder, packages)
    found = Environment(
        implementation=sys.implementation.name,
        version=platform.python_version(),
        packages=dict(sorted(packages.items())),
    )
    return {
        "implementation": found.implementation,
        "version": found.version,
        "digest": found.digest(),
        "packages": dict(found.packages),
    }


def interpreter_info() -> dict[str, Any]:
    """Where this environment is installed on this machine, as `InterpreterHint` of the contracts.

    The folders' times of change tell whether distributions were installed or removed since.
    """
    folders = {folder: os.stat(folder).st_mtime_ns for folder in _site_folders()}  # noqa: PTH116
    return {"python": sys.executable, "folders": folders}


def _site_folders() -> list[str]:
    """The folders of the module path that hold installed distributions, in order."""
    paths = dict.fromkeys(sys.path)
    return [path for path in paths if INSTALLED & set(Path(path).parts) and os.path.isdir(path)]  # noqa: PTH112


def _read_folder(folder: str, packages: dict[str, str]) -> None:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is needed, of thousands
    except OSError:
        return
    for name in names:
        found = _FOLDER.match(name)
        if found is None:
            continue
        version = found["version"]
        if name.endswith(".dist-info") and (content := _local_content(Path(folder, name))):
            version = f"{version} {content}"
        # The first on the path is the one that is imported.
        packages.setdefault(re.sub(r"[-_.]+", "-", found["name"]).lower(), version)


def _local_content(info: Path) -> str:
    """What identifies the content of a distribution that no index has (PEP 610): commit, archive or files.

    Editable installations have none: their modules are identified where a pipeline imports them.
    """
    try:
        origin = json.loads((info / "direct_url.json").read_bytes())
    except (OSError, ValueError):
        return ""
    match origin:
        case {"dir_info": {"editable": True}}:
            return ""
        case {"vcs_info": {"commit_id": str(commit)}}:
            return f"commit {commit[:12]}"
        case {"archive_info": {"hashes": {"sha256": str(digest)}}}:
            return f"sha256:{digest[:12]}"
        case {"archive_info": {"hash": str(digest)}}:
            return digest.replace("=", ":")[:19]
        case _:
            return _installed_files(info)


def _installed_files(info: Path) -> str:
    """Digest of the files as `RECORD` lists them, without metadata and scripts, which contain paths."""
    try:
        lines = (info / "RECORD").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    own = sorted(line for line in lines if ",sha256=" in line and not line.startswith(("..", "/", f"{info.name}/")))
    return "sha256:" + hashlib.sha256("\n".join(own).encode()).hexdigest()[:12]


def main() -> None:
    """Print environment and interpreter as one JSON object."""
    sys.stdout.write(json.dumps({"environment": environment_info(), "interpreter": interpreter_info()}))
