"""A gateway on a real nats-server, with fakes of the two services it sends requests to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from gateway_platform import OPENED, Http, Platform, running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Platform]:
    """A platform for the tests of one module; each test uses its own runs."""
    async with running(tmp_path_factory.mktemp("gateway")) as platform:
        yield platform


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def connections() -> AsyncGenerator[None]:
    """Close the connections of a test."""
    yield
    while OPENED:
        writer = OPENED.pop()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
def http(platform: Platform) -> Http:
    """A client of the module's platform."""
    return Http(platform)
