"""`penstock console`: open the web console, signed in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output

_KEPT = 20.0
"""Seconds for which the browser can read the page that leads it to the console."""


def console(
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    json: Json = False,
) -> None:
    """Open the web console in a browser, signed in with the token of this command.

    The platform of the folder stays up while a page is open. On a machine without a browser, open the printed address
    and sign in with a token.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.ensure_platform(steps=True) as embedded:
        address = session.open_session(embedded).client.transport.locate()
        url = f"{address.url}/console/"
        if json:
            output.as_json({"url": url})
        else:
            output.line(url)
        if browser and address.token and not json:
            _open(f"{url}#token={address.token}")


def _open(url: str) -> None:
    """Open an address by a file that leads to it: arguments of processes can be read by other users."""
    import html
    import time
    import webbrowser

    with tempfile.TemporaryDirectory(prefix="penstock-console-") as folder:
        page = Path(folder, "console.html")
        descriptor = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">')
        if webbrowser.open(page.as_uri()):
            time.sleep(_KEPT)
        else:
            output.note("no browser was found: open this address, and sign in with the token of the platform")
