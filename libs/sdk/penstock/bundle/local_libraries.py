"""Modules that a pipeline imports from outside of its folder, and files of the folder that hide other modules.

A local library is neither installed nor in the folder: a folder in `PYTHONPATH`, or an editable installation. The
source bundle contains those that the pipeline imports, so that steps have them on every machine.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from penstock.bundle.imports import INSTALLED, ImportClosure, ProjectModules
from penstock.bundle.source import root_of

_HARMLESS = frozenset({"conftest", "docs", "examples", "setup", "test", "tests", "this"})
"""Usual names in projects; nothing imports the modules of Python, or of badly packed distributions, that have them."""


def find(root: Path, project: ProjectModules, imported: ImportClosure) -> dict[str, Path]:
    """Return the packages and modules outside of `root` that are imported, by their path below a module path."""
    root = root.resolve()
    found: dict[str, Path] = {}
    for name in imported.modules:
        file = project.find(name)
        base = None if file is None or file.is_relative_to(root) else root_of(file, name)
        if file is not None and base is not None:
            path = _package(base, file)
            found[path.relative_to(base).as_posix()] = path
    return found


def _package(base: Path, file: Path) -> Path:
    """The outermost package around a module, or the module itself."""
    around = [folder for folder in file.parents if folder != base and folder.is_relative_to(base)]
    return next((folder for folder in reversed(around) if (folder / "__init__.py").exists()), file)


def hiding(root: Path, files: Iterable[str]) -> dict[str, str]:
    """Return what modules of a folder hide: descriptions of installed modules and modules of Python, by file."""
    installed = [entry for entry in sys.path if INSTALLED & set(Path(entry).parts)]
    found: dict[str, str] = {}
    for file in files:
        folder, _, rest = file.partition("/")
        name = folder.removesuffix(".py")
        if rest not in ("", "__init__.py") or not file.endswith(".py") or name in _HARMLESS:
            continue
        if name in sys.stdlib_module_names:
            found[file] = f"the module {name!r} of Python"
            continue
        spec = importlib.machinery.PathFinder.find_spec(name, installed)
        origin = spec.origin if spec is not None else None
        if origin is not None and not Path(origin).resolve().is_relative_to(root.resolve()):
            found[file] = f"the installed module {name!r} ({origin})"
    return found


def hiding_in(folder: Path) -> dict[str, str]:
    """Return what the modules of a folder hide; see `hiding`."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - only names are needed
    except OSError:
        return {}
    return hiding(
        folder,
        [
            name if name.endswith(".py") else f"{name}/__init__.py"
            for name in sorted(names)
            if name.endswith(".py") or (folder / name / "__init__.py").exists()
        ],
    )
