"""The `penstock` command: from the arguments to an exit code.

Exit codes: 0 success; 1 the run failed or was cancelled; 2 wrong usage, or the pipeline does not compile;
3 the platform is missing, broken or refused; 130 interrupted by Ctrl-C.

Promise: no traceback of the platform reaches the user unless PENSTOCK_DEBUG is set.
"""

from __future__ import annotations

import io
import os
import sys


def main() -> None:
    """Entry point of the console script; never returns."""
    # The embedded platform starts up beside everything that follows, the import of typer included.
    from penstock_cli.platform import prestart

    prestart.start(sys.argv[1:])
    from penstock_cli import failures

    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no bars and ticks shows question marks; that is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        from penstock_cli.app import command

        command()(prog_name="penstock")
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 2
    except BaseException as error:
        if os.environ.get("PENSTOCK_DEBUG"):
            raise
        code = failures.report(error)
    finally:
        prestart.release()
    _leave(code)


def _leave(code: int) -> None:
    """Exit; a reader that went away (`penstock runs list | head`) is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)
