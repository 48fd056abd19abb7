"""Load a pipeline from `FILE`, `FILE:PIPELINE` or a folder, and prepare it for registration.

The user's module is imported here, in the user's own process; the platform never imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import os
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock import bundle, tracebacks
from penstock.bundle import project_paths
from penstock.errors import SourceError
from penstock.interactive import main_classes, session_folder
from penstock_core.errors import PenstockError
from penstock_core.pipeline.ir import Pipeline as CompiledPipeline

if TYPE_CHECKING:
    from penstock.authoring import Pipeline
    from penstock.authoring.deployments import Deployment

_USUAL = ("pipeline.py", "main.py", "__init__.py")


@dataclass(frozen=True, slots=True)
class Target:
    """A module to import: `name` with `root` first on the module path; `pipeline` is None if not given."""

    file: Path
    root: Path
    name: str
    pipeline: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedPipeline:
    """A compiled pipeline with source bundle, environment and commit; `code`: digest of the modules it imports."""

    ir: CompiledPipeline
    source: bundle.Bundle
    code: str
    environment: dict[str, Any]
    interpreter: dict[str, Any]
    git: dict[str, Any] | None
    warnings: tuple[str, ...] = ()


def prepare(source: Pipeline | str | os.PathLike[str]) -> PreparedPipeline:
    """Load (if it is a file), compile and pack a pipeline.

    Raises:
        SourceError: the file cannot be imported, or holds no pipeline.
        DefinitionError: the pipeline does not compile.
    """
    if isinstance(source, str | os.PathLike):
        pipeline = load(source)
    elif source.function.__module__ == main_classes.MAIN:
        return _prepare_main(source)
    else:
        pipeline = source
    _refuse_while_imported(pipeline)
    return pack(pipeline, pipeline.compile())


_imported_main: list[Path] = []
"""The script that is being imported once more, because it registers one of its pipelines."""


def _prepare_main(pipeline: Pipeline) -> PreparedPipeline:
    """Prepare a pipeline of `__main__`, which other processes cannot import: as a module of its file or session."""
    main = sys.modules[main_classes.MAIN]
    if not pipeline.file or not Path(pipeline.file).is_file():
        return _prepare_session(pipeline, main)
    file = Path(pipeline.file).resolve()
    target = Target(file, *_script_module(file, main), pipeline.name)
    _imported_main.append(file)
    try:
        imported = _import(target)
    finally:
        _imported_main.pop()
    found = choose(imported, target)
    prepared = pack(found, found.compile())
    main_classes.share(imported)
    return prepared


def _script_module(file: Path, main: ModuleType) -> tuple[Path, str]:
    """Return root and name of a script as a module: those of `python -m`, or its folder and the name of the file."""
    name = main.__spec__.name if main.__spec__ is not None else ""
    root = bundle.root_of(file, name) if name else None
    return (root, name) if root is not None else (file.parent, file.stem)


def _refuse_while_imported(pipeline: Pipeline) -> None:
    """Raise `SourceError` in the import of a script by `_prepare_main`: it would be repeated by every step."""
    if _imported_main:
        file, line = tracebacks.caller()
        raise SourceError(
            f"{file}:{line}: the script registers or runs pipeline {pipeline.name!r} whenever it is imported, and "
            "steps import it: move the call under `if __name__ == '__main__':`"
        )


def _prepare_session(pipeline: Pipeline, main: ModuleType) -> PreparedPipeline:
    """Prepare a pipeline of a notebook or a session: write its definitions to a module beside the folder's files."""
    # Imported only in sessions.
    from penstock.interactive import cells, equal_values, session_module

    name = next((name for name, one in vars(main).items() if one is pipeline), None)
    if name is None:
        raise SourceError(f"pipeline {pipeline.name!r} has no name in this session: assign it to a variable")
    written = session_module.write(name, vars(main), cells.history())
    here = Path.cwd()
    folder = session_folder.make(bundle.pack(here, exclude=sorted(here.glob("*.ipynb"))), written.text)
    file = folder / f"{session_folder.MODULE}.py"
    target = Target(file, folder, session_folder.MODULE, pipeline.name)
    sys.modules.pop(session_folder.MODULE, None)
    try:
        with contextlib.chdir(folder):  # as steps import it
            imported = _import(target)
    finally:
        # Later imports of the session are those of its own folder, not of the copy.
        sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
    equal_values.check(written.assigned, vars(main), vars(imported))
    found = choose(imported, target)
    prepared = dataclasses.replace(pack(found, found.compile()), git=bundle.git_info(here))
    main_classes.share(imported)
    return prepared


