"""Packs the source of a pipeline in a checked out repository, and reads which environment it needs.

In: `PackOrder` as JSON on standard input. Out: the bundle in a file, and its description as JSON on standard output, or
an `error` in it. Nothing of the source is executed.

The environment is what the files of the project say: those beside the pipeline, or in a folder above it up to the root
of the repository. `uv.lock` or `pyproject.toml` come before `requirements.txt`.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock import bundle, user_modules
from penstock.authoring.environments import Environment
from penstock.errors import SourceError
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.errors import PenstockError

ENVIRONMENT = "project"
"""Name of the environment that the files of a project declare."""


def main() -> None:
    """Pack what the order says."""
    order: dict[str, Any] = json.load(sys.stdin)
    root = Path(order["checkout"])
    try:
        found = pack(root, order["path"], Path(order["bundle"]))
    except (PenstockError, OSError, ValueError, RecursionError) as error:
        found = {"error": str(error).replace(f"{root}/", "")}
    sys.stdout.buffer.write(json.dumps(found, ensure_ascii=False).encode(errors="replace"))


def pack(checkout: Path, path: str, target: Path) -> dict[str, Any]:
    """Pack the source of a pipeline into a file.

    Args:
        checkout: root of the repository.
        path: folder or file in it; empty: its root.
        target: the file of the bundle.

    Raises:
        SourceError: there is no such file.
        DefinitionError: the source is too large, or declares an environment that is not valid.
    """
    checkout = checkout.resolve()
    place = checkout / path
    if not place.resolve().is_relative_to(checkout) or not place.exists():
        raise SourceError(f"the repository has no folder or file {path!r}")
    located = user_modules.locate(str(place))
    project = bundle.ProjectModules(located.root)
    imported = project.closure(located.name)
    packed = bundle.pack(located.root)
    if (unreadable := next((name for name in packed.files if not _is_text(name)), None)) is not None:
        raise SourceError(f"the name of the file {unreadable!r} is not UTF-8: rename it, or list it in .penstockignore")
    packed.write(target)
    hidden = [
        f"{file} hides {what} from steps and from the libraries that they use: rename the file"
        for file, what in bundle.hiding(located.root, packed.files).items()
    ]
    declaration = declared(located.file.parent, checkout)
    return {
        "file": str(located.file),
        "source": packed.digest,
        "files": packed.files,
        "code": imported.digest(packed.digest),
        "environment": asdict(declaration) if declaration is not None else None,
        "own_environment": bundle.environment_info(),
        "interpreter": bundle.interpreter_info(),
        "warnings": [text.replace(f"{checkout}/", "") for text in (*packed.warnings, *hidden)],
    }


def declared(folder: Path, root: Path) -> EnvironmentDeclaration | None:
    """Return the environment that the files of a project declare, or None if it has none of them.

    Raises:
        DefinitionError: it is not valid.
    """
    for place in _upwards(folder, root):
        if (place / "uv.lock").is_file() or _has_dependencies(place / "pyproject.toml"):
            return Environment(ENVIRONMENT, project=place).declaration(root)
        if (place / "requirements.txt").is_file():
            return Environment(ENVIRONMENT, place / "requirements.txt").declaration(root)
    return None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _upwards(folder: Path, root: Path) -> Iterator[Path]:
    while folder.is_relative_to(root):
        yield folder
        folder = folder.parent


def _has_dependencies(pyproject: Path) -> bool:
    """Whether a file describes a project; many only have the settings of tools."""
    return pyproject.is_file() and "project" in tomllib.loads(pyproject.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
