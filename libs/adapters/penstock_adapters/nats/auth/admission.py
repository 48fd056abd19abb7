"""What a client of NATS may do that is not a service: pure functions from what its credential claims.

A client gets its permissions when it connects. They do not change while it is connected: when the credential ends, its
connection is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_adapters.nats.auth import accounts
from penstock_core.access import AccessToken

_PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True)
class Admission:
    """The permissions of a client.

    Attributes:
        account: the account it belongs to.
        name: identifies the credential in the list of connections; it is not secret.
        publish: subjects it may publish to.
        subscribe: subjects it may subscribe to.
        answers: whether it may answer the requests that it gets, once each.
        expires_at: Unix seconds at which the server closes the connection; None: never.
    """

    account: str
    name: str
    publish: Sequence[str]
    subscribe: Sequence[str]
    answers: bool
    expires_at: float | None


def of_publisher(token: AccessToken) -> Admission:
    """Return what the bearer of the token of a publisher may do."""
    return Admission(
        accounts.PUBLISHERS,
        f"{_PUBLISHER} {token.digest}",
        [f"events.{token.project}.>"],
        [f"{publisher_inbox(token)}.>"],
        answers=False,
        expires_at=token.expires_at,
    )


def publisher_inbox(token: AccessToken) -> str:
    """Return the prefix of the subjects on which a publisher gets acknowledgements."""
    return f"_INBOX.publisher.{token.name}"


def digest_of(name: str) -> str | None:
    """Return the digest of the token of a publisher's connection; None if it has another purpose."""
    kind, _, digest = name.partition(" ")
    return digest if kind == _PUBLISHER else None
