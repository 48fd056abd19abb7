"""Which project a client works in."""

from __future__ import annotations

import os
import re
from pathlib import Path

from penstock.errors import ClientError
from penstock.step_context import contexts

DEFAULT = "default"
"""The project of requests that name none."""

_FILE = Path("penstock.yaml")
_LINE = re.compile(r"""^project[ \t]*:[ \t]*(["']?)(?P<name>[^"'#\s]*)\1[ \t]*(?:#.*)?$""", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")


def current(given: str | None = None) -> str:
    """Return the name of the project of a client; empty if nothing names one, which is the default project.

    Precedence: `given`, the project of the run in whose step this is, `$PENSTOCK_PROJECT`, the line `project: NAME` of
    a `penstock.yaml` in the working folder.

    Raises:
        ClientError: it is not the name of a project.
    """
    running = contexts.running()
    sources = (
        ("the project", given),
        ("the project of the run", running.project if running is not None and running.run_id != "local" else None),
        ("PENSTOCK_PROJECT", os.environ.get("PENSTOCK_PROJECT", "").strip()),
        (str(_FILE), _from_file()),
    )
    for source, name in sources:
        if name:
            if not _NAME.fullmatch(name):
                raise ClientError(f"{source}: {name[:100]!r} is not the name of a project")
            return name
    return ""


def _from_file() -> str:
    try:
        found = _LINE.search(_FILE.read_text())
    except (OSError, ValueError):
        return ""
    return found["name"] if found is not None else ""
