"""What a client of NATS may do that is not a service: pure functions from what its credential claims.

A client gets its permissions when it connects. They do not change while it is connected: when the credential ends, its
connection is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_adapters.nats.auth import accounts
from penstock_adapters.nats.auth.runner_tokens import AttemptClaims, Claims, WorkerClaims
from penstock_core import pod_protocol
from penstock_core.access import AccessToken
from penstock_core.shipping.messages import AttemptKey

_ATTEMPT, _WORKER, _PUBLISHER = "attempt", "worker", "publisher"


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


def of_runner(claims: Claims, token: str) -> Admission:
    """Return what the bearer of a token of a runner may do."""
    inbox = f"{pod_protocol.inbox(token)}.>"
    match claims:
        case AttemptClaims():
            about = (claims.pool, claims.run_id, claims.key, claims.attempt)
            return Admission(
                accounts.STEPS,
                attempt_name((claims.run_id, claims.key, claims.attempt)),
                [pod_protocol.subject(*about, "*")],
                [inbox],
                answers=False,
                expires_at=claims.expires_at,
            )
        case WorkerClaims():
            return Admission(
                accounts.STEPS,
                f"{_WORKER} {claims.worker}",
                [
                    pod_protocol.claims(claims.pool, claims.worker),
                    pod_protocol.announcement(claims.pool, claims.worker),
                ],
                [inbox, pod_protocol.offers(claims.worker, "*")],
                answers=True,
                expires_at=claims.expires_at,
            )


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


def attempt_name(attempt: AttemptKey) -> str:
    """Return the name of the credential of an attempt."""
    run_id, key, number = attempt
    return f"{_ATTEMPT} {run_id} {key} {number}"


def attempt_of(name: str) -> AttemptKey | None:
    """Return the attempt of a connection; None if it has another purpose."""
    match name.split(" "):
        case [kind, run_id, key, number] if kind == _ATTEMPT:
            return run_id, key, int(number)
        case _:
            return None


def digest_of(name: str) -> str | None:
    """Return the digest of the token of a publisher's connection; None if it has another purpose."""
    kind, _, digest = name.partition(" ")
    return digest if kind == _PUBLISHER else None
