"""How fast a gateway accepts runs: requests a second, latency, and processor time per request.

    .venv/bin/python tests/bench/gateway.py [--clients N] [--seconds S] [--other PYTHON] [--profile FILE]

The gateway is a process of its own, with a server that syncs each write (`sync_interval: always`) and no scheduler, so
that what is measured is accepting alone. Each client sends its next request when the response to the last one has
arrived. The limit program publishes the same number of messages with an acknowledgement, as many at the same time as
there are clients: the log without HTTP. `--other` is the interpreter of another checkout, whose gateway is measured
alternately.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import nats

from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.buckets import versions
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_contracts.commands import EnvironmentInfo, Publication, Publications, Version
from penstock_core.pipeline.ir import Node, Pipeline, Port, StepSpec
from penstock_core.pipeline.values import Param
from penstock_servicekit import event_loop
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.ports import free_ports

PROJECT, NAME, TOKEN = "default", "bench", "bench-token"
ROUND = 2.0
"""Seconds of one round; rounds of all that is measured alternate."""


def version() -> Version:
    """A pipeline of one step with one parameter."""
    step = StepSpec(name="s", entrypoint="m:s", inputs=(Port(name="x"),), outputs=(Port(name="result"),))
    pipeline = Pipeline(
        name=NAME,
        params=(Port(name="x", type="int", schema={"type": "integer"}),),
        steps={"s": step},
        nodes=(Node(key="s", step="s", inputs={"x": Param("x")}),),
    )
    return Version(
        project=PROJECT,
        name=NAME,
        version=1,
        digest="0" * 64,
        source="0" * 64,
        environment=EnvironmentInfo(digest="0" * 64, version="3"),
        pipeline=pipeline,
        registered_at=0.0,
    )


def cpu(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """What the rounds of one program gave."""

    latencies: list[float] = field(default_factory=list[float])
    rates: list[float] = field(default_factory=list[float])
    cpu: float = 0.0
    server_cpu: float = 0.0

    def results(self, name: str) -> dict[str, float]:
        """The figures."""
        ordered, count = sorted(self.latencies), len(self.latencies)
        return {
            f"{name}_per_s": statistics.median(self.rates),
            f"{name}_ms_p50": ordered[count // 2] * 1e3,
            f"{name}_ms_p99": ordered[int(count * 0.99)] * 1e3,
            f"{name}_cpu_ms": self.cpu / count * 1e3,
            f"{name}_server_cpu_ms": self.server_cpu / count * 1e3,
        }


class Gateway:
    """A gateway process, and how a client submits a run to it."""

    def __init__(self, python: str, url: str, home: Path, profile: str | None = None) -> None:
        self.port = free_ports(1)[0]
        self._requests = 0
        command = [python, *(["-m", "cProfile", "-o", profile] if profile else []), "-m", "penstock_gateway"]
        home.mkdir()
        self.process = subprocess.Popen(
            command,
            env={
                **os.environ,
                "PENSTOCK_NATS_URL": url,
                "PENSTOCK_HOME": str(home),
                "PENSTOCK_TOKEN": TOKEN,
                "PENSTOCK_PORT": str(self.port),
            },
            stderr=(home / "log").open("wb"),
        )

    async def ready(self) -> None:
        """Wait until it accepts connections."""
        for _ in range(600):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
        raise SystemExit("the gateway did not start")

    async def client(self, until: float, latencies: list[float]) -> None:
        """Submit runs until the end of the round."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while time.perf_counter() < until:
            self._requests += 1
            body = json.dumps({"pipeline": NAME, "inputs": {"x": self._requests}}).encode()
            head = (
                f"POST /v1/runs HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            began = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            text = await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
            if b" 202 " not in answer.partition(b"\r\n")[0]:
                raise SystemExit(f"refused: {answer.decode()}{text.decode()}")
        writer.close()

    def stop(self) -> None:
        """Stop the process."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


class Limit:
    """The limit program: acknowledged publishes, one for each request."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._requests = 0

    async def client(self, until: float, latencies: list[float]) -> None:
        """Publish until the end of the round."""
        while time.perf_counter() < until:
            self._requests += 1
            began = time.perf_counter()
            await self._bus.publish(f"limit.{self._requests}", b"x" * 500)
            latencies.append(time.perf_counter() - began)


async def round_of(program: Gateway | Limit, pid: int, server: int, clients: int, found: Measured) -> None:
    """One round of one program."""
    before, server_before, first = cpu(pid), cpu(server), len(found.latencies)
    began = time.perf_counter()
    await asyncio.gather(*(program.client(began + ROUND, found.latencies) for _ in range(clients)))
    found.rates.append((len(found.latencies) - first) / (time.perf_counter() - began))
    found.cpu += cpu(pid) - before
    found.server_cpu += cpu(server) - server_before


async def measure(server: NatsServer, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Measure all programs, in alternating rounds."""
    bus = Bus(await nats.connect(server.url))
    await bootstrap(bus, pools=["default"])
    await bus.api("STREAM.CREATE.LIMIT", {"name": "LIMIT", "subjects": ["limit.>"]})
    bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
    await bucket.put(versions.key(PROJECT, NAME, 1), versions.pack(version()))
    published = Publications(latest=1, versions={1: Publication(at=0.0, by="user:bench")})
    await bucket.put(versions.published_key(PROJECT, NAME), published.model_dump_json().encode())
    gateways = {"gateway": Gateway(sys.executable, server.url, folder / "gateway", options.profile)}
    if options.other:
        gateways["other"] = Gateway(options.other, server.url, folder / "other")
    try:
        for gateway in gateways.values():
            await gateway.ready()
            await gateway.client(time.perf_counter() + 0.5, [])
        programs = {name: (gateway, gateway.process.pid) for name, gateway in gateways.items()}
        everything = {**programs, "limit": (Limit(bus), os.getpid())}
        found = {name: Measured() for name in everything}
        for _ in range(max(1, round(options.seconds / ROUND))):
            for name, (program, pid) in everything.items():
                await round_of(program, pid, server.pid, options.clients, found[name])
    finally:
        for gateway in gateways.values():
            gateway.stop()
        await bus.client.close()
    results = {key: value for name, part in found.items() for key, value in part.results(name).items()}
    results["gateway_over_limit"] = results["limit_per_s"] / results["gateway_per_s"]
    return results


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help="clients at the same time")
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds of each program")
    parser.add_argument("--other", help="interpreter of another checkout, to be measured in the same run")
    parser.add_argument("--profile", help="write a cProfile of the gateway to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        server = NatsServer(Path(folder) / "nats", sync_interval="always")
        server.start()
        try:
            results = event_loop.run(measure(server, Path(folder), options))
        finally:
            server.stop()
    width = max(map(len, results))
    targets = {"gateway_per_s": ">= 500", "gateway_ms_p99": "<= 50"}
    for name, value in results.items():
        print(f"{name:<{width}}  {value:>10.2f}  {targets.get(name, '')}")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


if __name__ == "__main__":
    main()
