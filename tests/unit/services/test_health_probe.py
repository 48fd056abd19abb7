"""`python -m penstock_servicekit.probe`, the health check of containers."""

from __future__ import annotations

import asyncio
import sys

import pytest

from penstock_servicekit.health import HealthServer


async def probe(port: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "penstock_servicekit.probe"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PENSTOCK_HEALTH_PORT": port, "PENSTOCK_HEALTH_HOST": "127.0.0.1"},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("ready", [True, False])
async def test_the_exit_status_is_that_of_readyz(ready: bool) -> None:
    server = HealthServer("127.0.0.1", 0, lambda: {"nats": True, "scheduler": ready})
    port = await server.start()
    status, output = await probe(str(port))
    await server.stop()
    assert status == (0 if ready else 1)
    assert '"scheduler":' in output
    status, output = await probe(str(port))
    assert status == 1 and "does not answer" in output


async def test_a_service_without_a_health_port() -> None:
    assert await probe("") == (1, "PENSTOCK_HEALTH_PORT is not set: the service has no /readyz\n")
