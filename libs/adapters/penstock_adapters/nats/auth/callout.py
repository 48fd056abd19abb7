"""The auth callout of a gateway: answers servers about the credentials of clients, and closes connections.

Promise: a client whose credential `admit` refuses is not connected; nothing of a credential is logged. While no gateway
answers, connected clients stay connected and others try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.auth.admission import Admission
from penstock_core.errors import PenstockError, UnavailableError

_SUBJECT = "$SYS.REQ.USER.AUTH"
_QUEUE = "gateway"
_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
_PAGE = 1000
_QUIET = 0.25
"""Seconds without a further answer after which all servers have answered."""

_CONNECT = 2
_ANSWER = 1.2
"""Seconds to decide: less than servers wait."""


class RefusedCredentialError(PenstockError):
    """A credential is refused, for the reason in the message, which has nothing of the credential."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection of a client: its server, its number there, and the name of its credential."""

    server: str
    number: int
    name: str


class Callout:
    """A connection in the account CALLOUT.

    Args:
        urls: the servers.
        login: options of the client for the credentials: `user` and `password`, or `nkeys_seed_str`.
        tls: for TLS.
        issuer: seed of the account key that signs answers.
        admit: returns the permissions of the bearer of a token. Raises `RefusedCredentialError`.
        log: the log of the service.
        lost: called when the connection is closed for good.
    """

    def __init__(
        self,
        urls: Sequence[str],
        login: dict[str, Any],
        tls: ssl.SSLContext | None,
        issuer: str,
        admit: Callable[[str], Awaitable[Admission]],
        log: FilteringBoundLogger,
        lost: Callable[[str], object],
    ) -> None:
        self._urls = list(urls)
        self._login = login
        self._tls = tls
        self._issuer = issuer
        self._admit = admit
        self._log = log
        self._lost = lost
        self._client = Client()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Connect and answer.

        Raises:
            UnavailableError: no server answers, or they refuse the user of the callout.
        """
        seen: list[Exception] = []

        async def failed(error: Exception) -> None:
            seen.append(error)
            del seen[:-5]

        async def closed() -> None:
            if not self._stopping:
                self._lost("NATS closed the connection of the auth callout for good")

        try:
            await self._try(failed)
            async with asyncio.timeout(20):
                await self._connect(failed, closed)
            if not self._client.is_connected:
                raise nats.errors.ConnectionClosedError
            await self._client.subscribe(_SUBJECT, queue=_QUEUE, cb=self._receive)
            await self._client.flush(_CONNECT)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            why = seen[0] if seen else error
            raise UnavailableError(
                f"NATS does not accept the auth callout: {why or type(why).__name__}. Compare "
                "PENSTOCK_NATS_ISSUER_SEED with the configuration of the servers, see `penstock admin nats-config`"
            ) from error

    async def _try(self, failed: Callable[[Exception], Awaitable[None]]) -> None:
        """Connect once: a connection that reconnects forever also retries its first connect forever."""
        client = Client()
        try:
            await client.connect(
                self._urls,
                **self._login,
                tls=self._tls,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                connect_timeout=_CONNECT,
                error_cb=failed,
            )
        finally:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await asyncio.wait_for(client.close(), 1)

    async def _connect(
        self, failed: Callable[[Exception], Awaitable[None]], closed: Callable[[], Awaitable[None]]
    ) -> None:
        await self._client.connect(
            self._urls,
            **self._login,
            tls=self._tls,
            name="penstock-callout",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType] - seconds; the library only sleeps them
            connect_timeout=_CONNECT,
            ping_interval=10,
            max_outstanding_pings=2,
            error_cb=failed,
            closed_cb=closed,
        )

    async def close(self) -> None:
        """Answer the requests that have arrived, then close the connection."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_ANSWER)
        if self._client.is_connected or self._client.is_reconnecting:
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                await asyncio.wait_for(self._client.close(), 2)

    async def _receive(self, message: Msg) -> None:
        task = asyncio.create_task(self._respond(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _respond(self, message: Msg) -> None:
        # PyNaCl takes long to import: a platform whose steps are processes, and to which nobody sends events over
        # NATS, does not need it.
        from penstock_adapters.nats.auth import user_jwt

        try:
            request = user_jwt.read(message.data)
        except user_jwt.InvalidRequestError as error:
            self._log.warning("request of the auth callout ignored", error=str(error))
            return
        try:
            async with asyncio.timeout(_ANSWER):
                answer = user_jwt.admit(request, await self._admit(request.token), self._issuer)
        except RefusedCredentialError as error:
            self._log.warning("NATS client refused", host=request.host, client=request.client, error=str(error))
            answer = user_jwt.refuse(request, str(error), self._issuer)
        except (UnavailableError, TimeoutError) as error:  # the server refuses it after its time; the client retries
            self._log.warning("NATS client not checked", host=request.host, client=request.client, error=str(error))
            return
        except Exception:
            self._log.exception("NATS client not checked", host=request.host, client=request.client)
            return
        with contextlib.suppress(nats.errors.Error, OSError):
            await message.respond(answer)

    # ------------------------------------------------------------------------------------------------ connections

    async def connections(self, account: str) -> list[Connection]:
        """Return the connections of an account on all servers that answer now."""
        found: list[Connection] = []
        offset = 0
        while True:
            pages = await self._ask_all({"acc": account, "auth": True, "limit": _PAGE, "offset": offset})
            found += [one for page in pages for one in page]
            offset += _PAGE
            if all(len(page) < _PAGE for page in pages):
                return found

    async def kick(self, connection: Connection) -> None:
        """Close a connection. The client may connect again, if its credential is accepted."""
        subject = f"$SYS.REQ.SERVER.{connection.server}.KICK"
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await self._client.request(subject, orjson.dumps({"cid": connection.number}), timeout=_CONNECT)

    async def _ask_all(self, query: dict[str, object]) -> list[list[Connection]]:
        """Return the answer of each server to a question about its connections."""
        pages: list[list[Connection]] = []
        try:
            inbox = self._client.new_inbox()
            subscription = await self._client.subscribe(inbox)
            try:
                await self._client.publish(_CONNECTIONS, orjson.dumps(query), reply=inbox)
                while True:
                    message = await subscription.next_msg(_QUIET)
                    if (answer := orjson.loads(message.data or b"{}").get("data")) is not None:
                        rows = answer.get("connections") or []
                        pages.append(
                            [
                                Connection(answer["server_id"], row["cid"], row.get("authorized_user", ""))
                                for row in rows
                            ]
                        )
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, OSError, TimeoutError):
            return pages
