"""Names and identifiers: what they may contain, and how they are derived.

Every identifier becomes a token of a NATS subject, so none may contain a dot, a space or a wildcard.
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

SHARDS = 4
"""Parts of the log that schedulers share. The broker saves the state of each part's consumer several times a second."""

RECORDED_SHARD = f"{SHARDS:02d}"
"""Shard of runs whose facts are recorded after they have finished: no scheduler consumes it."""

_RECORDED = "call-"

NAME_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9_-]{0,99}$"
"""JSON Schema pattern of names of projects, pipelines, steps, pools and runs."""

STEP_KEY_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_/-]{0,199}(\[[0-9]{1,9}\])*$"
"""JSON Schema pattern of keys of steps and items."""

DIGEST_PATTERN = "^[0-9a-f]{64}$"
"""JSON Schema pattern of SHA-256 digests."""

_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_STEP_KEY = re.compile(STEP_KEY_PATTERN.removesuffix("$") + r"\Z")
_DIGEST = re.compile(DIGEST_PATTERN.removesuffix("$") + r"\Z")
# Crockford's base 32, as in ULID: sortable as text, without letters that look alike.
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


@functools.lru_cache(maxsize=4096)
def shard(run_id: str) -> str:
    """Return the shard of a run as two digits: `crc32(run_id) % 16`, or that of recorded runs."""
    if run_id.startswith(_RECORDED):
        return RECORDED_SHARD
    return f"{zlib.crc32(run_id.encode()) % SHARDS:02d}"


@functools.lru_cache(maxsize=4096)
def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it is a valid name of a project, pipeline, step, pool or run.

    Raises:
        InvalidIdError: it is empty, longer than 100 characters, or has characters other than letters, digits, `_` and
            `-`.
    """
    if not _NAME.match(name):
        raise InvalidIdError(f"{what} {name[:120]!r} is not valid: use 1 to 100 letters, digits, '_' and '-'")
    return name


def is_name(name: str) -> bool:
    """Whether `name` is a valid name of a project, pipeline, step, pool or run."""
    return _NAME.match(name) is not None


@functools.lru_cache(maxsize=4096)
def check_step_key(key: str, what: str = "step key") -> str:
    """Return `key` if it is a valid key of a step in a run, such as `split-2`, `train[3]` or `features/split`.

    Raises:
        InvalidIdError: it has other characters, or more than 200.
    """
    if not _STEP_KEY.match(key):
        raise InvalidIdError(
            f"{what} {key[:120]!r} is not valid: use letters, digits, '_', '-', '/' and at the end '[n]'"
        )
    return key


def check_digest(digest: str) -> str:
    """Return `digest` if it is a SHA-256 in 64 lower-case hexadecimal digits.

    Raises:
        InvalidIdError: it is not.
    """
    if not _DIGEST.match(digest):
        raise InvalidIdError(f"digest {digest[:80]!r} is not a SHA-256 in hexadecimal")
    return digest


def base32(number: int, length: int) -> str:
    """Encode `number` in Crockford's base 32, padded to `length` digits."""
    digits = ""
    for _ in range(length):
        digits = _BASE32[number & 31] + digits
        number >>= 5
    return digits


def run_id(unix_ms: int, entropy: bytes) -> RunId:
    """Return a new run id: 26 characters that sort by time (the ULID layout, in lower case).

    Args:
        unix_ms: milliseconds since 1970.
        entropy: 10 random bytes.
    """
    return RunId(base32(unix_ms, 10) + base32(int.from_bytes(entropy[:10], "big"), 16))


def recorded_run_id(unix_ms: int, entropy: bytes) -> RunId:
    """Return a new id of a run that is recorded after it has finished. Arguments as of `run_id`."""
    return RunId(_RECORDED + run_id(unix_ms, entropy))


def is_recorded(run_id: str) -> bool:
    """Whether the facts of a run are recorded after it has finished, so that no scheduler decides about it."""
    return run_id.startswith(_RECORDED)


def run_id_from_key(project: str, pipeline: str, idempotency_key: str) -> RunId:
    """Return the run id of an idempotency key: the same key always gives the same run."""
    digest = hashlib.sha256("\0".join((project, pipeline, idempotency_key)).encode()).digest()
    return RunId("k" + base32(int.from_bytes(digest[:16], "big"), 25))


def is_from_key(run_id: str) -> bool:
    """Whether an id has the form of those of `run_id_from_key`, which everybody who knows the key can compute."""
    return len(run_id) == 26 and run_id.startswith("k")


def attempt_id(run: str, key: str, attempt: int) -> str:
    """Return the identifier of an attempt, for messages, folders and jitter."""
    return f"{run}/{key}/{attempt}"
