"""`breakpoint()` in a process without a terminal: an error that names the command which debugs the step."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from penstock.step_context import contexts


class BreakpointError(RuntimeError):
    """`breakpoint()` was called where no debugger can read from a terminal."""


def refuse() -> None:
    """Have `breakpoint()` raise `BreakpointError` in this process and in its forked children.

    The variable `PYTHONBREAKPOINT` counts as elsewhere: `0` ignores breakpoints, a function such as that of a remote
    debugger is called.
    """
    sys.breakpointhook = _hook


def advice() -> str:
    """Return the command that debugs the step of this process."""
    running = contexts.context()
    target = f"{running.run_id} {shlex.quote(running.step)}" if running.step else "RUN STEP"
    return f"a step on the platform has no terminal; debug it with `penstock debug {target}`"


def _hook(*args: Any, **kwargs: Any) -> Any:
    if os.environ.get("PYTHONBREAKPOINT"):
        return sys.__breakpointhook__(*args, **kwargs)
    raise BreakpointError(f"breakpoint() cannot stop here: {advice()}")
