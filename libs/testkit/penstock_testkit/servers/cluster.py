"""All services as separate processes on a real nats-server; each can be killed and restarted."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nats

from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_core.pipeline.ir import Pipeline
from penstock_core.ports import Recorded
from penstock_testkit.servers.child import Child
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.nats_cluster import NatsCluster
from penstock_testkit.servers.ports import free_ports

SERVICES = ("artifacts", "builder", "scheduler", "executor", "cron", "triggers", "gateway")


class Cluster:
    """All services and a server. `url` and `token` are the gateway's; replicas are named `scheduler-2` and so on.

    Args:
        folder: the folder of state and logs.
        replicas: number of processes by service name, if more than one.
        env: additional settings of all services.
        nats: the NATS system; by default one server.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replicas: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
        nats: NatsServer | NatsCluster | None = None,
    ) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        self.src = folder / "src"
        """The folder of the pipelines of tests."""
        self.src.mkdir()
        self.token = "test-token"
        self.nats = nats or NatsServer(folder / "nats")
        self._folder = folder
        self._env = dict(env or {})
        self._port, *ports = free_ports(1 + len(SERVICES) * 4)
        self._health = iter(ports)
        self._ports: dict[str, int] = {}
        self.names = [
            name if n == 1 else f"{name}-{n}" for name in SERVICES for n in range(1, (replicas or {}).get(name, 1) + 1)
        ]
        self._children: dict[str, Child] = {}

    @property
    def url(self) -> str:
        """Address of the gateway; the same after a restart."""
        return f"http://127.0.0.1:{self._port}"

    def source(self, name: str, text: str) -> Path:
        """Write a user's file."""
        path = self.src / name
        path.write_text(text)
        return path

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        self.nats.start()
        for name in self.names:
            self.start_service(name)
        for name in self.names:
            self.wait_ready(name)

    def start_service(self, name: str) -> None:
        """Start one service without waiting for it."""
        if name not in self._ports:
            self._ports[name] = next(self._health)
        env = {
            "PENSTOCK_HOME": str(self.home),
            "PENSTOCK_NATS_URL": self.nats.url,
            "PENSTOCK_TOKEN": self.token,
            "PENSTOCK_PORT": str(self._port),
            "PENSTOCK_HEALTH_PORT": str(self._ports[name]),
            "PENSTOCK_ACK_WAIT": "1.5",
            "PENSTOCK_GRACE": "1",
            "PENSTOCK_DRAIN": "1",
            **self._env,
        }
        module = f"penstock_{name.partition('-')[0]}"
        command = [sys.executable, "-m", module]
        self._children[name] = Child(name, command, self._folder / f"{name}.log", self._folder, env)

    def wait_ready(self, name: str, timeout: float = 60.0) -> None:
        """Wait until a service reports that it is ready."""
        self._children[name].wait_until(lambda: _answer(self._ports[name]) is not None, timeout)

    def kill(self, name: str) -> None:
        """Kill -9 a service, or the server by the name `nats`."""
        (self.nats if name == "nats" else self._children[name]).kill()

    def restart(self, name: str) -> None:
        """Restart a killed service."""
        if name == "nats":
            self.nats.restart()
        else:
            self.start_service(name)

    def replace(self, name: str, env: Mapping[str, str]) -> None:
        """Stop a service gracefully, and start it with other additional settings; wait until it is ready."""
        self._children[name].stop(timeout=30)
        self._env = dict(env)
        self.start_service(name)
        self.wait_ready(name)

    def about(self, service: str, name: str | None = None) -> dict[str, Any] | None:
        """Return the status of a service's process; None if it does not answer."""
        answer = _answer(self._ports[name or service])
        return answer and answer["about"].get(service)

    def metrics(self, name: str) -> str:
        """Return what a service answers to Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports[name]}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def history(self, run_id: str, pipeline: str, version: int) -> tuple[Pipeline, list[Recorded]]:
        """Read a run's pipeline and log from the server."""

        async def read() -> tuple[Pipeline, list[Recorded]]:
            client = await nats.connect(self.nats.urls)
            bus = Bus(client)
            try:
                found = await Versions(bus).get("default", pipeline, version)
                assert found is not None
                return found.pipeline, await NatsRunLog(bus, "test").read(run_id)
            finally:
                await client.close()

        return asyncio.run(read())

    def alive(self, name: str) -> bool:
        """Whether a service's process runs."""
        return self._children[name].process.poll() is None

    def pid(self, name: str) -> int:
        """Process id of a service or of `nats`."""
        return self.nats.pid if name == "nats" else self._children[name].pid

    def wait_exit(self, name: str, timeout: float = 30.0) -> int:
        """Wait until a service's process has ended by itself; returns its exit status."""
        return self._children[name].process.wait(timeout)

    def log(self, name: str, length: int = 3000) -> str:
        """The end of a service's log."""
        return self._children[name].tail(length)

    def stop(self) -> None:
        """Stop everything gracefully, last started first."""
        for child in reversed(self._children.values()):
            child.process.terminate()
        for child in self._children.values():
            child.stop(timeout=15)
        self.nats.stop()

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _answer(port: int) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return json.load(answer)
    except OSError:
        time.sleep(0.02)
        return None
