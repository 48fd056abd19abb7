"""Requests to public addresses: what counts as public, and that the connection is made to the checked address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest

from penstock_adapters.public_http import (
    PublicHttp,
    RefusedAddressError,
    RequestFailedError,
    is_allowed,
    parse_networks,
)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_allowed(ipaddress.ip_address(address), [])


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_public_addresses(address: str) -> None:
    assert is_allowed(ipaddress.ip_address(address), [])


def test_allowed_networks() -> None:
    allowed = parse_networks("10.0.0.0/8, fd00::/8")
    assert is_allowed(ipaddress.ip_address("10.1.2.3"), allowed)
    assert is_allowed(ipaddress.ip_address("::ffff:10.1.2.3"), allowed)
    assert is_allowed(ipaddress.ip_address("fd00::1"), allowed)
    assert not is_allowed(ipaddress.ip_address("127.0.0.1"), allowed)
    assert parse_networks("") == []
    with pytest.raises(ValueError, match="does not appear"):
        parse_networks("example.com")


async def answering(answer: bytes) -> tuple[asyncio.Server, int, list[bytes]]:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], seen


def test_a_name_that_resolves_to_this_machine_is_refused_before_a_connection() -> None:
    async def run() -> list[bytes]:
        server, port, seen = await answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        async with server:
            for host in ("localhost", "127.0.0.1", "127.1", "2130706433", "[::1]"):
                with pytest.raises((RefusedAddressError, RequestFailedError)):
                    await PublicHttp().post(f"http://{host}:{port}/", {}, b"{}")
        return seen

    assert asyncio.run(run()) == []


def test_the_connection_is_made_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to another address each time (DNS rebinding) is resolved once."""
    asked: list[str] = []

    async def run() -> int:
        server, port, _ = await answering(b"HTTP/1.1 204 No Content\r\n\r\n")
        loop = asyncio.get_running_loop()

        async def resolve(host: Any, port: Any, **more: Any) -> Any:
            if host == "127.0.0.1":
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
            asked.append(host)
            found = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        async with server:
            return await PublicHttp(parse_networks("127.0.0.0/8")).post(f"http://hooks.test:{port}/", {}, b"{}")

    assert asyncio.run(run()) == 204
    assert asked == ["hooks.test"]


def test_redirects_are_not_followed() -> None:
    async def run() -> tuple[int, int]:
        other, port, seen = await answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        location = f"location: http://127.0.0.1:{port}/\r\n".encode()
        server, first, _ = await answering(b"HTTP/1.1 302 Found\r\n" + location + b"content-length: 0\r\n\r\n")
        async with server, other:
            status = await PublicHttp(parse_networks("127.0.0.0/8")).post(f"http://127.0.0.1:{first}/", {}, b"{}")
        return status, len(seen)

    assert asyncio.run(run()) == (302, 0)


def test_servers_that_do_not_answer_properly() -> None:
    async def run(answer: bytes) -> None:
        server, port, _ = await answering(answer)
        async with server:
            await PublicHttp(parse_networks("127.0.0.0/8"), timeout=1.0).post(f"http://127.0.0.1:{port}/", {}, b"{}")

    for answer in (b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000 + b"\r\n\r\n"):
        with pytest.raises(RequestFailedError):
            asyncio.run(run(answer))


def test_a_server_that_never_answers_ends_by_the_timeout() -> None:
    async def run() -> None:
        over, serving = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while not over.is_set():  # a byte at a time, so that no single read times out
                writer.write(b"H")
                await asyncio.sleep(0.02)
            writer.close()
            serving.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            try:
                await PublicHttp(parse_networks("127.0.0.0/8"), 0.5).post(f"http://127.0.0.1:{port}/", {}, b"{}")
            finally:
                over.set()
                await serving.wait()

    with pytest.raises(RequestFailedError, match=r"no answer within 0\.5 s"):
        asyncio.run(run())


def test_a_name_without_an_address() -> None:
    with pytest.raises(RequestFailedError, match=r"no-such-host\.invalid cannot be resolved"):
        asyncio.run(PublicHttp().post("https://no-such-host.invalid/secret-path", {}, b"{}"))
