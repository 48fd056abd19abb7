"""Finds an interpreter on this machine that has the environment of a version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import penstock
import penstock_core
from penstock.bundle import environment_info
from penstock_cli.errors import UsageError
from penstock_core.environments import installed
from penstock_core.environments.installed import Environment

_TIMEOUT = 60.0
_CODE = "from penstock.bundle import environment; environment.main()"


def find(wanted: Mapping[str, Any], hints: Iterable[str]) -> str:
    """Return the path of an interpreter: this command's own if it fits, else one of `hints`.

    Raises:
        UsageError: none has the environment; the message says what is missing.
    """
    needed = _environment(wanted)
    first: list[str] = []
    for python in dict.fromkeys([sys.executable, *hints]):
        have = environment_info() if python == sys.executable else _ask(python)
        differences = installed.differences(needed, _environment(have)) if have else ["it cannot be asked"]
        if not differences:
            return python
        first = first or differences
    raise UsageError(
        f"no interpreter on this machine has the environment of this run. {sys.executable}: "
        f"{installed.shorten(first)}. Install these, or use an interpreter anyway with `--python PATH`"
    )


def declared(name: str, environment: Mapping[str, Any], home: Path) -> str:
    """Return the interpreter of an environment that the pipeline declares, as this machine's platform installed it.

    Raises:
        UsageError: it is not installed here.
    """
    python = home / "environments" / environment["digest"] / "bin" / "python"
    if not os.access(python, os.X_OK):
        raise UsageError(
            f"environment {name!r} is not installed on this machine: run the pipeline here first, or use another "
            "interpreter with `--python PATH`"
        )
    return str(python)


def modules(folder: Path) -> Path:
    """Make a folder with Penstock's modules alone, for interpreters that have none."""
    folder.mkdir()
    for package in (penstock, penstock_core):
        (folder / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    return folder


def _ask(python: str) -> dict[str, Any] | None:
    """Return the environment of an interpreter; None if it does not exist or lacks penstock."""
    if not os.access(python, os.X_OK):
        return None
    try:
        done = subprocess.run([python, "-P", "-c", _CODE], capture_output=True, timeout=_TIMEOUT, check=True)
        return json.loads(done.stdout)["environment"]
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _environment(info: Mapping[str, Any]) -> Environment:
    return Environment(implementation=info["implementation"], version=info["version"], packages=info["packages"])
