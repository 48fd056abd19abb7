"""Faults in the lifecycle of a platform: a part that fails to stop, a truncated token file, a full disk."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_adapters.nats.server import EmbeddedServer
from penstock_servicekit import app
from penstock_servicekit.service_context import ServiceContext
from penstock_servicekit.settings import ServiceSettings
from penstock_standalone.state import StateFolder
from penstock_testkit.servers.nats import NatsServer


class _Part:
    def __init__(self, name: str, stopped: list[str], error: Exception | None = None) -> None:
        self._name, self._stopped, self._error = name, stopped, error

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self._stopped.append(self._name)
        if self._error is not None:
            raise self._error

    def ready(self) -> bool:
        return True


async def test_one_failing_stop_does_not_prevent_the_others() -> None:
    stopped: list[str] = []

    async def nothing() -> None:
        stopped.append("connection")

    parts: Any = {
        "first": _Part("first", stopped),
        "second": _Part("second", stopped, RuntimeError("broken")),
        "third": _Part("third", stopped),
    }
    stub: Any = SimpleNamespace(stop=nothing)
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    await app.stop(app.RunningServices(stub, stub, parts, failed, stub), 5)
    assert stopped == ["third", "second", "first", "connection"]


async def test_a_failing_loop_exits_the_process(nats_server: NatsServer) -> None:
    async def loop() -> None:
        raise RuntimeError("a fault of ours")

    class Deaf(_Part):
        async def start(self) -> None:
            context.task(loop())

    def build(given: ServiceContext) -> Deaf:
        nonlocal context
        context = given
        return Deaf("deaf", [])

    context: Any = None
    running = await app.compose(nats_server.url, ServiceSettings(), {"deaf": build})
    assert "deaf failed: RuntimeError('a fault of ours')" in await asyncio.wait_for(running.failed, 5)
    await app.stop(running, 5)


def test_a_partly_written_token_is_replaced(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    (tmp_path / "token").write_text("")
    token = state.token()
    assert len(token) > 30
    assert state.token() == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


async def test_the_server_restarts_once_its_settings_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedServer(tmp_path, fsync=False)
    await server.start()
    task = asyncio.create_task(server.supervise())
    write, tries = server._write_settings, 0  # pyright: ignore[reportPrivateUsage]

    def no_room_at_first() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write()

    monkeypatch.setattr(server, "_write_settings", no_room_at_first)
    before = server.pid
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(20):
        while tries < 3 or server.pid == before:
            await asyncio.sleep(0.02)
    assert not task.done()
    await server.stop()
    await task
