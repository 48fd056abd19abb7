"""Errors as the user sees them: one message, and the exit code that goes with it."""

from __future__ import annotations

import sys

from penstock.client_errors import Refused, RunFailed, SourceError, Unauthorized
from penstock_cli.following import Left
from penstock_core.errors import DefinitionError, InputError, InvalidId, PenstockError

FAILED = 1
USAGE = 2
PLATFORM = 3
INTERRUPTED = 130


class UsageError(PenstockError):
    """The command was used wrongly."""


def code(error: BaseException) -> int:
    """The exit code of an error."""
    match error:
        case RunFailed():
            return FAILED
        case DefinitionError() | InputError() | InvalidId() | SourceError() | UsageError():
            return USAGE
        case Refused() if error.status < 500 and not isinstance(error, Unauthorized):
            return USAGE
        case KeyboardInterrupt() | Left():
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
    word = "error: " if not isinstance(error, KeyboardInterrupt | Left) else ""
    if word and sys.stderr.isatty():
        word = f"\x1b[1;31m{word}\x1b[0m"
    sys.stderr.write(f"{word}{text(error)}\n")
    sys.stderr.flush()
    return code(error)
