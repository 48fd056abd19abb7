"""What an embedded platform takes over from the command that starts it: settings, and variables for its steps.

The platform outlives that command. A later command compares itself with it, so that it never gets the results of an
earlier version of Penstock, other settings, or other values of variables that steps read.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from penstock_core import step_environment, version

VARIABLE = "PENSTOCK_LAUNCH"
"""The environment variable that passes the fingerprint to the platform."""

_SETTINGS = ("PENSTOCK_", "AWS_")
_OF_CLIENTS = frozenset(
    {
        "PENSTOCK_HOME",
        "PENSTOCK_URL",
        "PENSTOCK_TOKEN",
        "PENSTOCK_PROJECT",
        "PENSTOCK_DEBUG",
        "PENSTOCK_MLFLOW_URL",
        VARIABLE,
    }
)
_OF_SESSIONS = ("XDG_SESSION_", "XDG_VTNR", "XDG_SEAT")
"""Differ in each terminal, and no step depends on them."""

_VERSION, _INTERPRETER, _MACHINE = "the version of Penstock", "the interpreter", "CPU affinity or resource limits"


def fingerprint() -> dict[str, str]:
    """Return a digest of each value that a platform started by this process would use."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    settings = {name: value for name, value in settings.items() if name not in _OF_CLIENTS}
    steps = step_environment.inherited(os.environ)
    steps = {name: value for name, value in steps.items() if not name.startswith(_OF_SESSIONS)}
    limits = [resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")]
    # A reinstallation may have the same version number.
    installed = Path(version.__file__).stat().st_mtime_ns
    values = {
        _VERSION: f"{version.VERSION} {installed}",
        _INTERPRETER: sys.prefix,
        _MACHINE: f"{sorted(os.sched_getaffinity(0))} {limits}",
        **settings,
        **steps,
    }
    return {name: hashlib.sha256(os.fsencode(value)).hexdigest()[:8] for name, value in values.items()}


def differences(running: Mapping[str, str], *, steps: bool) -> list[str]:
    """Return the names of the values in which a running platform differs from one that this process would start.

    Args:
        running: the fingerprint of the running platform.
        steps: whether variables that only steps read count.
    """
    own = fingerprint()
    names = sorted(name for name in {*own, *running} if own.get(name) != running.get(name))
    return names if steps else [name for name in names if not _is_of_steps(name)]


def is_other_version(differing: list[str]) -> bool:
    """Whether the version of Penstock is one of the differences."""
    return _VERSION in differing


def _is_of_steps(name: str) -> bool:
    return name == _MACHINE or bool(step_environment.inherited({name: ""}))
