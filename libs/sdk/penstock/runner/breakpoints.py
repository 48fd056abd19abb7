"""`breakpoint()` in a process without a terminal: an error that names the command which debugs the step."""

from __future__ import annotations

import os
import shlex
from typing import Any

from penstock.step_context import contexts


class BreakpointError(RuntimeError):
    """`breakpoint()` was called where no debugger can read from a terminal."""


def refuse() -> None:
    """Have `breakpoint()` raise `BreakpointError` in this process and in all Python processes that it starts.

    A variable `PYTHONBREAKPOINT` that is set already counts: `0` ignores breakpoints, a function such as that of a
    remote debugger is called.
    """
    os.environ.setdefault("PYTHONBREAKPOINT", f"{__name__}.fail")


def fail(*args: Any, **kwargs: Any) -> None:
    """Raise `BreakpointError`."""
    raise BreakpointError(f"breakpoint() cannot stop here: {advice()}")


def advice() -> str:
    """Return the command that debugs the step of this process."""
    running = contexts.context()
    target = f"{running.run_id} {shlex.quote(running.step)}" if running.step else "RUN STEP"
    return f"a step on the platform has no terminal; debug it with `penstock debug {target}`"
