"""Clients of NATS that are not services: who is admitted, and whose connections are closed.

In: questions of the NATS servers (auth callout), tokens. Out: permissions, and the end of connections whose credential
is no longer valid. Level-based: every gateway compares the connections with the tokens, so it does not matter which
gateway admitted a client, or whether that one lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from penstock_adapters.nats.auth import accounts, admission
from penstock_adapters.nats.auth.admission import Admission
from penstock_adapters.nats.auth.callout import Callout, RefusedCredentialError
from penstock_adapters.nats.bus import BusError
from penstock_contracts import subjects
from penstock_core import access
from penstock_core.access import TokenStore
from penstock_core.errors import UnavailableError
from penstock_servicekit.service_context import ServiceContext, cancel

_CHECK_OFTEN = 0.4
"""Seconds between two checks of the connections while there are some."""

_CHECK_SELDOM = 10.0
"""Seconds between two checks otherwise: another gateway may have admitted clients, and died."""

_BATCH = 500


@dataclass(frozen=True, slots=True)
class CalloutKeys:
    """How a gateway answers servers.

    Attributes:
        issuer: seed of the account key that signs answers.
        login: options of the NATS client for the user of the callout.
    """

    issuer: str
    login: dict[str, Any]


class NatsAccess:
    """Admits clients, and closes connections.

    Args:
        context: of the gateway.
        keys: how it answers servers; None: the servers admit services only, by their own configuration.
        tokens: named tokens.
    """

    def __init__(self, context: ServiceContext, keys: CalloutKeys | None, tokens: TokenStore) -> None:
        self._context = context
        self._keys = keys
        self._tokens = tokens
        self._callout: Callout | None = None
        self._wake = asyncio.Event()
        self._admitted_at = 0.0
        self._checking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer servers from now on."""
        where, keys, context = self._context.servers, self._keys, self._context
        if keys is not None and where is not None:
            self._callout = Callout(
                where.urls, keys.login, where.tls, keys.issuer, self._admit, context.log, context.fail
            )
            await self._callout.start()
            self._checking = self._context.task(self._check_regularly(self._callout))

    async def close(self) -> None:
        """Stop."""
        if self._checking is not None:
            await cancel([self._checking])
        if self._callout is not None:
            await self._callout.close()

    def check_soon(self) -> None:
        """Check the connections now, because a credential was revoked."""
        self._wake.set()

    async def _admit(self, token: str) -> Admission:
        """Return the permissions of the bearer of a token.

        Raises:
            RefusedCredentialError: the token is not valid.
            UnavailableError: the tokens cannot be read now.
        """
        if not token:
            raise RefusedCredentialError("it has no token")
        found = await self._tokens.find(access.token_digest(token))
        if found is None:
            raise RefusedCredentialError("its token is unknown or revoked")
        if found.expired(time.time()):
            raise RefusedCredentialError("its token has expired")
        if not found.publisher:
            raise RefusedCredentialError(
                "its token is not for NATS: use one of `penstock tokens create --role publisher`"
            )
        self._admitted_at = time.monotonic()
        self._wake.set()
        return admission.of_publisher(found)

    # -------------------------------------------------------------------------------------------------- connections

    async def _check_regularly(self, callout: Callout) -> None:
        while True:
            self._wake.clear()
            some = False
            try:
                some = await self._check(callout)
            except (UnavailableError, BusError) as error:
                self._context.log.warning("connections not checked, will be retried", error=str(error))
            often = some or time.monotonic() - self._admitted_at < 2 * _CHECK_SELDOM
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _CHECK_OFTEN if often else _CHECK_SELDOM)

    async def _check(self, callout: Callout) -> bool:
        """Close the connections whose credential is no longer valid; returns whether there are connections."""
        found = await callout.connections(accounts.PUBLISHERS)
        digests = {digest for one in found if (digest := admission.digest_of(one.name)) is not None}
        valid = await self._valid(digests)
        for one in found:
            digest = admission.digest_of(one.name)
            if digest is not None and digest not in valid:
                self._context.log.info("NATS client disconnected: its token was revoked", server=one.server)
                await callout.kick(one)
        return bool(found)

    async def _valid(self, digests: Collection[str]) -> set[str]:
        """Return those of the tokens, by their digests, that are stored."""
        valid: set[str] = set()
        ordered = sorted(digests)
        prefix = f"$KV.{subjects.TOKENS_BUCKET}.by-digest."
        for start in range(0, len(ordered), _BATCH):
            query = {"multi_last": [f"{prefix}{digest}" for digest in ordered[start : start + _BATCH]]}
            for message in await self._context.bus.direct_get(f"KV_{subjects.TOKENS_BUCKET}", query):
                if "KV-Operation" not in (message.headers or {}):
                    valid.add((message.headers or {})["Nats-Subject"].removeprefix(prefix))
        return valid
