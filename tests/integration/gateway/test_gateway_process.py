"""The gateway as a process and embedded: start, stop, and clear start errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from gateway_platform import TOKEN, Http, Platform, running
from pydantic import SecretStr

from penstock_gateway.app import ListenError, MissingTokenError, build
from penstock_gateway.settings import GatewaySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_port_in_use_is_reported(platform: Platform) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        gateway = build(platform.context, GatewaySettings(port=port, token=SecretStr("t")))
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port} .*in use.*PENSTOCK_PORT"):
            await gateway.start()
        assert not gateway.ready()
        await gateway.stop()


async def test_a_non_local_address_is_reported(platform: Platform) -> None:
    gateway = build(platform.context, GatewaySettings(host="192.0.2.1", port=0, token=SecretStr("t")))
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):
        await gateway.start()
    await gateway.stop()


async def test_the_token_comes_from_the_state_folder(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(MissingTokenError, match="PENSTOCK_TOKEN"):
        build(platform.context, GatewaySettings(home=tmp_path))
    (tmp_path / "token").write_text("from-the-file\n")
    gateway = build(platform.context, GatewaySettings(home=tmp_path, port=0))
    await gateway.start()
    other = Http(platform)
    other.port = gateway.port
    assert (await other("GET", "/v1/runs", token="from-the-file")).status == 200
    assert (await other("GET", "/v1/runs", token=TOKEN)).status == 401
    await gateway.stop()


async def test_requests_in_progress_finish_at_stop(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        body = b'{"pipeline":"chain","inputs":{"n":1}}'
        headers = {"content-length": str(len(body)), "content-type": "application/json"}
        reader, writer = await Http(platform).open("POST", "/v1/runs", headers=headers)
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(platform.gateway.stop())
        await asyncio.sleep(0.1)
        writer.write(body)
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 202")
        writer.close()
        await asyncio.wait_for(stopping, 5)


@contextlib.asynccontextmanager
async def process(platform: Platform, **env: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """`python -m penstock_gateway` with only these environment variables."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock_gateway",
        env={"PATH": os.environ["PATH"], "PENSTOCK_HOME": str(platform.root), "PENSTOCK_LOG_FORMAT": "json"} | env,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_gateway_runs_alone(platform: Platform) -> None:
    port = free_port()
    env = {"PENSTOCK_NATS_URL": platform.server.url, "PENSTOCK_TOKEN": "alone", "PENSTOCK_PORT": str(port)}
    run_id = await platform.request()
    http = Http(platform)
    http.port = port
    async with process(platform, **env) as child:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    if (await http("GET", "/readyz", token=None)).status == 200:
                        break
                await asyncio.sleep(0.02)
        assert (await http("GET", f"/v1/runs/{run_id}", token="alone")).json()["state"] == "queued"
        child.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(child.communicate(), 10)
        assert child.returncode == 0, log.decode()


async def test_a_standalone_gateway_reports_why_it_cannot_start(platform: Platform) -> None:
    env = {"PENSTOCK_NATS_URL": platform.server.url, "PENSTOCK_TOKEN": "alone"}
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = {"PENSTOCK_PORT": str(holder.getsockname()[1])}
        async with process(platform, **env, **taken) as child:
            _, log = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == 1
    assert "cannot listen on 127.0.0.1" in log.decode()
    assert "Traceback" not in log.decode()
