"""The connection of a service to NATS: servers, credentials and TLS from the settings, and reconnecting.

Promise: credentials and TLS belong to the connection. They are used with every server of a cluster, also with those
that the client learns of from others. A connection that is lost for longer than `PENSTOCK_RECONNECT_PATIENCE`, or that
the server closes for good, ends the process, so that its supervisor restarts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import nats.errors
from faststream.nats import NatsBroker
from faststream.nats.security import (
    NatsCredentials,
    NatsNKey,
    NatsSecurity,
    NatsToken,
    NatsUserPassword,
    parse_security,
)
from nats.aio.client import Client

from penstock_adapters.nats.bus import Bus
from penstock_core.errors import PenstockError, UnavailableError
from penstock_servicekit import logs
from penstock_servicekit.settings import ServiceSettings

_TIMEOUT = 2
"""Seconds until a server must have answered each step of a connect. With more, nats-py takes the PING of a server that
waits for an authorization service for success."""

_PING_EVERY = 10
_PINGS_LOST = 2
"""A connection to a frozen server counts as lost after this many unanswered pings."""

_ERROR_LOG_INTERVAL = 10.0

T = TypeVar("T")


class ConnectionFailedError(UnavailableError):
    """NATS could not be reached at start."""


class AccessRefusedError(PenstockError):
    """NATS refuses the credentials."""


class ConnectionSettingsError(PenstockError):
    """The settings of the connection are invalid."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one NATS system, without credentials in their URLs, and how to authenticate to any of them."""

    urls: list[str]
    security: NatsSecurity
    credentials: str
    """Where the credentials come from, for error messages."""
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return ", ".join(url.partition("://")[2] for url in self.urls)


def servers(urls: str, settings: ServiceSettings | None = None) -> Servers:
    """Read the URLs of a NATS system, separated by commas, with the credentials and TLS files of `settings`.

    Raises:
        ConnectionSettingsError: a URL is invalid, credentials contradict each other, or a file cannot be read.
    """
    split = [_split(url.strip()) for url in urls.split(",") if url.strip()]
    if not split:
        raise ConnectionSettingsError("PENSTOCK_NATS_URL has no URL: use nats://HOST:4222, or several with commas")
    tls = _tls(settings, required=any(url.scheme == "tls" for url in split))
    scheme = "tls" if tls else "nats"
    clean = [f"{scheme}://{url.netloc.rpartition('@')[2]}{'' if url.port else ':4222'}" for url in split]
    in_urls = {(unquote(url.username), unquote(url.password or "")) for url in split if url.username}
    files = {
        "PENSTOCK_NATS_CREDS": settings and settings.nats_creds,
        "PENSTOCK_NATS_NKEY": settings and settings.nats_nkey,
    }
    seed = settings.nats_seed.get_secret_value().strip() if settings and settings.nats_seed else ""
    given = [name for name, path in files.items() if path] + (["PENSTOCK_NATS_SEED"] if seed else [])
    if len(in_urls) > 1:
        raise ConnectionSettingsError(
            "the URLs in PENSTOCK_NATS_URL have different credentials: give all of them the same, or only one of them"
        )
    if len(given) + len(in_urls) > 1:
        names = " and ".join([*given, *(["the credentials in PENSTOCK_NATS_URL"] if in_urls else [])])
        raise ConnectionSettingsError(f"{names} are both set: a connection has one kind of credentials")
    for name in files.keys() & set(given):
        _readable(name, files[name])
    if settings is not None and settings.nats_creds:
        security: NatsSecurity = NatsCredentials.from_file(settings.nats_creds, ssl_context=tls)
    elif settings is not None and settings.nats_nkey:
        security = NatsNKey.from_file(settings.nats_nkey, ssl_context=tls)
    elif seed:
        _check_seed(seed)
        security = NatsNKey.from_seed(seed, ssl_context=tls)
    elif in_urls:
        user, password = next(iter(in_urls))
        security = NatsUserPassword(user, password, ssl_context=tls) if password else NatsToken(user, ssl_context=tls)
    else:
        security = NatsSecurity(ssl_context=tls)
    return Servers(clean, security, given[0] if given else "PENSTOCK_NATS_URL", tls)


@dataclass(slots=True)
class _Watch:
    """Follows the state of a connection; `failed` is set when it does not come back."""

    name: str
    failed: asyncio.Future[str]
    patience: float
    bus: Bus | None = None
    timer: asyncio.TimerHandle | None = None
    errors: list[Exception] = field(default_factory=list[Exception])
    logged: float = 0.0

    async def error(self, error: Exception) -> None:
        self.errors[:] = [*self.errors[-5:], error]
        now = asyncio.get_running_loop().time()
        if self.timer is not None and now - self.logged > _ERROR_LOG_INTERVAL:
            self.logged = now
            logs.get(self.name).warning("cannot reconnect to NATS, will be retried", error=text(error))

    async def disconnected(self) -> None:
        if self.bus is not None:
            self.bus.disconnected()
        if not self.failed.done() and self.timer is None:
            logs.get(self.name).warning("connection to NATS lost")
            self.timer = asyncio.get_running_loop().call_later(self.patience, self.give_up)

    async def reconnected(self) -> None:
        logs.get(self.name).info("reconnected to NATS")
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.bus is not None:
            self.bus.reconnected()

    async def closed(self) -> None:
        self.end(f"NATS closed the connection for good{self.last_error()}")

    def give_up(self) -> None:
        self.end(f"no connection to NATS for {self.patience:g} s{self.last_error()}")

    def last_error(self) -> str:
        return f": {text(self.errors[-1])}" if self.errors else ""

    def end(self, why: str) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.failed.done():
            self.failed.set_result(why)


