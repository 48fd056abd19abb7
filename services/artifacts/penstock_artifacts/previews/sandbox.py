"""Starts the child of a preview, limits it from outside, and describes how it ended.

The child gets an empty environment, an empty working folder, the artifact's bytes on descriptor 3 for reading, and no
other descriptor. It leads its own session, which is killed as a whole at the timeout.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PROGRAM = "penstock_artifacts.previews.child"
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP)
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one child: seconds of CPU time, seconds of wall time, bytes of memory and of its reply."""

    seconds: int = 10
    patience: float = 40.0
    memory: int = 512 * 1024 * 1024
    output: int = 1024 * 1024


async def look(source: int, order: dict[str, Any], limits: Limits, work: Path) -> tuple[dict[str, Any], bool]:
    """Have a child read the bytes of the descriptor `source`.

    Args:
        source: a descriptor that is open for reading.
        order: description of the artifact: `format`, `media_type`, `filename`, `size`.
        limits: limits of the child.
        work: folder of its empty working folder.

    Returns:
        Its reply, or why there is none; and whether trying again would give the same.
    """
    whole = {**order, "parent": os.getpid(), "seconds": limits.seconds, "memory": limits.memory}
    with tempfile.TemporaryDirectory(dir=work, prefix="empty-") as empty:
        command = [sys.executable, "-I", "-c", _start(source), json.dumps(whole)]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=empty,
            env={"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_NUM_THREADS": "1"},
            pass_fds=[source],
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(limits.patience):
                text = await _read(process, limits.output)
                code = await process.wait()
        except TimeoutError:
            return _none(f"making it took longer than {limits.patience:g} s"), False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return _answer(text, code)


def _start(source: int) -> str:
    """The child's first lines: they move the bytes to descriptor 3."""
    moved = f"import os; os.dup2({source}, 3, False); " if source != 3 else ""
    return f"{moved}import runpy; runpy.run_module({_PROGRAM!r}, run_name='__main__')"


async def _read(process: asyncio.subprocess.Process, limit: int) -> bytes:
    assert process.stdout is not None  # noqa: S101 - opened with PIPE
    text = b""
    while chunk := await process.stdout.read(_CHUNK):
        text += chunk
        if len(text) > limit:
            process.kill()
            return b""
    return text


def _answer(text: bytes, code: int) -> tuple[dict[str, Any], bool]:
    if code == 0:
        with suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict):
                return found, bool(found.pop("final", True))
    if -code in _CRASHES:
        return _none("its reader crashed: the file is damaged or hostile"), True
    if code == -signal.SIGKILL:
        return _none("its reader was stopped: the file needs too much time or memory"), True
    return _none(f"its reader ended without a reply (code {code})"), False


def _none(reason: str) -> dict[str, Any]:
    return {"kind": "none", "reason": reason}
