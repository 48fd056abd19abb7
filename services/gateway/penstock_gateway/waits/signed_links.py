"""Signed links: each permits to answer one question without the platform's token.

A link's token is `PAYLOAD.SIGNATURE`, both base64url. The payload is JSON with run, step, attempt, choice (null: any)
and expiry; the signature is HMAC-SHA256 over the payload with a key derived from the platform's token, or from a
configured secret. A new token of the platform invalidates all links.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

import orjson
import pydantic

from penstock_core.errors import PenstockError

LIFETIME = 7 * 86400.0
"""Default lifetime of a link in seconds."""

MAX_LIFETIME = 90 * 86400.0
MAX_TOKEN = 16 * 1024

_PURPOSE = b"penstock: links to answer questions, v1"


class InvalidLinkError(PenstockError):
    """The link was not signed here, or was changed."""


@dataclass(frozen=True, slots=True)
class Link:
    """Permits to answer the question of one attempt, with one choice or (None) any, until `expires_at`."""

    run_id: str
    step: str
    attempt: int
    choice: str | None
    expires_at: float
    made_by: str


_LINK: pydantic.TypeAdapter[Link] = pydantic.TypeAdapter(Link)


class Signer:
    """Signs and verifies tokens of links."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).digest()

    def sign(self, link: Link) -> str:
        """Return the token of a link."""
        payload = orjson.dumps(link)
        return f"{_text(payload)}.{_text(self._signature(payload))}"

    def read(self, token: str) -> Link:
        """Return the link of a token, expired or not.

        Raises:
            InvalidLinkError: it was not signed here.
        """
        payload, _, signature = token.partition(".")
        try:
            if len(token) > MAX_TOKEN:
                raise InvalidLinkError("it is too long")
            body = _bytes(payload)
            if not hmac.compare_digest(_bytes(signature), self._signature(body)):
                raise InvalidLinkError("its signature is wrong")
            return _LINK.validate_json(body)
        except (ValueError, binascii.Error) as error:
            raise InvalidLinkError("it is malformed") from error

    def _signature(self, payload: bytes) -> bytes:
        return hmac.new(self._key, payload, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
