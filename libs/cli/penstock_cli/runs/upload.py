"""`penstock runs upload`: send runs of scripts that could not be sent while they ran."""

from __future__ import annotations

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import FAILED, UsageError


def upload(json: Json = False) -> None:
    """Send recorded runs of scripts to the platform at PENSTOCK_URL.

    Scripts with `penstock.track()` send their runs themselves, unless the platform does not answer or they are killed
    together with their machine.
    """
    # Heavy imports stay out of `--help`.
    from penstock import script_sender
    from penstock.client import platform
    from penstock.errors import ClientError

    address = platform.from_environment()
    if address is None:
        raise UsageError("set PENSTOCK_URL and PENSTOCK_TOKEN to the platform to which the runs are to be sent")
    home = platform.state_folder()
    rows: list[dict[str, str]] = []
    for folder in script_sender.recorded(home):
        if script_sender.url_of(folder) != address.url:
            rows.append({"run_id": folder.name, "state": "skipped", "reason": f"for {script_sender.url_of(folder)}"})
            continue
        try:
            sent = script_sender.upload(folder, home, address)
            rows.append({"run_id": folder.name, "state": "sent" if sent else "running", "reason": ""})
        except ClientError as error:
            rows.append({"run_id": folder.name, "state": "failed", "reason": str(error)})
    if json:
        output.as_json(rows)
    elif not rows:
        output.line("nothing to send")
    for row in () if json else rows:
        output.line(f"{row['run_id']} {row['state']}" + (f": {row['reason']}" if row["reason"] else ""))
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(FAILED)
