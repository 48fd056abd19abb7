"""Errors of the command and their exit codes.

UsageError     a wrong argument or option: exit code 2
DetachedError  the user left a run that continues: exit code 130
"""

from __future__ import annotations

import typer

from penstock.errors import (
    BuildFailedError,
    EnvironmentFailedError,
    RefusedError,
    RunFailedError,
    SourceError,
    UnauthorizedError,
)
from penstock_core.errors import DefinitionError, InputError, InvalidIdError, PenstockError

FAILED = 1
USAGE = 2
PLATFORM = 3
INTERRUPTED = 130


class UsageError(PenstockError):
    """A wrong argument or option."""


class DetachedError(PenstockError):
    """The user left a run that continues."""

    def __init__(self, run_id: str, *, stops: bool) -> None:
        how = (
            "its platform stops with this command; the run continues when one is started here, such as by `penstock up`"
            if stops
            else "the run continues"
        )
        super().__init__(f"left run {run_id}: {how}; show it with `penstock runs show {run_id}`")


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error."""
    match error:
        case RunFailedError():
            return FAILED
        case (
            DefinitionError()
            | BuildFailedError()
            | EnvironmentFailedError()
            | InputError()
            | InvalidIdError()
            | SourceError()
            | UsageError()
        ):
            return USAGE
        case RefusedError() if error.status < 500 and not isinstance(error, UnauthorizedError):
            return USAGE
        case KeyboardInterrupt() | DetachedError():
            return INTERRUPTED
        case typer.Abort():
            return FAILED
        case _:
            return PLATFORM


def message(error: BaseException) -> str:
    """Return the message of an error for the user."""
    match error:
        case KeyboardInterrupt():
            return str(error) or "interrupted"
        case typer.Abort():
            return "aborted"
        case PenstockError():
            return str(error)
        case OSError() if error.filename:
            return f"{error.filename}: {error.strerror}"
        case OSError():
            return str(error)
        case _:
            return (
                f"internal error: {type(error).__name__}: {error}\n"
                "Set PENSTOCK_DEBUG=1 to print the traceback, and please report it."
            )
