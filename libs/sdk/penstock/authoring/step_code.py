"""The code of steps, as a part of the cache keys of their results. Source is read, nothing is executed.

The rule: `code` is the digest of the step's module without the bodies of other steps and pipelines that it does not
use, of all project modules that this module imports, transitively, and of the local libraries outside of the project.
Where the source does not show what is imported or executed, `dynamic_code` says why, and the digest of the whole source
bundle is part of the key, too.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.authoring import step_module
from penstock.bundle import imports, root_of
from penstock_core.pipeline import ir

_SKIPPED = frozenset({"__pycache__", "node_modules", *imports.INSTALLED})
_MODULES = (".py", ".so")


def identify(compiled: ir.Pipeline, function: Callable[..., Any]) -> ir.Pipeline:
    """The pipeline with `code` and `dynamic_code` of its steps; `function` is the pipeline's own."""
    functions = {name: spec for name, spec in compiled.steps.items() if spec.kind is ir.Kind.FUNCTION}
    file = getattr(sys.modules.get(function.__module__), "__file__", None)
    root = root_of(Path(file), function.__module__) if file else None
    if root is None:
        reason = f"module {function.__module__!r} of the pipeline is not a module of a project"
        coded = {name: dataclasses.replace(spec, dynamic_code=reason) for name, spec in functions.items()}
        return dataclasses.replace(compiled, steps={**compiled.steps, **coded})
    project = imports.ProjectModules(root)
    libraries = _local_libraries(root)
    coded = {name: _identified(spec, project, libraries, root) for name, spec in functions.items()}
    return dataclasses.replace(compiled, steps={**compiled.steps, **coded})


def _identified(
    spec: ir.StepSpec, project: imports.ProjectModules, libraries: dict[str, str], root: Path
) -> ir.StepSpec:
    module, _, path = spec.entrypoint.partition(":")
    found = project.closure(module)
    own = _own_code(module, path.partition(".")[0], found, project)
    parts: list[Any] = [own, found.modules | {module: ""}, sorted(libraries.items())]
    # The seed changes what the code computes. Without one, the digest is that of the code alone.
    text = json.dumps([*parts, *([] if spec.seed is None else [spec.seed])], separators=(",", ":"))
    dynamic = found.dynamic.removeprefix(f"{root}{os.sep}")
    if module not in found.modules:
        dynamic = f"module {module!r} is not a module of the project"
    return dataclasses.replace(spec, code=hashlib.sha256(text.encode()).hexdigest(), dynamic_code=dynamic)


def _own_code(module: str, function: str, found: imports.ImportClosure, project: imports.ProjectModules) -> str:
    """The code of the step's own module; all of it where other modules may call its other steps."""
    whole = found.modules.get(module, "")
    name = re.compile(rb"\b%s\b" % module.rpartition(".")[2].encode())
    files = {one: project.find(one) for one in found.modules}
    own = files.pop(module, None)
    try:
        if own is None or any(file is not None and name.search(file.read_bytes()) for file in files.values()):
            return whole
        return step_module.relevant_code(own.read_bytes(), function)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return whole


def _local_libraries(root: Path) -> dict[str, str]:
    """Digests of the modules in folders of `PYTHONPATH` and of editable installations, by folder and path.

    The source bundle does not contain them, and a step may import any of them without its module showing it. Penstock's
    own packages count by their version.
    """
    listed = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    # An editable installation around the project is the project itself: `src/` of a package, say.
    editable = [folder for folder in _editable_folders() if not root.is_relative_to(folder)]
    found: dict[str, str] = {}
    for number, folder in enumerate(dict.fromkeys(path.resolve() for path in (*listed, *editable))):
        if _SKIPPED & set(folder.parts):
            continue
        for file in _module_files(folder, root):
            with suppress(OSError):  # a link to nothing
                status = file.stat()
                found[f"{number}/{file.relative_to(folder)}"] = _digest(file, status.st_mtime_ns, status.st_size)
    return found


def _editable_folders() -> Iterator[Path]:
    """The source folders of editable installations (PEP 610)."""
    for entry in dict.fromkeys(sys.path):
        if not imports.INSTALLED & set(Path(entry).parts):
            continue
        for file in Path(entry).glob("*.dist-info/direct_url.json"):
            if file.parent.name.startswith("penstock"):
                continue
            try:
                origin = json.loads(file.read_bytes())
            except (OSError, ValueError):
                continue
            if origin.get("dir_info", {}).get("editable"):
                yield Path(str(origin.get("url", "")).removeprefix("file://"))


def _module_files(folder: Path, root: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED
            and not Path(base, name, "pyvenv.cfg").exists()
            and Path(base, name) != root
        )
        if Path(base) != root:
            yield from (Path(base, name) for name in sorted(names) if name.endswith(_MODULES))


@functools.lru_cache(maxsize=10_000)
def _digest(file: Path, changed_ns: int, size: int) -> str:
    """SHA-256 of a file, read once for each state of it."""
    del changed_ns, size
    return hashlib.sha256(file.read_bytes()).hexdigest()
