"""Errors of step processes that ended without a result, from their exit codes.

An exit code is that of `os.waitstatus_to_exitcode`: negative, if a signal ended the process.
"""

from __future__ import annotations

import signal

from penstock_core.facts import ErrorInfo

OUT_OF_MEMORY = "OutOfMemory"
"""Type of the error of an attempt that needed more memory than its limit."""

_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


def crash_error(code: int, memory: int | None) -> ErrorInfo:
    """Return the error of a step's process; `memory` is the step's limit in bytes."""
    limited = f"; its memory limit was {memory / 2**20:.0f} MiB" if memory is not None else ""
    if code >= 0:
        why = f"the step's process called exit with code {code} before the step returned{limited}"
        return ErrorInfo(type="Exit", message=why)
    hint = ""
    if code == -signal.SIGKILL:
        hint = "; unless somebody killed it, the machine has run out of memory"
    elif -code in _CRASHES:
        hint = "; native code crashed; the step's output may show the Python stack"
    return ErrorInfo(type="Signal", message=f"the step's process was {describe_exit(code)}{hint}{limited}")


def import_crash_error(module: str, code: int, output: str) -> ErrorInfo:
    """Return the error of a fork server that ended while it imported the user's module and printed `output`."""
    lines = output.strip().splitlines()
    last = f": {lines[-1][:500]}" if lines else ""
    why = f"importing module {module!r} ended the process ({describe_exit(code)}){last}"
    return ErrorInfo(type="ImportCrash", message=why, traceback=output)


def describe_exit(code: int) -> str:
    """Describe an exit code, such as `killed by signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"
