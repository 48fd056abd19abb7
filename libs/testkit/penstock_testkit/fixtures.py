"""Pytest fixtures that start real servers; `pytest_plugins = ["penstock_testkit.fixtures"]` registers them.

A test is skipped, with the reason, only if a server's executable is not installed. A server that does not start is a
failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest

from penstock_testkit.servers.child import BinaryMissingError
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.postgres import PostgresServer
from penstock_testkit.servers.s3 import S3Server

Server = TypeVar("Server", NatsServer, S3Server, PostgresServer)


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server for the tests of one module. A test that kills it restarts it."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield from _running(server)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server for all tests; each test uses its own prefix."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield from _running(server)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests; each test creates its own databases."""
    yield from _running(PostgresServer())


def _running(server: Server) -> Iterator[Server]:
    try:
        server.start()
    except BinaryMissingError as missing:
        pytest.skip(str(missing))
    yield server
    server.stop()
