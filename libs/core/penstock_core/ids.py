"""Names and ids: what they may contain, and how they are derived.

Every id becomes a token of a NATS subject, so none may hold a dot, a space or a wildcard.
"""

from __future__ import annotations

import functools
import hashlib
import re
import zlib
from typing import NewType

from penstock_core.errors import InvalidIdError

RunId = NewType("RunId", str)
StepKey = NewType("StepKey", str)
Digest = NewType("Digest", str)

SHARDS = 16

NAME_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$"
"""Names of projects, pipelines, steps, pools and runs, as a JSON Schema pattern."""

_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_STEP_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_/-]{0,199}(\[[0-9]{1,9}\])*\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
# Crockford's base 32, as in ULID: sortable as text, no letters that look alike.
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


@functools.lru_cache(maxsize=4096)
def shard(run_id: str) -> str:
    """The shard of a run as two digits, `crc32(run_id) % 16`."""
    return f"{zlib.crc32(run_id.encode()) % SHARDS:02d}"


@functools.lru_cache(maxsize=4096)
def check_name(name: str, what: str = "name") -> str:
    """Return `name` when it may name a project, pipeline, step, pool or run.

    Raises:
        InvalidId: it is empty, longer than 100 characters, or has other characters than letters, digits, `_` and `-`.
    """
    if not _NAME.match(name):
        raise InvalidIdError(f"{what} {name[:120]!r} is not valid: use 1 to 100 letters, digits, '_' and '-'")
    return name


def is_name(name: str) -> bool:
    """Whether `name` may name a project, pipeline, step, pool or run."""
    return _NAME.match(name) is not None


@functools.lru_cache(maxsize=4096)
def check_step_key(key: str, what: str = "step key") -> str:
    """Return `key` when it may be the key of a step in a run, such as `split-2`, `train[3]` or `features/split`.

    Raises:
        InvalidId: it has other characters or is longer than 200.
    """
    if not _STEP_KEY.match(key):
        raise InvalidIdError(
            f"{what} {key[:120]!r} is not valid: use letters, digits, '_', '-', '/' and at the end '[n]'"
        )
    return key


def check_digest(digest: str) -> str:
    """Return `digest` when it is a SHA-256 in 64 lower-case hexadecimal digits.

    Raises:
        InvalidId: it is something else.
    """
    if not _DIGEST.match(digest):
        raise InvalidIdError(f"digest {digest[:80]!r} is not a SHA-256 in hexadecimal")
    return digest


def base32(number: int, length: int) -> str:
    """`number` in Crockford's base 32, padded to `length` digits."""
    digits = ""
    for _ in range(length):
        digits = _BASE32[number & 31] + digits
        number >>= 5
    return digits


def run_id(unix_ms: int, entropy: bytes) -> RunId:
    """A new run id: 26 characters that sort by time (the ULID layout, in lower case).

    Args:
        unix_ms: milliseconds since 1970.
        entropy: 10 random bytes.
    """
    return RunId(base32(unix_ms, 10) + base32(int.from_bytes(entropy[:10], "big"), 16))


def run_id_from_key(project: str, pipeline: str, idempotency_key: str) -> RunId:
    """The run id that an idempotency key stands for: the same key is always the same run."""
    digest = hashlib.sha256("\0".join((project, pipeline, idempotency_key)).encode()).digest()
    return RunId("k" + base32(int.from_bytes(digest[:16], "big"), 25))


def attempt_id(run: str, key: str, attempt: int) -> str:
    """One text for one attempt, for messages, folders and jitter."""
    return f"{run}/{key}/{attempt}"
