"""Calls of the program `uv`, which runs as a process of its own: it may run build scripts of distributions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import uv

from penstock_core import step_environment
from penstock_core.errors import PenstockError, UnavailableError

LINE = 2000
"""Characters of a line of output that are kept."""

_SHOWN = 40
"""Lines at the end of the output that an error contains."""

_CREDENTIALS = re.compile(r"://[^/\s@]+@")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SHORTAGE = re.compile(r"\(os error (11|12|23|24|28|122)\)|No space left on device")
"""How uv says that processes, memory, file descriptors or space on the disk are used up."""

_AWAY = ("Failed to fetch", "error sending request", "Connection refused", "dns error", "operation timed out")
"""How uv says that an index does not answer."""

Log = Callable[[str], None]
"""Receives a line of output."""


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
    try:
        process = await asyncio.create_subprocess_exec(
            *(uv.find_uv_bin(), "--no-progress", "--color", "never", *arguments),
            cwd=folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_variables(os.environ),
            start_new_session=True,
        )
    except OSError as error:
        raise UnavailableError(f"uv cannot be started: {error}") from error
    try:
        async with asyncio.timeout(timeout):
            output, lines = await asyncio.gather(_exchange(process, stdin), _read_lines(process, log))
            code = await process.wait()
    except TimeoutError:
        raise EnvironmentBuildError(f"uv did not finish in {timeout:.0f} seconds") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # build scripts that are left
        await process.wait()
    if code == 0:
        return output
    text = "\n".join(lines).strip() or f"uv ended with exit code {code}"
    if _SHORTAGE.search(text):
        raise UnavailableError(f"the machine has run out of something: {text}")
    if any(words in text for words in _AWAY) and "certificate" not in text:
        raise UnavailableError(f"a package index does not answer: {text}")
    raise EnvironmentBuildError(text.removeprefix("error: "))


def masked(line: str) -> str:
    """Return a line without colours, and without users and passwords in URLs."""
    return _CREDENTIALS.sub("://***@", _COLOURS.sub("", line))[:LINE]


def _variables(base: Mapping[str, str]) -> dict[str, str]:
    """The configuration of uv, and what programs need: no credentials of the platform."""
    left_out = {"VIRTUAL_ENV", "PYTHONPATH"}
    given = {name: value for name, value in base.items() if name.startswith("UV_")}
    found = step_environment.inherited(base) | given
    return {name: value for name, value in found.items() if name not in left_out}


async def _exchange(process: asyncio.subprocess.Process, text: str) -> str:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are pipes
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(text.encode())
        await process.stdin.drain()
    process.stdin.close()
    return (await process.stdout.read()).decode(errors="replace")


async def _read_lines(process: asyncio.subprocess.Process, log: Log) -> list[str]:
    """Pass the lines of standard error on, and return the last ones."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    lines: list[str] = []
    rest = b""
    while data := await process.stderr.read(64 * 1024):
        *whole, rest = (rest + data).split(b"\n")
        for one in whole:
            line = masked(one.decode(errors="replace").rstrip())
            log(line)
            lines = [*lines, line][-_SHOWN:]
        rest = rest[-LINE:]
    return [*lines, masked(rest.decode(errors="replace"))] if rest else lines
