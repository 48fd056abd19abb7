"""`penstock up`: the platform in the foreground of a terminal."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.display import output
from penstock_cli.errors import PLATFORM, UsageError

_READY_LIMIT = 60.0


def up(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; default a free one.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the log of the services.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the address as a JSON object when ready.")] = False,
) -> None:
    """Run the platform until Ctrl-C."""
    # Light, but not needed by `--help`.
    from penstock.client import platform

    home = platform.state_folder()
    platform.prepare_home(home)
    _refuse_second(home)
    if port:
        _check_port(port)
    platform.check_installed()
    # Imports all services, which takes most of the start-up time.
    from penstock_standalone.main import main as serve

    if not verbose:
        os.environ.setdefault("PENSTOCK_LOG_LEVEL", "warning")
    threading.Thread(target=_announce, args=(home, json), name="announce", daemon=True).start()
    arguments = ["--home", str(home), *(["--port", str(port)] if port is not None else [])]
    status = serve(arguments)
    if status == 0 and not json:
        output.note("stopped; unfinished runs continue with the next `penstock up`")
    raise typer.Exit(PLATFORM if status else 0)


def _refuse_second(home: Path) -> None:
    from penstock.client import embedded, platform
    from penstock.errors import PlatformFailedError

    there = platform.find(home)
    if there is None:
        return
    if there.embedded:
        if embedded.stop_unused(home):
            return
        raise PlatformFailedError(
            f"a command uses the embedded platform on {home} (process {there.pid}, {there.url}): "
            "try again when it has finished, or choose another folder with PENSTOCK_HOME"
        )
    raise PlatformFailedError(
        f"a platform is already running on {home} (process {there.pid}, {there.url}): use it, stop it with "
        f"`penstock down`, or choose another folder with PENSTOCK_HOME"
    )


def _check_port(port: int) -> None:
    # Imported only for this check.
    import errno
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsageError(f"port {port} on 127.0.0.1 is in use: choose another one, or omit --port") from error
            raise UsageError(f"port {port} on 127.0.0.1 cannot be used: {error.strerror}") from error


def _announce(home: Path, json: bool) -> None:
    """Print the address of the platform once it is ready. Runs in a background thread."""
    from penstock.client import platform

    deadline = time.monotonic() + _READY_LIMIT
    while time.monotonic() < deadline:
        address = platform.find(home)
        if address is not None and address.pid == os.getpid():
            break
        time.sleep(0.05)
    else:
        return
    if json:
        output.as_json({"url": address.url, "pid": address.pid, "home": str(home)})
        return
    output.line(f"penstock is running at {address.url}")
    output.line(f"  state  {home}")
    output.line("  use    penstock run FILE and penstock runs list in this folder; in others, after")
    output.line(f"         export PENSTOCK_URL={address.url} PENSTOCK_TOKEN=$(cat {home / 'token'})")
    output.line("  stop   Ctrl-C, or penstock down")
    # Standard output may be a pipe.
    output.flush()
