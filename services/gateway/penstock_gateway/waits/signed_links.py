"""Signed links with which one question can be answered, by whoever has them and without the platform's token.

A link's token is `PAYLOAD.SIGNATURE`, both base64url: the payload is JSON that names run, step, attempt, the choice (or
none: any of them) and when it expires; the signature is HMAC-SHA256 over the payload, whose key is derived from the
platform's token, or from a secret of its own. A new token of the platform makes old links worthless.
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
"""Seconds that a link counts, where nobody says otherwise."""

MAX_LIFETIME = 90 * 86400.0
MAX_TOKEN = 16 * 1024

_PURPOSE = b"penstock: links to answer questions, v1"


class InvalidLinkError(PenstockError):
    """The link was not made here, or has been changed."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a link allows: to answer the question of one attempt, with one choice or (None) any, until `expires_at`."""

    run_id: str
    step: str
    attempt: int
    choice: str | None
    expires_at: float


_LINK: pydantic.TypeAdapter[Link] = pydantic.TypeAdapter(Link)


class Signer:
    """Makes tokens and reads them."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).digest()

    def sign(self, link: Link) -> str:
        """The token of a link."""
        payload = orjson.dumps(link)
        return f"{_text(payload)}.{_text(self._signature(payload))}"

    def read(self, token: str) -> Link:
        """The link of a token, whether or not it has expired.

        Raises:
            InvalidLink: it was not signed here.
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
            raise InvalidLinkError("it is not of the form of a link") from error

    def _signature(self, payload: bytes) -> bytes:
        return hmac.new(self._key, payload, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
