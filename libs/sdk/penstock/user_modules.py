"""The user's modules: find the module of `FILE`, `FILE:PIPELINE` or a folder, import it, and choose its pipeline."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from penstock import bundle, tracebacks
from penstock.errors import SourceError
from penstock_core.errors import PenstockError

if TYPE_CHECKING:
    from penstock.authoring import Pipeline

_USUAL = ("pipeline.py", "main.py", "__init__.py")


@dataclass(frozen=True, slots=True)
class Target:
    """A module to import: `name` with `root` first on the module path; `pipeline` is None if not given."""

    file: Path
    root: Path
    name: str
    pipeline: str | None = None


def locate(source: str) -> Target:
    """Return the module of a source."""
    path, pipeline = Path(source), None
    if not path.exists() and ":" in source:
        left, _, pipeline = source.rpartition(":")
        path = Path(left)
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise SourceError(
            f"there is no file {str(path)!r}{_near(path)}: pass a Python file, or a folder with a pipeline.py"
        )
    if path.suffix != ".py":
        raise SourceError(f"{path} is not a Python file: its name must end in .py")
    file = path.resolve()
    if "." in file.stem:
        raise SourceError(f"{path} cannot be imported, because {file.stem!r} has a dot in it: rename it")
    root, module = bundle.project_of(file)
    return Target(file, root, module, pipeline or None)


def _in_folder(folder: Path) -> Path:
    for name in (*_USUAL[:1], f"{folder.resolve().name}.py", *_USUAL[1:]):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.py"))
    if len(found) == 1:
        return found[0]
    shown = ", ".join(str(path) for path in found[:10])
    raise SourceError(f"folder {folder} has no pipeline.py: pass a file" + (f" (there are: {shown})" if shown else ""))


def _near(path: Path) -> str:
    with contextlib.suppress(OSError):
        close = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=1)
        if close:
            return f" (did you mean {str(path.with_name(close[0]))!r}?)"
    return ""


threads_of: dict[str, list[str]] = {}
"""Names of the threads that modules started while they were imported."""

_roots: set[Path] = set()
"""Roots of projects that were imported in this process."""


def _forget_other_projects(target: Target) -> None:
    """Unload modules of other projects that have the same names, such as `pipeline`."""
    here = {path.stem for path in target.root.iterdir() if path.suffix in (".py", "")}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        root = bundle.root_of(Path(file), name) if top in here and (file := getattr(module, "__file__", None)) else None
        if root in _roots and root != target.root:
            del sys.modules[name]
    for root in _roots - {target.root}:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(root))
    _roots.add(target.root)


def import_module(target: Target) -> ModuleType:
    """Import the module of a target in this process.

    Raises:
        SourceError: it cannot be imported, or another module has its name.
    """
    _forget_other_projects(target)
    there = sys.modules.get(target.name)
    if there is not None and not _is_file(there, target.file):
        raise SourceError(
            f"{target.file} cannot be imported: its name shadows the module {target.name!r} "
            f"({getattr(there, '__file__', None) or 'built in'}); rename the file"
        )
    if str(target.root) not in sys.path[:1]:
        sys.path.insert(0, str(target.root))
    importlib.invalidate_caches()
    before = set(threading.enumerate())
    try:
        with _script_arguments(target.file):
            # Unlike importlib.import_module, this leaves no frame of its own in the user's traceback.
            __import__(target.name)
            module = sys.modules[target.name]
    except PenstockError:
        raise
    except SystemExit as error:
        raise SourceError(
            f"{_place(error, target)}: the file calls sys.exit when it is imported: move the call "
            "under `if __name__ == '__main__':`",
            tracebacks.user_traceback(error),
        ) from error
    except Exception as error:
        raise SourceError(
            f"{_place(error, target)}: {type(error).__name__}: {error}{_advice(error, target)}",
            tracebacks.user_traceback(error),
        ) from error
    threads_of[target.name] = [one.name for one in threading.enumerate() if one not in before]
    if not _is_file(module, target.file):
        raise SourceError(
            f"{target.file} cannot be imported: {target.name!r} is {getattr(module, '__file__', None) or 'built in'}; "
            "rename the file"
        )
    return module


def _is_file(module: ModuleType, file: Path) -> bool:
    own = getattr(module, "__file__", None)
    return own is not None and Path(own).resolve() == file


@contextlib.contextmanager
def _script_arguments(file: Path) -> Generator[None]:
    """A module that reads `sys.argv` while it is imported must not see the arguments of the command."""
    before = sys.argv
    sys.argv = [str(file)]
    try:
        yield
    finally:
        sys.argv = before


def _place(error: BaseException, target: Target) -> str:
    file, line = tracebacks.where(error)
    return f"{file or target.file}:{line}" if line else str(file or target.file)


def _advice(error: Exception, target: Target) -> str:
    for file, what in bundle.hiding_in(target.root).items():
        if repr(file.partition("/")[0].removesuffix(".py")) in str(error):
            return f" ({target.root / file} hides {what}: rename it)"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f" (install it into the environment of this command, {sys.prefix}, or put it beside the file)"
    return ""


def choose(module: ModuleType, target: Target) -> Pipeline:
    """Return the selected pipeline of a module."""
    found = {name: item for name, item in vars(module).items() if is_pipeline(item)}
    if target.pipeline is not None:
        for name, item in found.items():
            if target.pipeline in (name, item.name):
                return item
        known = ", ".join(found) or "none"
        raise SourceError(f"{target.file} has no pipeline {target.pipeline!r} (its pipelines: {known})")
    own = {id(item): name for name, item in found.items() if item.function.__module__ == module.__name__}
    names = list(own.values()) or list(found)
    if len(names) == 1:
        return found[names[0]]
    if not names:
        raise SourceError(f"{target.file} has no pipeline: decorate a function with @pipeline")
    shown = " or ".join(f"{target.file.name}:{name}" for name in names[:6])
    raise SourceError(f"{target.file} contains {len(names)} pipelines: choose one with {shown}")


def is_pipeline(item: object) -> bool:
    """Whether something is a pipeline object."""
    # Imported late: the client alone needs no authoring.
    from penstock.authoring import Pipeline

    return isinstance(item, Pipeline)
