"""Programs that build something: processes with a time-out, whose output is read line by line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock_core.errors import UnavailableError

LINE = 2000
"""Characters of a line of output that are kept."""

_CREDENTIALS = re.compile(r"://[^/\s@]+@")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Log = Callable[[str], None]
"""Receives a line of output."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended: its exit code, its standard output, and the last lines of its standard error."""

    code: int
    output: str
    lines: list[str]


async def run(
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    log: Log,
    timeout: float,
    stdin: str = "",
    kept: int = 40,
) -> Completed:
    """Run a program in a folder.

    Args:
        arguments: the program and its arguments.
        folder: its working folder.
        env: its environment variables.
        log: receives the lines of its standard error.
        timeout: in seconds.
        stdin: its standard input.
        kept: lines at the end of standard error that are returned.

    Raises:
        UnavailableError: it cannot be started.
        TimeoutError: it did not end in time, and was killed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(env),
            start_new_session=True,
        )
    except OSError as error:
        raise UnavailableError(f"{Path(arguments[0]).name} cannot be started: {error}") from error
    try:
        async with asyncio.timeout(timeout):
            output, lines = await asyncio.gather(_exchange(process, stdin), _read_lines(process, log, kept))
            return Completed(await process.wait(), output, lines)
    finally:
        await kill(process)


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a program that leads its own session, and the processes that it has left; wait until it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # `wait` waits for the end of its pipes, too, which comes only if somebody reads them.
    process._transport.close()  # type: ignore[attr-defined] # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportAttributeAccessIssue]
    await process.wait()


def masked(line: str) -> str:
    """Return a line without colours, and without users and passwords in URLs."""
    return _CREDENTIALS.sub("://***@", _COLOURS.sub("", line))[:LINE]


async def _exchange(process: asyncio.subprocess.Process, text: str) -> str:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are pipes
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(text.encode())
        await process.stdin.drain()
    process.stdin.close()
    return (await process.stdout.read()).decode(errors="replace")


async def _read_lines(process: asyncio.subprocess.Process, log: Log, kept: int) -> list[str]:
    """Pass the lines of standard error on, and return the last ones."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    lines: list[str] = []
    rest = b""
    while data := await process.stderr.read(64 * 1024):
        *whole, rest = (rest + data).split(b"\n")
        for one in whole:
            line = masked(one.decode(errors="replace").rstrip())
            log(line)
            lines = [*lines, line][-kept:]
        rest = rest[-LINE:]
    return [*lines, masked(rest.decode(errors="replace"))] if rest else lines
