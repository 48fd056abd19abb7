"""`penstock down`: stop the platform of the state folder."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output


def down(
    force: Annotated[bool, typer.Option("--force", help="Stop it even if other commands use it.")] = False,
    json: Json = False,
) -> None:
    """Stop the platform that runs on the state folder.

    Stops an embedded platform before its idle time (PENSTOCK_IDLE) has passed, or the platform of `penstock up`.
    Active runs continue with the next platform.
    """
    # Light, but not needed by `--help`.
    from penstock.client import embedded, platform
    from penstock.errors import PlatformFailedError

    home = platform.state_folder()
    running = platform.find(home)
    if running is None:
        if json:
            output.as_json({"stopped": False, "pid": None, "active_runs": 0})
        else:
            output.note(f"no platform is running on {home}")
        return
    active = embedded.active_runs(running)
    if not running.embedded or force:
        embedded.stop(home, running)
    elif not embedded.stop_unused(home):
        raise PlatformFailedError(
            f"other commands use the embedded platform on {home} (process {running.pid}): wait until they have "
            "finished, or pass --force; a command that follows a run then starts a new platform"
        )
    if json:
        output.as_json({"stopped": True, "pid": running.pid, "active_runs": active})
        return
    output.line(f"stopped the platform on {home} (process {running.pid})")
    if active:
        output.note(f"{active} active run{'' if active == 1 else 's'} will continue with the next platform")
