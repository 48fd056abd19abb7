"""Errors as the user sees them: one message, and the exit code that goes with it."""

from __future__ import annotations

import sys

from penstock.client.errors import RefusedError, RunFailedError, SourceError, UnauthorizedError
from penstock_cli.runs.follow import DetachedError
from penstock_core.errors import DefinitionError, InputError, InvalidIdError, PenstockError

FAILED = 1
USAGE = 2
PLATFORM = 3
INTERRUPTED = 130


class UsageError(PenstockError):
    """The command was used wrongly."""


def code(error: BaseException) -> int:
    """The exit code of an error."""
    match error:
        case RunFailedError():
            return FAILED
        case DefinitionError() | InputError() | InvalidIdError() | SourceError() | UsageError():
            return USAGE
        case RefusedError() if error.status < 500 and not isinstance(error, UnauthorizedError):
            return USAGE
        case KeyboardInterrupt() | DetachedError():
            return INTERRUPTED
        case _:
            return PLATFORM


def text(error: BaseException) -> str:
    """What to say about an error."""
    match error:
        case KeyboardInterrupt():
            return str(error) or "interrupted"
        case PenstockError():
            return str(error)
        case OSError() if error.filename:
            return f"{error.filename}: {error.strerror}"
        case OSError():
            return str(error)
        case _:
            return (
                f"internal error: {type(error).__name__}: {error}\n"
                "Set PENSTOCK_DEBUG=1 to see where, and please report it."
            )


def report(error: BaseException) -> int:
    """Write an error to standard error; returns the exit code."""
    trace = error.trace if isinstance(error, SourceError) else ""
    if trace:
        sys.stderr.write(trace.rstrip() + "\n")
    word = "error: " if not isinstance(error, KeyboardInterrupt | DetachedError) else ""
    if word and sys.stderr.isatty():
        word = f"\x1b[1;31m{word}\x1b[0m"
    sys.stderr.write(f"{word}{text(error)}\n")
    sys.stderr.flush()
    return code(error)