async def connect(
    where: Servers, name: str, failed: asyncio.Future[str], patience: float = 300.0
) -> tuple[NatsBroker, Bus]:
    """Connect to NATS, and reconnect whenever the connection is lost.

    Args:
        where: the servers.
        name: name of the connection, as the server shows it.
        failed: set to the reason when the connection is closed for good, or not restored within `patience` seconds.
        patience: see `failed`.

    Raises:
        ConnectionFailedError: no server can be reached.
        AccessRefusedError: they refuse the credentials.
    """
    watch = _Watch(name, failed, patience)
    broker = NatsBroker(
        where.urls,
        security=where.security,
        name=f"penstock-{name}",
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType] - seconds; the library only sleeps them
        connect_timeout=_TIMEOUT,
        ping_interval=_PING_EVERY,
        max_outstanding_pings=_PINGS_LOST,
        pending_size=64 * 1024 * 1024,
        error_cb=watch.error,
        reconnected_cb=watch.reconnected,
        disconnected_cb=watch.disconnected,
        closed_cb=watch.closed,
        logger=None,
    )
    try:
        # A connection that reconnects forever also retries its first connect forever, whatever the error. So another
        # connection, which does not, tries the servers and the credentials first.
        async with asyncio.timeout(20):
            await _try(where, watch)
            client = await broker.connect()
        if not client.is_connected:
            raise nats.errors.ConnectionClosedError
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
        seen = [*watch.errors, error]
        if any("authorization" in str(reason).lower() for reason in seen):
            raise AccessRefusedError(f"NATS at {where} refuses the credentials in {where.credentials}") from error
        raise ConnectionFailedError(f"NATS at {where} cannot be reached: {text(seen[0])}") from error
    watch.errors.clear()
    watch.bus = Bus(client)
    return broker, watch.bus


async def _try(where: Servers, watch: _Watch) -> None:
    client = Client()
    try:
        await client.connect(
            where.urls,
            **_without_nothing(parse_security(where.security)),
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=_TIMEOUT,
            reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType] - seconds; the library only sleeps them
            error_cb=watch.error,
        )
    finally:
        # After a failed TLS handshake, the client would wait for the other side's goodbye.
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await asyncio.wait_for(client.close(), 1)


def text(error: Exception) -> str:
    """An error in one line; some have no text of their own."""
    return str(error).removeprefix("nats: ") or type(error).__name__


def _without_nothing(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _split(url: str) -> SplitResult:
    whole = urlsplit(url if "://" in url else f"nats://{url}")
    shown = f"{whole.scheme}://{whole.netloc.rpartition('@')[2]}"
    try:
        valid = whole.scheme in ("nats", "tls") and bool(whole.hostname) and (whole.port is None or whole.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ConnectionSettingsError(
            f"{shown!r} in PENSTOCK_NATS_URL is not the URL of a NATS server: nats://HOST:4222"
        )
    return whole


def _tls(settings: ServiceSettings | None, *, required: bool) -> ssl.SSLContext | None:
    ca, cert, key = (settings.nats_ca, settings.nats_cert, settings.nats_key) if settings else (None, None, None)
    if not (required or ca or cert or key):
        return None
    if bool(cert) != bool(key):
        raise ConnectionSettingsError("PENSTOCK_NATS_CERT and PENSTOCK_NATS_KEY belong together: set both or none")
    context = _load("PENSTOCK_NATS_CA", ca, lambda: ssl.create_default_context(cafile=ca))
    if cert and key:
        _load("PENSTOCK_NATS_CERT and PENSTOCK_NATS_KEY", cert, lambda: context.load_cert_chain(cert, key))
    return context


def _load(name: str, path: Path | None, load: Callable[[], T]) -> T:
    try:
        return load()
    except (OSError, ValueError) as error:
        raise ConnectionSettingsError(f"{name}: {path} cannot be used: {error}") from error


def _check_seed(seed: str) -> None:
    from penstock_adapters.nats.auth import keys  # its library takes long to import

    try:
        keys.public(seed)
    except keys.InvalidSeedError as error:
        raise ConnectionSettingsError("PENSTOCK_NATS_SEED is not the seed of an nkey, which begins with SU") from error


def _readable(name: str, path: Path | None) -> None:
    try:
        assert path is not None  # noqa: S101 - only set ones are checked
        path.read_bytes()
    except OSError as error:
        raise ConnectionSettingsError(f"{name}: {path} cannot be read: {error.strerror}") from error
