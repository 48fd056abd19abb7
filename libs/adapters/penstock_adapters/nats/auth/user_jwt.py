"""The messages of the auth callout: JSON Web Tokens of NATS, signed with ed25519."""

from __future__ import annotations

import base64
import secrets
import time
from dataclasses import dataclass
from typing import Any

import orjson

from penstock_adapters.nats.auth import keys
from penstock_adapters.nats.auth.admission import Admission
from penstock_core.errors import PenstockError

_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}
_ANSWER_TTL = 60 * 1_000_000_000
"""Nanoseconds that a client has to answer a request."""


class InvalidRequestError(PenstockError):
    """A request of the auth callout is not signed by a server, or unreadable."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A client wants to connect.

    Attributes:
        user: the public key that the server chose for the connection.
        server: id of the server.
        token: what the client gave as its token; may be empty.
        host: its address.
        client: the name that it gives itself.
    """

    user: str
    server: str
    token: str
    host: str
    client: str


def read(data: bytes) -> ConnectRequest:
    """Return the request of a server.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        head, body, signature = data.decode().split(".")
        found = orjson.loads(_bytes(body))
        given = found["nats"]
        server = given["server_id"]["id"]
        if found["iss"] != server or not keys.is_signed(server, f"{head}.{body}".encode(), _bytes(signature)):
            raise InvalidRequestError("a request of the auth callout is not signed by the server that it names")
        options = given.get("connect_opts", {})
        return ConnectRequest(
            user=given["user_nkey"],
            server=server,
            token=options.get("auth_token", ""),
            host=given.get("client_info", {}).get("host", ""),
            client=str(options.get("name", ""))[:100],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequestError(f"a request of the auth callout is unreadable: {error!r}") from error


def admit(request: ConnectRequest, admission: Admission, issuer: str) -> bytes:
    """Return the answer that admits a client with these permissions; `issuer` is the seed that signs it."""
    user: dict[str, Any] = {
        # An empty list would allow everything.
        "pub": {"allow": list(admission.publish)} if admission.publish else {"deny": [">"]},
        "sub": {"allow": list(admission.subscribe)} if admission.subscribe else {"deny": [">"]},
        "subs": -1,
        "data": -1,
        "payload": -1,
        "type": "user",
        "version": 2,
    }
    if admission.answers:
        user["resp"] = {"max": 1, "ttl": _ANSWER_TTL}
    claims: dict[str, Any] = {"sub": request.user, "aud": admission.account, "name": admission.name, "nats": user}
    if admission.expires_at is not None:
        claims["exp"] = int(admission.expires_at)
    return _answer(request, {"jwt": _sign(claims, issuer)}, issuer)


def refuse(request: ConnectRequest, reason: str, issuer: str) -> bytes:
    """Return the answer that refuses a client; the reason is in the log of the server."""
    return _answer(request, {"error": reason[:200]}, issuer)


def _answer(request: ConnectRequest, body: dict[str, Any], issuer: str) -> bytes:
    nats = {**body, "type": "authorization_response", "version": 2}
    return _sign({"sub": request.user, "aud": request.server, "nats": nats}, issuer).encode()


def _sign(claims: dict[str, Any], issuer: str) -> str:
    whole = {"jti": secrets.token_hex(16), "iat": int(time.time()), "iss": keys.public(issuer), **claims}
    text = f"{_base64(orjson.dumps(_HEADER))}.{_base64(orjson.dumps(whole))}"
    return f"{text}.{_base64(keys.sign(issuer, text.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