def load(source: str | os.PathLike[str]) -> Pipeline:
    """Return the pipeline in `FILE`, `FILE:PIPELINE` or a folder.

    Raises:
        SourceError: there is no such file, it cannot be imported, or the pipeline is ambiguous.
    """
    target = locate(os.fspath(source))
    return choose(_import(target), target)


def load_deployments(source: str | os.PathLike[str]) -> list[Deployment]:
    """Return the deployments that a file or folder declares, in order.

    Raises:
        SourceError: there is no such file, it cannot be imported, or it declares none.
    """
    from penstock.authoring import deployments

    target = locate(os.fspath(source))
    sys.modules.pop(target.name, None)  # so that it declares again
    deployments.DECLARED.clear()
    module = _import(target)
    if not deployments.DECLARED:
        example = 'training.deploy("nightly", triggers=[Cron("0 3 * * *")])'
        raise SourceError(f"{module.__file__} declares no deployment: add one such as {example}")
    return [*deployments.DECLARED]


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


_threads: dict[str, list[str]] = {}
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


def _import(target: Target) -> ModuleType:
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
    _threads[target.name] = [one.name for one in threading.enumerate() if one not in before]
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


def pack(pipeline: Pipeline, compiled: CompiledPipeline) -> PreparedPipeline:
    """Pack the source of a compiled pipeline, and describe the environment that it was compiled in.

    Raises:
        SourceError: the pipeline was not defined in a file.
        DefinitionError: the folder of the file holds too much.
    """
    if not pipeline.file or not Path(pipeline.file).is_file():
        raise SourceError(
            f"pipeline {pipeline.name!r} was not defined in a file ({pipeline.file or 'unknown'}), so no other process "
            "can import its steps: move it into a .py file"
        )
    module = pipeline.function.__module__
    root = bundle.root_of(Path(pipeline.file), module)
    if root is None:
        raise SourceError(
            f"{pipeline.file} was imported under the name {module!r}, which other processes cannot import: "
            "import it under its usual name, or pass the file"
        )
    modules = {module, *(spec.entrypoint.partition(":")[0] for spec in compiled.steps.values() if spec.entrypoint)}
    project = bundle.ProjectModules(root)
    imported = project.closure(*sorted(modules))
    packed = bundle.pack(root, libraries=bundle.local_libraries(root, project, imported))
    compiled, path_warnings = project_paths.relocate(compiled, root.resolve(), frozenset(packed.files))
    hidden = [
        f"{root / file} hides {what} from steps and from the libraries that they use: rename the file"
        for file, what in bundle.hiding(root, packed.files).items()
    ]
    return PreparedPipeline(
        compiled,
        packed,
        imported.digest(packed.digest),
        bundle.environment_info(),
        bundle.interpreter_info(),
        bundle.git_info(root),
        (*packed.warnings, *path_warnings, *hidden, *_thread_warnings(pipeline, module)),
    )


def _thread_warnings(pipeline: Pipeline, module: str) -> list[str]:
    if not (names := _threads.get(module)):
        return []
    return [
        f"{pipeline.file}: importing it starts the thread {', '.join(map(repr, names[:5]))}: each attempt imports the "
        "module by itself, which takes longer. Start threads in a step instead"
    ]
