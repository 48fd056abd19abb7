"""The credentials of runners in pods: tokens that name what their bearer may do, signed by the gateways.

Nothing is stored: whether an attempt has ended is in the log. Two kinds:

- of an attempt: requests to the executor about this attempt;
- of a worker: it may claim attempts that the executor has assigned to its pod.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

import orjson

from penstock_core.errors import PenstockError

PREFIX = "psr1."
_WORD = re.compile(r"[A-Za-z0-9_\-\[\]=+,@:/]{1,300}")
"""One word of a subject: without dots, wildcards and spaces, which would widen what a token allows."""


class InvalidRunnerTokenError(PenstockError):
    """A token is not one of a runner, or not signed by this platform, or has expired."""


@dataclass(frozen=True, slots=True)
class AttemptClaims:
    """The bearer is the runner of an attempt.

    Attributes:
        pool: pool of its executors.
        run_id: the run.
        key: the step, or the item.
        attempt: its number.
        expires_at: Unix seconds from which the token is refused.
    """

    pool: str
    run_id: str
    key: str
    attempt: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class WorkerClaims:
    """The bearer is a worker.

    Attributes:
        pool: pool of its executors.
        worker: name of its pod.
        expires_at: Unix seconds from which the token is refused.
    """

    pool: str
    worker: str
    expires_at: float


Claims = AttemptClaims | WorkerClaims


def is_word(text: str) -> bool:
    """Return whether a text is one word of a subject."""
    return _WORD.fullmatch(text) is not None


def encode(claims: Claims, secret: bytes) -> str:
    """Return a new token. No two are equal, so that nobody can guess where answers to its bearer arrive.

    Raises:
        InvalidRunnerTokenError: a name cannot be a word of a subject.
    """
    for name in _words(claims):
        if not is_word(name):
            raise InvalidRunnerTokenError(f"{name[:100]!r} cannot be a word of a subject of NATS")
    body = _base64(orjson.dumps({"id": secrets.token_hex(8), "kind": type(claims).__name__, "of": claims}))
    return f"{PREFIX}{body}.{_base64(_signature(body, secret))}"


def decode(token: str, secret: bytes, now: float) -> Claims:
    """Return what a token claims.

    Raises:
        InvalidRunnerTokenError: it is not valid.
    """
    body, _, signature = token.removeprefix(PREFIX).partition(".")
    given = _bytes(signature)
    if not token.startswith(PREFIX) or not hmac.compare_digest(given, _signature(body, secret)):
        raise InvalidRunnerTokenError("the token of the runner is not signed by this platform")
    found = orjson.loads(_bytes(body))
    claims: Claims = (AttemptClaims if found["kind"] == AttemptClaims.__name__ else WorkerClaims)(**found["of"])
    if now >= claims.expires_at:
        raise InvalidRunnerTokenError("the token of the runner has expired")
    return claims


def _words(claims: Claims) -> tuple[str, ...]:
    if isinstance(claims, WorkerClaims):
        return claims.pool, claims.worker
    return claims.pool, claims.run_id, claims.key


def _signature(body: str, secret: bytes) -> bytes:
    return hmac.digest(secret, body.encode(), hashlib.sha256)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
