"""Why an image was not built, from what BuildKit and Docker print: the instruction that failed, and its last lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from penstock_core.errors import PenstockError, UnavailableError

_SHOWN = 12
"""Lines of the failed instruction in an error."""

_RULER = re.compile(r"-{6,}\s*\Z")
_INSTRUCTION = re.compile(r"\s*> (\[.*)")
_MOUNT = re.compile(r"--mount=\S+ ")
_TIMED = re.compile(r"(#\d+ )?\d+\.\d+ ")
_CAUSE = re.compile(r"^(?:ERROR|error): (?:failed to build: )?(?:failed to solve: )?(.*)", re.IGNORECASE)
_EXIT = re.compile(r"exit code: \d+$")
_UNAVAILABLE = (
    *("connection refused", "no such host", "i/o timeout", "context deadline exceeded", "connection reset by peer"),
    *("Cannot connect to the Docker daemon", "error while dialing", "no space left on device", "TLS handshake timeout"),
    *("failed to list workers", "502 Bad Gateway", "503 Service Unavailable"),
)


class ImageBuildError(PenstockError):
    """The image of an environment cannot be built; the message has the failed instruction and its last lines."""

    user_fault: ClassVar[bool] = True


def error_of(lines: Sequence[str], code: int) -> PenstockError:
    """Return the error of a build by the last lines that it printed.

    What an instruction printed never makes the engine count as away: an instruction may well fail to reach a server.
    """
    cause = next((found[1] for line in reversed(lines) if (found := _CAUSE.match(line.strip()))), "")
    if (instruction := _failed_instruction(lines)) is not None:
        name, output = instruction
        text = "\n".join(f"  {line}" for line in output[-_SHOWN:])
        return ImageBuildError(f"{name} failed: {_short(cause)}" + (f"\n{text}" if text else ""))
    text = cause or "\n".join(line for line in lines[-_SHOWN:] if line.strip()) or f"it ended with exit code {code}"
    if any(words.lower() in text.lower() for words in _UNAVAILABLE):
        return UnavailableError(f"the engine that builds images, or the registry, does not answer: {text}")
    return ImageBuildError(text)


def _failed_instruction(lines: Sequence[str]) -> tuple[str, list[str]] | None:
    """Return the failed instruction and what it printed; both engines repeat them between two rulers."""
    found: tuple[str, list[str]] | None = None
    for at, line in enumerate(lines[:-1]):
        match = _INSTRUCTION.match(lines[at + 1]) if _RULER.match(line) else None
        if match is None:
            continue
        output: list[str] = []
        for following in lines[at + 2 :]:
            if _RULER.match(following):
                break
            output.append(_TIMED.sub("", following, count=1))
        found = _MOUNT.sub("", match[1].rstrip(":"))[:500], output
    return found


def _short(cause: str) -> str:
    """Return what follows the repeated command: `exit code: 1`."""
    found = _EXIT.search(cause)
    return found[0] if found else cause
