"""Entry point of the `penstock` command: from the arguments to an exit code.

Exit codes: 0 success; 1 the run failed or was cancelled; 2 wrong usage, or the pipeline does not compile;
3 the platform is missing, broken or rejected the request; 130 interrupted by Ctrl-C; 141 the reader of the output has
closed its pipe before everything was printed.

Errors are printed without a traceback of the platform unless PENSTOCK_DEBUG is set.
"""

from __future__ import annotations

import io
import itertools
import os
import sys

INTERRUPTED = 130
CLOSED_PIPE = 141
"""Exit code of a process that SIGPIPE ends."""


def main() -> None:
    """Run the command and exit; never returns."""
    # The embedded platform starts in parallel with everything below, including the import of typer.
    from penstock_cli.platform import prestart

    prestart.start(sys.argv[1:])
    from penstock_cli import error_report

    for stream in (sys.stdout, sys.stderr):
        # A terminal without Unicode symbols shows question marks instead of failing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        from penstock_cli.app import command

        # A usage error is raised instead of printed by typer, so that everything is printed at one place.
        code = command(sys.argv[1:])(prog_name="penstock", standalone_mode=False) or 0
        if code == INTERRUPTED:  # how typer returns Ctrl-C
            raise KeyboardInterrupt
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 2
        if isinstance(ended.__context__, BrokenPipeError):  # typer exits with 1, which is a failed run
            code = CLOSED_PIPE
    except BrokenPipeError:
        code = CLOSED_PIPE
    except BaseException as error:
        as_json = "--json" in itertools.takewhile(lambda word: word != "--", sys.argv[1:])
        code = error_report.report(error, traced=bool(os.environ.get("PENSTOCK_DEBUG")), as_json=as_json)
    finally:
        prestart.release()
    _exit(code)


def _exit(code: int) -> None:
    """Exit. What a closed pipe (`penstock runs list | head`) has not read is dropped."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    sys.exit(code)
