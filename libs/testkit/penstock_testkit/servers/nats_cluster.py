"""Three real nats-servers in one cluster, with the accounts of a platform; each can be killed and restarted."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from pathlib import Path

import nats
import orjson

from penstock_testkit.servers.nats import NatsServer, accounts
from penstock_testkit.servers.ports import free_ports


class NatsCluster:
    """A cluster on loopback. Servers are numbered from 0; a restarted one keeps its ports and store."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        self.accounts = accounts()
        chosen = free_ports(2 * size)
        ports, self._monitor = chosen[:size], chosen[size:]
        joined = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.servers = [
            NatsServer(
                folder / f"n{n}",
                credentials=self.accounts.credentials,
                options=(
                    f"server_name: n{n}\n"
                    f"http: 127.0.0.1:{self._monitor[n]}\n"
                    f"{self.accounts.options}"
                    f"cluster {{ name: test, listen: 127.0.0.1:{ports[n]}, routes: [{joined}] }}\n"
                ),
            )
            for n in range(size)
        ]

    @property
    def url(self) -> str:
        """URLs of all servers, separated by commas; only the first one has the credentials."""
        first, *others = self.urls
        return ",".join([first, *(url.replace(f"{self.accounts.credentials}@", "") for url in others)])

    @property
    def urls(self) -> list[str]:
        """URLs of all servers, each with the credentials, as the client library wants them."""
        return [server.url for server in self.servers]

    @property
    def addresses(self) -> list[str]:
        """URLs of all servers without credentials."""
        return [f"nats://{url.rpartition('@')[2]}" for url in self.urls]

    @property
    def pid(self) -> int:
        """Process id of the first server."""
        return self.servers[0].pid

    def start(self) -> None:
        """Start all and wait until JetStream works on each."""
        for server in self.servers:
            server.start()
        for n in range(len(self.servers)):
            self.wait_healthy(n)

    def kill(self, n: int = 0) -> None:
        """Kill -9 one server."""
        self.servers[n].kill()

    def restart(self, n: int = 0) -> None:
        """Restart one server, and wait until its streams are complete again."""
        self.servers[n].restart()
        self.wait_healthy(n)

    def stop(self) -> None:
        """Stop all gracefully."""
        for server in self.servers:
            server.stop()

    def wait_healthy(self, n: int, timeout: float = 60.0) -> None:
        """Wait until a server has caught up with the others."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor[n]}/healthz", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"nats-server n{n} was not healthy within {timeout:.0f} s: {error}") from error
            time.sleep(0.05)

    def leader(self, stream: str) -> int:
        """Number of the server that leads a stream."""

        async def ask() -> int:
            connection = await nats.connect(self.urls)
            try:
                while True:
                    info = orjson.loads((await connection.request(f"$JS.API.STREAM.INFO.{stream}", timeout=5)).data)
                    if leader := info.get("cluster", {}).get("leader"):
                        return int(leader.removeprefix("n"))
                    await asyncio.sleep(0.1)
            finally:
                await connection.close()

        return asyncio.run(asyncio.wait_for(ask(), 30))
