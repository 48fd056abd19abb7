"""Load a pipeline from `FILE`, `FILE:PIPELINE` or a folder, and prepare it for registration.

The user's module is imported here, in the user's own process; the platform never imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock import bundle, tracebacks
from penstock.bundle import project_paths
from penstock.errors import SourceError
from penstock.interactive import main_classes, session_folder
from penstock.user_modules import Target, choose, import_module, locate, threads_of
from penstock_core.pipeline.ir import Pipeline as CompiledPipeline

if TYPE_CHECKING:
    from penstock.authoring import Pipeline
    from penstock.authoring.deployments import Deployment


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
        imported = import_module(target)
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
            imported = import_module(target)
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
    return choose(import_module(target), target)


def load_deployments(source: str | os.PathLike[str]) -> list[Deployment]:
    """Return the deployments that a file or folder declares, in order.

    Raises:
        SourceError: there is no such file, it cannot be imported, or it declares none.
    """
    from penstock.authoring import deployments

    target = locate(os.fspath(source))
    sys.modules.pop(target.name, None)  # so that it declares again
    deployments.DECLARED.clear()
    module = import_module(target)
    if not deployments.DECLARED:
        example = 'training.deploy("nightly", triggers=[Cron("0 3 * * *")])'
        raise SourceError(f"{module.__file__} declares no deployment: add one such as {example}")
    return [*deployments.DECLARED]


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
    if not (names := threads_of.get(module)):
        return []
    return [
        f"{pipeline.file}: importing it starts the thread {', '.join(map(repr, names[:5]))}: each attempt imports the "
        "module by itself, which takes longer. Start threads in a step instead"
    ]
