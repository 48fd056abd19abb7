"""The digest of all the user's code that a step may run: part of the key under which its results are kept.

What counts: the function, what it reaches by name in its own module (functions, classes, constants, and whatever these
reach), and each module of the project that is imported for one of them, whole and with what it imports itself. What
does not count: comments, form, docstrings, options of `@step`, other steps, and installed packages, which the digest
of the environment stands for. Only source is read; nothing is imported or run.

A project is the folder that goes into the source bundle, and the folders of `PYTHONPATH`.

Promise: code that cannot be told by reading has no digest, and the reason is given; it is never a guess.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock import bundle
from penstock.authoring.source_code import source_parser
from penstock.authoring.source_code.source_parser import Import, Source, Unit, UnknowableCodeError

MAX_FILES = 2000
"""Most project files that one step may reach."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True)
class CodeDigest:
    """The digest, a SHA-256 in hexadecimal; or, where it is empty, `why` there is none."""

    digest: str
    why: str = ""


def of(function: Callable[..., Any]) -> CodeDigest:
    """The digest of the code of a step's function."""
    try:
        return CodeDigest(_digest(function))
    except UnknowableCodeError as error:
        return CodeDigest("", str(error))


def why(entrypoint: str) -> str:
    """Why the step at `module:name`, which is imported already, has a code without a digest; empty where it has one."""
    module, _, path = entrypoint.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    function = getattr(found, "function", found)
    return of(function).why if inspect.isfunction(function) else f"module {module!r} is not imported here"


def _digest(function: Callable[..., Any]) -> str:
    plain = inspect.unwrap(function)
    name, _, inner = plain.__qualname__.partition(".")
    if "<locals>" in inner:
        raise UnknowableCodeError(f"{plain.__qualname__!r} is defined inside a function")
    module, file = plain.__module__, _file_of(plain)
    own = source_parser.parse(file)
    if name not in own.binding:
        raise UnknowableCodeError(f"{file} does not say what {name!r} is")
    finder = _Finder(file, module)
    side_effect_imports = [unit for unit in own.side_effect_imports if finder.any(_named([unit], module, file))]
    units = _relevant_statements(own, [name], side_effect_imports)
    own.check(units)
    files = finder.closure(_named(units, module, file))
    text = json.dumps([1, plain.__qualname__, [unit.text for unit in units], files], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _file_of(function: Any) -> Path:
    """The file of a function's module."""
    loaded = getattr(sys.modules.get(function.__module__), "__file__", None)
    written = function.__code__.co_filename
    if not loaded or not loaded.endswith(".py") or not Path(loaded).is_file():
        raise UnknowableCodeError(f"{written} is no file that holds its source")
    if not (Path(written).is_file() and Path(written).samefile(loaded)):
        raise UnknowableCodeError(f"it was made by {written}, not by the file of its module, {loaded}")
    return Path(loaded).resolve()


def _relevant_statements(source: Source, names: Iterable[str], also: Iterable[Unit]) -> list[Unit]:
    """The statements of a module that may matter to some of its names, in the order of the file."""
    found: dict[int, Unit] = {id(unit): unit for unit in also}
    waiting, seen = list(names), set(names)
    while waiting:
        for unit in source.binding.get(waiting.pop(), ()):
            if id(unit) not in found:
                found[id(unit)] = unit
                new = unit.reads - seen
                seen |= new
                waiting += new
    return [unit for unit in source.units if id(unit) in found]


@dataclass(frozen=True, slots=True)
class _ModuleName:
    """Something that may be a module. It does not count where `unless` is one: that is what is meant then."""

    name: str
    unless: str = ""


def _named(units: Iterable[Unit], module: str, file: Path) -> Iterator[_ModuleName]:
    """All that may be a module in the imports of a module's statements."""
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for unit in units:
        for one in unit.imports:
            yield from _full(one, package)


def _full(one: Import, package: str) -> Iterator[_ModuleName]:
    base = package
    for _ in range(one.level - 1):
        base = base.rpartition(".")[0]
    full = ".".join(part for part in (base if one.level else "", one.module) if part)
    inner = f"{full}.{one.name}" if full and one.name != "*" else one.name.strip("*")
    # The packages around a module run before it; those around the one that imports have run anyway.
    parts = full.split(".") if full else []
    for name in (".".join(parts[: count + 1]) for count in range(len(parts))):
        mine = f"{package}.".startswith(f"{name}.")
        if name == full:
            yield _ModuleName(name, inner if mine else "")
        elif not mine:
            yield _ModuleName(name)
    if one.name:
        yield _ModuleName(inner)


class _Finder:
    """Finds modules in the folders of a project."""

    def __init__(self, file: Path, module: str) -> None:
        root = bundle.root_of(file, module)
        if root is None:
            raise UnknowableCodeError(
                f"{file} was imported under the name {module!r}, by which no other process finds it"
            )
        self._roots = [*([] if _INSTALLED & set(root.parts) else [root]), *_python_path()]

    def any(self, names: Iterable[_ModuleName]) -> bool:
        """Whether one of `names` is a module of the project."""
        return any(self._find(one.name) is not None for one in names)

    def closure(self, names: Iterable[_ModuleName]) -> list[list[str]]:
        """Names and digests of all project modules among `names` and of those that they import, sorted."""
        found: dict[str, str] = {}
        seen: set[_ModuleName] = set()
        waiting = list(names)
        while waiting:
            one = waiting.pop()
            if one in seen or one.name in found:
                continue
            seen.add(one)
            name = one.name
            file = self._find(name) if not (one.unless and self._find(one.unless)) else None
            if file is None:
                continue
            if len(found) >= MAX_FILES:
                raise UnknowableCodeError(f"it imports more than {MAX_FILES} files of the project")
            if file.suffix == ".py":
                found[name], imported = _whole(file, name, _stamp(file))
                waiting += imported
            else:
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        return sorted([name, digest] for name, digest in found.items())

    def _find(self, name: str) -> Path | None:
        parts = name.split(".")
        for root in self._roots:
            place = root.joinpath(*parts)
            for path in (place / "__init__.py", place.with_name(f"{parts[-1]}.py")):
                if path.is_file():
                    return path
            if place.parent.is_dir():
                binary = next(iter(sorted(place.parent.glob(f"{parts[-1]}.*.so"))), None)
                if binary is not None:
                    return binary
        return None


def _python_path() -> list[Path]:
    """Folders that are on the path of a step's process too, and no part of its environment."""
    folders = [Path(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return [folder.resolve() for folder in folders if folder.is_dir() and not _INSTALLED & set(folder.parts)]


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=4096)
def _whole(file: Path, module: str, stamp: tuple[int, int]) -> tuple[str, list[_ModuleName]]:
    """Digest of a file, and the names in its imports."""
    source = source_parser.parse(file)
    source.check(source.units)
    text = json.dumps([unit.text for unit in source.units], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest(), list(_named(source.units, module, file))
