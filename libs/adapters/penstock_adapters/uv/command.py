"""Calls of the program `uv`, which runs as a process of its own: it may run build scripts of distributions."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import uv

from penstock_adapters import commands
from penstock_adapters.commands import Log
from penstock_core import step_environment
from penstock_core.errors import PenstockError, UnavailableError

_SHORTAGE = re.compile(r"\(os error (11|12|23|24|28|122)\)|No space left on device")
"""How uv says that processes, memory, file descriptors or space on the disk are used up."""

_AWAY = ("Failed to fetch", "error sending request", "Connection refused", "dns error", "operation timed out")
"""How uv says that an index does not answer."""


class EnvironmentBuildError(PenstockError):
    """An environment cannot be resolved or installed; the message has the words of uv."""

    user_fault: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Indexes:
    """Package indexes: `index` instead of the default one, and further ones."""

    index: str = ""
    extra: tuple[str, ...] = ()

    def options(self) -> list[str]:
        """Return the options of uv."""
        first = [f"--default-index={self.index}"] if self.index else []
        # The first index that has a distribution counts, as uv does by default: nobody can replace it on another one.
        return [*first, *(f"--index={url}" for url in self.extra)]


async def run(arguments: Sequence[str], folder: Path, log: Log, timeout: float, stdin: str = "") -> str:
    """Run uv in a folder and return what it printed to standard output.

    Args:
        arguments: of uv.
        folder: its working folder.
        log: receives the lines of its standard error.
        timeout: in seconds.
        stdin: its standard input.

    Raises:
        EnvironmentBuildError: it failed; with its last lines.
        UnavailableError: the machine has run out of something, or the index does not answer.
    """
    program = [uv.find_uv_bin(), "--no-progress", "--color", "never", *arguments]
    try:
        done = await commands.run(program, folder, _variables(os.environ), log, timeout, stdin)
    except TimeoutError:
        raise EnvironmentBuildError(f"uv did not finish in {timeout:.0f} seconds") from None
    if done.code == 0:
        return done.output
    text = "\n".join(done.lines).strip() or f"uv ended with exit code {done.code}"
    if _SHORTAGE.search(text):
        raise UnavailableError(f"the machine has run out of something: {text}")
    if any(words in text for words in _AWAY) and "certificate" not in text:
        raise UnavailableError(f"a package index does not answer: {text}")
    raise EnvironmentBuildError(text.removeprefix("error: "))


def _variables(base: Mapping[str, str]) -> dict[str, str]:
    """The configuration of uv, and what programs need: no credentials of the platform."""
    left_out = {"VIRTUAL_ENV", "PYTHONPATH"}
    given = {name: value for name, value in base.items() if name.startswith("UV_")}
    found = step_environment.inherited(base) | given
    return {name: value for name, value in found.items() if name not in left_out}
