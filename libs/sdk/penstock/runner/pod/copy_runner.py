"""Copies the runner into a volume, for a container whose image has the environment of a step and no `penstock`."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from penstock_core import pod_protocol
from penstock_core.errors import PenstockError

_MODULES = ("penstock", "penstock_core")
_LIBRARIES = ("nats",)


def copy(
    modules: Path = Path(pod_protocol.RUNNER_MODULES), libraries: Path = Path(pod_protocol.RUNNER_LIBRARIES)
) -> None:
    """Copy the runner's packages, and its libraries into a folder that is not on the module path of steps.

    Raises:
        PenstockError: a package is not installed here.
    """
    for folder, names in ((modules, _MODULES), (libraries, _LIBRARIES)):
        for name in names:
            shutil.copytree(_location(name), folder / name, dirs_exist_ok=True)


def _location(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise PenstockError(f"the image has no package {name!r}: install penstock in it")
    return Path(spec.origin).parent
