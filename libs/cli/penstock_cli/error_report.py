"""Reports an error to the user, on standard error."""

from __future__ import annotations

import io
import traceback
from typing import Any

import typer

from penstock.errors import SourceError
from penstock_cli.display import output
from penstock_cli.errors import DetachedError, exit_code, message


def report(error: BaseException, *, traced: bool = False, as_json: bool = False) -> int:
    """Write an error to standard error, `traced` with the platform's own traceback; return its exit code.

    With `as_json`, and unless the command has printed JSON already, standard output gets `{"error": …}`.
    """
    if as_json and not output.has_printed_json():
        output.as_json({"error": str(getattr(error, "message", "") or message(error))})
    if hasattr(error, "show"):
        return _report_usage(error)
    trace = error.trace if isinstance(error, SourceError) else ""
    if traced:
        trace = "".join(traceback.format_exception(error))
    if trace:
        output.note(trace.rstrip())
    write = output.note if isinstance(error, KeyboardInterrupt | DetachedError | typer.Abort) else output.error
    write(message(error))
    return exit_code(error)


def _report_usage(error: Any) -> int:
    """Report an error of typer, which formats it with the usage of its command."""
    text = io.StringIO()
    error.show(text)
    output.note(text.getvalue().rstrip())
    return error.exit_code
