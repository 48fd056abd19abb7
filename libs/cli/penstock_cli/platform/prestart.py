"""Starts the embedded platform before anything else is imported: its start-up is what `penstock run` waits for.

A guess from the bare arguments; the command itself checks everything again. A platform that was started for a command
that turns out to be wrong stops by itself, because its only client goes away.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.client.platform import EmbeddedPlatform

_embedded: EmbeddedPlatform | None = None


def start(arguments: list[str]) -> None:
    """Start a platform when the arguments look like `run FILE …` and none is named by the environment."""
    global _embedded
    if not arguments or arguments[0] != "run" or os.environ.get("PENSTOCK_URL"):
        return
    rest = arguments[1:]
    if "--help" in rest or not any(_is_source(item) for item in rest):
        return
    from penstock.client import errors, platform

    try:
        _embedded = platform.EmbeddedPlatform()
        _embedded.start()
    except (errors.ClientError, OSError):
        # The command meets the same fault again and has the means to tell.
        release()


def _is_source(argument: str) -> bool:
    return not argument.startswith("-") and Path(argument.partition(":")[0]).exists()


def embedded() -> EmbeddedPlatform | None:
    """The platform that was started early, if one was."""
    return _embedded


def release() -> None:
    """Let go of it."""
    global _embedded
    if _embedded is not None:
        _embedded.close()
        _embedded = None
