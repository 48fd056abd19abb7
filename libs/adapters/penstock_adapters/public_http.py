"""HTTP requests to addresses that users name: to public ones only, unless a network is allowed.

The address is checked after the name is resolved, and the connection is made to that very address, so no name can point
to another one afterwards. Redirects are not followed, proxies of the environment are not used, and the body of the
answer is not read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, cast

import httpcore2

from penstock_core.errors import PenstockError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class RefusedAddressError(PenstockError):
    """A name resolves to addresses that are not public only."""


class RequestFailedError(PenstockError):
    """The server cannot be reached, or did not answer in time."""


class PublicHttp:
    """Sends requests.

    Args:
        allowed: networks that are not public, and may be used nevertheless.
        timeout: seconds for a whole request.
    """

    def __init__(self, allowed: Sequence[Network] = (), timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._backend = _CheckedBackend(allowed)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send a request and return the status of the answer.

        Raises:
            RefusedAddressError: the server has an address that is not public.
            RequestFailedError: there is no answer. Of the URL, the message contains the host at most.
        """
        try:
            async with asyncio.timeout(self._timeout):
                async with (
                    httpcore2.AsyncConnectionPool(network_backend=self._backend, max_connections=1) as pool,
                    pool.stream("POST", url, headers=[*headers.items()], content=body) as response,
                ):
                    return response.status
        except TimeoutError as error:
            raise RequestFailedError(f"no answer within {self._timeout:g} s") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            raise RequestFailedError(f"{type(error).__name__}: {error}"[:300]) from error
        except httpcore2.UnsupportedProtocol as error:
            raise RequestFailedError("the URL must begin with https:// or http://") from error


class _CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to allowed addresses only. TLS checks the name of the URL as usual."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._network = cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        found = await self._resolve(host, port)
        refused = next((one for one in found if not is_allowed(one, self._allowed)), None)
        if refused is not None:
            raise RefusedAddressError(
                f"{host[:100]} has the address {refused}, which is not public: "
                "allow its network with PENSTOCK_NOTIFY_NETWORKS, or use another server"
            )
        problem: Exception | None = None
        for address in found:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.NetworkError, httpcore2.TimeoutException) as error:
                problem = error
        raise problem or httpcore2.ConnectError(f"{host[:100]} has no address")

    async def _resolve(self, host: str, port: int) -> list[Address]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host[:100]} cannot be resolved: {error}") from error
        return [*dict.fromkeys(ipaddress.ip_address(str(place[0]).partition("%")[0]) for *_, place in found)]


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether an address is public, or in an allowed network. IPv4 addresses within IPv6 ones count as themselves."""
    inner = _inner(address)
    if any(inner.version == network.version and inner in network for network in allowed):
        return True
    special = inner.is_multicast or inner.is_reserved or getattr(inner, "is_site_local", False)
    return inner.is_global and not special


def parse_networks(text: str) -> list[Network]:
    """Return networks such as `10.0.0.0/8,fd00::/8`.

    Raises:
        ValueError: one is not a network.
    """
    return [ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip()]


def _inner(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
