"""Clients of NATS that are not services: who is admitted, and the credentials of runners.

In: questions of the NATS servers (auth callout), and of executors. Out: permissions and credentials.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from penstock_adapters.nats.auth import admission, runner_tokens
from penstock_adapters.nats.auth.admission import Admission
from penstock_adapters.nats.auth.callout import Callout, RefusedCredentialError
from penstock_adapters.nats.auth.runner_tokens import AttemptClaims, InvalidRunnerTokenError, WorkerClaims
from penstock_contracts import subjects
from penstock_contracts.commands import IssueCredential, IssuedCredential
from penstock_core import access
from penstock_core.access import TokenStore
from penstock_gateway.access.nats_connections import ConnectionChecks
from penstock_servicekit.service_context import ServiceContext

_NO_ACCOUNTS = (
    "steps in pods need NATS servers with accounts: write their configuration with `penstock admin nats-config`, and "
    "set PENSTOCK_NATS_ISSUER_SEED of the gateways"
)


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
    """Admits clients, and issues the credentials of runners.

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
        self._checks: ConnectionChecks | None = None

    async def start(self) -> None:
        """Answer servers from now on."""
        where, keys, context = self._context.servers, self._keys, self._context
        await context.answer(subjects.GATEWAY_CREDENTIAL, IssueCredential, self._issue)
        if keys is not None and where is not None:
            self._callout = Callout(
                where.urls, keys.login, where.tls, keys.issuer, self._admit, context.log, context.fail
            )
            await self._callout.start()
            self._checks = ConnectionChecks(context, self._callout)
            await self._checks.start()

    async def close(self) -> None:
        """Stop."""
        if self._checks is not None:
            await self._checks.close()
        if self._callout is not None:
            await self._callout.close()

    def check_soon(self) -> None:
        """Check the connections now, because a credential was revoked."""
        if self._checks is not None:
            self._checks.check_soon()

    async def _issue(self, request: IssueCredential) -> IssuedCredential:
        """Return a credential for a runner, or why there is none."""
        if self._keys is None:
            return IssuedCredential(error=_NO_ACCOUNTS)
        until = time.time() + request.lifetime
        if request.worker:
            claims = WorkerClaims(request.pool, request.worker, until)
        else:
            claims = AttemptClaims(request.pool, request.run_id, request.key, request.attempt, until)
        try:
            return IssuedCredential(token=runner_tokens.encode(claims, self._secret))
        except InvalidRunnerTokenError as error:
            return IssuedCredential(error=str(error))

    async def _admit(self, token: str) -> Admission:
        """Return the permissions of the bearer of a token.

        Raises:
            RefusedCredentialError: the token is not valid.
            UnavailableError: the tokens, or the log, cannot be read now.
        """
        if token.startswith(runner_tokens.PREFIX):
            admitted = await self._admit_runner(token)
        else:
            admitted = await self._admit_publisher(token)
        if self._checks is not None:
            self._checks.admitted()
        return admitted

    async def _admit_runner(self, token: str) -> Admission:
        try:
            claims = runner_tokens.decode(token, self._secret, time.time())
        except InvalidRunnerTokenError as error:
            raise RefusedCredentialError(str(error)) from error
        if isinstance(claims, AttemptClaims):
            subject = subjects.run(claims.run_id, f"step.{claims.key}.{claims.attempt}")
            # An attempt that was archived has neither a request nor an end in the log any more.
            requested, ended = await asyncio.gather(
                self._context.bus.last(subjects.RUNS, f"{subject}.requested.{claims.pool}"),
                self._context.bus.last(subjects.RUNS, f"{subject}.finished"),
            )
            if requested is None or ended is not None:
                raise RefusedCredentialError("the attempt has ended")
        return admission.of_runner(claims, token)

    async def _admit_publisher(self, token: str) -> Admission:
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
        return admission.of_publisher(found)

    @cached_property
    def _secret(self) -> bytes:
        """Signs the credentials of runners."""
        from penstock_adapters.nats.auth import keys  # its library takes long to import

        return keys.derived(self._keys.issuer if self._keys is not None else "", "runner tokens")
