"""Gives a step its secrets: as environment variables, as files in memory, and through `context().secret`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from penstock_core.secrets import references

_VALUES = "secrets"


def give(values: Mapping[str, str]) -> dict[str, str]:
    """Set the variables of this process, and return the values by the names of their secrets.

    Args:
        values: by the text form of their use, see `penstock_core.secrets.references`.
    """
    by_name: dict[str, str] = {}
    for text, value in values.items():
        if name := references.passed(text):
            os.environ[name] = value
            continue
        use = references.parse_use(text)
        by_name[use.reference.name] = value
        if use.variable:
            os.environ[use.variable] = _file(use.reference.name, value) if use.file else value
    return by_name


def share(by_name: Mapping[str, str]) -> str:
    """Return the path of a file for the processes that the step starts; empty without secrets."""
    return _file(_VALUES, json.dumps(dict(by_name))) if by_name else ""


def shared(path: str) -> dict[str, str]:
    """Return what another process has shared."""
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return json.load(file)


def _file(name: str, value: str) -> str:
    """Return the path of a file in memory, which other processes of the user can open while this one lives.

    It is on no disk, whatever happens to the process.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    os.fchmod(descriptor, 0o400)
    os.write(descriptor, value.encode())
    return f"/proc/{os.getpid()}/fd/{descriptor}"
