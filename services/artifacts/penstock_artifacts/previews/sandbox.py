"""Starts a preview's child, bounds it from outside, and says in words how it ended.

The child gets an environment with nothing in it, an empty working folder, the artifact's bytes on descriptor 3 for
reading, and no other descriptor. It leads its own session; when its time is over the whole of it is killed.
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
    """What one child may use: seconds of processor time, seconds by the clock, bytes of memory and of its answer."""

    seconds: int = 10
    patience: float = 40.0
    memory: int = 512 * 1024 * 1024
    output: int = 1024 * 1024


async def look(source: int, order: dict[str, Any], limits: Limits, work: Path) -> tuple[dict[str, Any], bool]:
    """Have a child look at the bytes behind the descriptor `source`.

    Args:
        source: a descriptor that is open for reading.
        order: what is known of the artifact: `format`, `media_type`, `filename`, `size`.
        limits: of the child.
        work: folder in which its empty working folder is made.

    Returns:
        What it answered, or why it did not; and whether it would answer the same another time.
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
    """The child's first lines: the bytes come to descriptor 3 whatever number they have here."""
    moved = f"import os; os.dup2({source}, 3, False); " if source != 3 else ""
    return f"{moved}import runpy; runpy.run_module({_PROGRAM!r}, run_name='__main__')"


async def _read(process: asyncio.subprocess.Process, limit: int) -> bytes:
    assert process.stdout is not None  # noqa: S101 - it was asked for
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
        return _none("its reader crashed: the file is damaged, or made to do that"), True
    if code == -signal.SIGKILL:
        return _none("its reader was stopped: the file needs too much time or memory"), True
    return _none(f"its reader ended without an answer (code {code})"), False


def _none(reason: str) -> dict[str, Any]:
    return {"kind": "none", "reason": reason}
