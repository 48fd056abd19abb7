"""Starts the embedded platform before anything else is imported, because `penstock run` waits for it longest.

The decision is a guess from the raw arguments; the command checks them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.client.embedded import EmbeddedPlatform

_embedded: EmbeddedPlatform | None = None


def start(arguments: list[str]) -> None:
    """Start a platform if the arguments look like `run FILE …` and $PENSTOCK_URL is not set."""
    global _embedded
    if arguments and arguments[0] == "--project":
        arguments = arguments[2:]
    if not arguments or arguments[0] != "run" or os.environ.get("PENSTOCK_URL"):
        return
    rest = arguments[1:]
    if "--help" in rest or not any(_is_source(item) for item in rest):
        return
    from penstock import errors
    from penstock.client.embedded import EmbeddedPlatform

    try:
        _embedded = EmbeddedPlatform()
        _embedded.start()
    except (errors.ClientError, OSError):
        # The command meets the same error again and reports it.
        release()


def _is_source(argument: str) -> bool:
    return not argument.startswith("-") and Path(argument.partition(":")[0]).exists()


def embedded() -> EmbeddedPlatform | None:
    """Return the platform that `start` started, or None."""
    return _embedded


def release() -> None:
    """Release the platform that `start` started."""
    global _embedded
    if _embedded is not None:
        _embedded.close()
        _embedded = None
