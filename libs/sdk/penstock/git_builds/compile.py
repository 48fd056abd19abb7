"""Imports the module of a pipeline and compiles it: the only process of a build that executes code of the source.

In: an order as JSON on standard input. Out: the compiled pipeline as JSON on standard output, or an `error` in it. What
the module prints goes to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from penstock import user_modules
from penstock.authoring.pipelines import in_environment
from penstock.bundle import project_paths
from penstock.errors import SourceError
from penstock.git_builds.pack import declared
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.errors import DefinitionError, PenstockError
from penstock_core.pipeline import ir

_FILE = 100 * 1024 * 1024
"""Bytes of a file that the module may write."""


def main() -> None:
    """Compile what the order says."""
    order: dict[str, Any] = json.load(sys.stdin)
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)  # what the module prints is no part of the reply
    os.set_inheritable(reply.fileno(), False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
    resource.setrlimit(resource.RLIMIT_DATA, (order["memory"], order["memory"]))
    try:
        compiled, warnings = compile_file(order)
        text = json.dumps({"pipeline": dataclasses.asdict(compiled), "warnings": warnings}, ensure_ascii=False)
    except SourceError as error:
        text = json.dumps({"error": str(error), "trace": error.trace}, ensure_ascii=False)
    except PenstockError as error:
        text = json.dumps({"error": str(error)}, ensure_ascii=False)
    except MemoryError:
        text = json.dumps({"error": f"importing it needs more than {order['memory'] >> 20} MiB of memory"})
    except Exception as error:  # in code of the user that compiling calls
        text = json.dumps({"error": f"{type(error).__name__}: {error}"}, ensure_ascii=False)
    reply.write(text)
    reply.close()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # threads and exit handlers of the module are not waited for


def compile_file(order: dict[str, Any]) -> tuple[ir.Pipeline, list[str]]:
    """Return the compiled pipeline of a file, and warnings.

    Raises:
        SourceError: the file cannot be imported, or has no such pipeline.
        DefinitionError: the pipeline is not valid.
    """
    located = user_modules.locate(order["file"])
    target = dataclasses.replace(located, pipeline=order["pipeline"] or None)
    pipeline = user_modules.choose(user_modules.import_module(target), target)
    compiled = pipeline.compile()
    if order["declared"] and (declaration := declared(target.file.parent, Path(order["checkout"]))) is not None:
        compiled = _in_project(compiled, declaration)
    root = Path(target.root)
    return project_paths.relocate(compiled, root, frozenset(order["files"]))


def _in_project(compiled: ir.Pipeline, environment: EnvironmentDeclaration) -> ir.Pipeline:
    """Return a pipeline whose steps run in the environment of the project, unless they declare another one."""
    steps = {name: in_environment(step, environment.name) for name, step in compiled.steps.items()}
    if steps == compiled.steps:
        return compiled
    if any(one.name == environment.name for one in compiled.environments):
        raise DefinitionError(
            f"the environment {environment.name!r} is that of the files of the project: give your own another name"
        )
    return dataclasses.replace(compiled, steps=steps, environments=(*compiled.environments, environment))


if __name__ == "__main__":
    main()
