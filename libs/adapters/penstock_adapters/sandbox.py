"""Runs programs that execute users' code for the platform itself, such as the compilation of a pipeline.

With bubblewrap the program has namespaces of its own: it sees the system's libraries, the folders that it is given and
nothing else, has no network, and all of its processes end with it. Where bubblewrap is missing or not permitted, it is
an ordinary process with a scrubbed environment. In both cases its time, output and standard input are bounded, and it
has neither variables nor descriptors of the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from penstock_adapters.commands import kill
from penstock_core.errors import PenstockError, UnavailableError

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
)
_SHOWN = 20
_LINE = 2000
_SCRATCH = 256 * 1024 * 1024
"""Bytes of its temporary folder, and of its shared memory."""


class SandboxError(PenstockError):
    """A program did not end well: it crashed, took too long, or printed too much."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and its limits.

    Attributes:
        command: its arguments.
        folder: its working folder.
        readable: files and folders that it can read, besides those of the system.
        stdin: its standard input.
        timeout: in seconds.
        output: bytes of its standard output.
    """

    command: Sequence[str]
    folder: Path
    readable: Sequence[Path]
    stdin: bytes
    timeout: float
    output: int = 64 * 1024 * 1024


class Sandbox:
    """Runs programs.

    Args:
        required: whether bubblewrap must be used; otherwise it is used where it works.
    """

    def __init__(self, *, required: bool = False) -> None:
        self._required = required
        self._works: bool | None = None

    async def run(self, program: Program, log: Callable[[str], None]) -> bytes:
        """Run a program and return its standard output.

        Args:
            program: the program.
            log: receives the lines of its standard error.

        Raises:
            SandboxError: it ended with an error, took too long or printed too much.
            UnavailableError: it cannot be started.
        """
        if self._works is None:
            self._works = await _works()
        if not self._works:
            if self._required:
                raise SandboxError(
                    "bubblewrap (bwrap) does not work on this machine, and PENSTOCK_SANDBOX requires it: install it "
                    "and permit user namespaces, or set PENSTOCK_SANDBOX=auto"
                )
            log("without a sandbox: bubblewrap (bwrap) does not work on this machine")
        with TemporaryDirectory(prefix="penstock-sandbox-") as scratch:
            wrapped = [*_bubblewrap(program), *program.command] if self._works else [*program.command]
            try:
                process = await asyncio.create_subprocess_exec(
                    *wrapped,
                    cwd="/" if self._works else program.folder,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=_variables("/tmp" if self._works else scratch),  # noqa: S108 - its own
                    start_new_session=True,
                )
            except OSError as error:
                raise UnavailableError(f"a program cannot be started: {error}") from error
            try:
                async with asyncio.timeout(program.timeout):
                    output, lines = await asyncio.gather(_exchange(process, program), _lines(process, log))
                    code = await process.wait()
            except TimeoutError:
                raise SandboxError(f"it did not end in {program.timeout:g} s") from None
            finally:
                await kill(process)
        if code != 0:
            how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
            raise SandboxError("\n".join([f"its process ended early ({how})", *lines]).strip())
        return output


def _bubblewrap(program: Program) -> list[str]:
    arguments = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for path in map(Path, _SYSTEM):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISLNK(path.lstat().st_mode):
                arguments += ["--symlink", str(path.readlink()), str(path)]
            else:
                arguments += ["--ro-bind", str(path), str(path)]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--size", str(_SCRATCH), "--tmpfs", "/tmp"]  # noqa: S108
    for path in program.readable:
        arguments += ["--ro-bind", str(path), str(path)]
    # The rest is in memory, too, and without a limit of its own.
    arguments += ["--size", str(_SCRATCH), "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--remount-ro", "/"]  # noqa: S108
    return [*arguments, "--chdir", str(program.folder), "--"]


async def _works() -> bool:
    """Return whether bubblewrap is installed, and may make namespaces on this machine."""
    found = shutil.which("bwrap")
    if found is None:
        return False
    probe = Program(["/usr/bin/env", "true"], Path("/"), (), b"", 10.0)
    try:
        process = await asyncio.create_subprocess_exec(
            *(*_bubblewrap(probe), *probe.command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return False
    try:
        return await asyncio.wait_for(process.wait(), probe.timeout) == 0
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _variables(home: str) -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LC_ALL": "C.UTF-8", "HOME": home, "TMPDIR": home, "MPLBACKEND": "Agg", "TZ": "UTC"}


async def _exchange(process: asyncio.subprocess.Process, program: Program) -> bytes:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are pipes

    async def write(stream: asyncio.StreamWriter) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            stream.write(program.stdin)
            await stream.drain()
        stream.close()

    writing = asyncio.create_task(write(process.stdin))
    output = bytearray()
    try:
        while data := await process.stdout.read(64 * 1024):
            output += data
            if len(output) > program.output:
                raise SandboxError(f"its result has more than {program.output} bytes")
    finally:
        writing.cancel()
    return bytes(output)


async def _lines(process: asyncio.subprocess.Process, log: Callable[[str], None]) -> list[str]:
    """Pass the lines of standard error on, and return the last ones."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    lines: list[str] = []
    rest = b""
    while data := await process.stderr.read(64 * 1024):
        *whole, rest = (rest + data).split(b"\n")
        for one in whole:
            line = one.decode(errors="replace").rstrip()[:_LINE]
            log(line)
            lines = [*lines, line][-_SHOWN:]
        rest = rest[-_LINE:]
    return [*lines, rest.decode(errors="replace")] if rest else lines
