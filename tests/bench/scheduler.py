"""Throughput of one scheduler: facts a second, with its server and a fake executor that ends attempts at once.

    .venv/bin/python tests/bench/scheduler.py [--runs N] [--length N] [--profile FILE]

The scheduler is a process of its own, as in production. The server does not sync each write, so that what is measured
is the scheduler and not the disk. Facts are all that the log holds at the end: those that the scheduler reads (run
requests, ends of attempts) and those that it appends (attempts, ends of runs). `cpu_ms_per_fact` is the scheduler's
own processor time; it says what one replica can carry when its neighbours leave it a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nats
from nats.aio.msg import Msg

from penstock_adapters.nats import consumer
from penstock_adapters.nats.appender import Appender
from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.buckets import versions
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery, Puller
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import fact_codec, subjects
from penstock_contracts.commands import EnvironmentInfo, Version
from penstock_core.facts import AttemptFinished, AttemptRequested, Outcome, RunRequested
from penstock_core.pipeline.ir import Node, Pipeline, Port, StepSpec
from penstock_core.pipeline.values import Inline, Output
from penstock_servicekit import event_loop
from penstock_testkit.servers.nats import NatsServer

PROJECT = "default"
STEP = StepSpec(name="s", entrypoint="m:s", inputs=(Port(name="x", required=False),), outputs=(Port(name="result"),))


def chain(length: int) -> Version:
    """A pipeline of steps one after another, each taking the result of the one before."""
    nodes = [Node(key="s-1", step="s")]
    nodes += [Node(key=f"s-{n}", step="s", inputs={"x": Output(f"s-{n - 1}", "result")}) for n in range(2, length + 1)]
    pipeline = Pipeline(
        name="chain",
        steps={"s": STEP},
        nodes=tuple(nodes),
        outputs={"result": Output(f"s-{length}", "result")},
    )
    environment = EnvironmentInfo(digest="0" * 64, version="3")
    return Version(
        project=PROJECT,
        name="chain",
        version=1,
        digest="0" * 64,
        source="0" * 64,
        environment=environment,
        pipeline=pipeline,
        registered_at=0.0,
    )


class FakeExecutor:
    """Ends every attempt at once; what arrives together is appended together."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._log = NatsRunLog(bus, "bench")
        self._appender = Appender(self._log, lambda error: None)
        self._puller = Puller(bus, subjects.RUNS, subjects.attempts_consumer("default"), self._receive)
        self._tasks: list[asyncio.Task[None]] = []
        self._acks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the service."""
        self._puller.want(1000)
        self._tasks = [asyncio.create_task(self._appender.run()), asyncio.create_task(self._puller.run())]

    async def stop(self) -> None:
        """Stop the service."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def end(self, request: AttemptRequested) -> AttemptFinished:
        """Return the end of an attempt."""
        return AttemptFinished(
            run_id=request.run_id,
            key=request.key,
            attempt=1,
            outcome=Outcome.SUCCEEDED,
            outputs={"result": Inline(request.attempt)},
        )

    def _receive(self, delivery: Delivery) -> None:
        request = fact_codec.decode(delivery.subject, delivery.data)
        assert isinstance(request, AttemptRequested)
        self._appender.submit(self.end(request))
        task = asyncio.create_task(consumer.ack(self._bus, delivery))
        self._acks.add(task)
        task.add_done_callback(self._acks.discard)


def cpu(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, pid: int, runs: int, length: int) -> dict[str, float]:
    """Request all runs at once and wait until they finish."""
    bus = Bus(await nats.connect(url, pending_size=64 * 1024 * 1024))
    log = NatsRunLog(bus, "bench")
    version = chain(length)
    await Bucket(bus, subjects.VERSIONS_BUCKET).put(versions.key(PROJECT, "chain", 1), versions.pack(version))
    executor = FakeExecutor(bus)
    await executor.start()
    ended: set[str] = set()
    done = asyncio.Event()

    async def end_of_run(message: Msg) -> None:
        ended.add(message.subject)
        if len(ended) == runs:
            done.set()

    await bus.subscribe("runs.*.*.finished", end_of_run)
    asked = [RunRequested(run_id=f"bench-{n}", project=PROJECT, pipeline="chain", version=1) for n in range(runs)]
    used, began = cpu(pid), time.perf_counter()
    await log.append(asked)
    await asyncio.wait_for(done.wait(), 300)
    seconds, used = time.perf_counter() - began, cpu(pid) - used
    facts = runs * (2 + 2 * length)
    await executor.stop()
    await bus.client.close()
    return {
        "scheduler_facts_per_s": facts / seconds,
        "scheduler_cpu_ms_per_fact": used / facts * 1e3,
        "scheduler_facts_per_cpu_s": facts / used,
        "scheduler_facts": float(facts),
    }


async def prepare(url: str) -> None:
    """Declare streams and consumers before the scheduler starts."""
    client = await nats.connect(url)
    await bootstrap(Bus(client), pools=["default"])
    await client.close()


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="runs side by side")
    parser.add_argument("--length", type=int, default=20, help="steps of each run, one after another")
    parser.add_argument("--profile", help="write a cProfile of the scheduler to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        server = NatsServer(Path(folder) / "nats")
        server.start()
        try:
            asyncio.run(prepare(server.url))
            profile = ["-m", "cProfile", "-o", options.profile] if options.profile else []
            scheduler = subprocess.Popen(
                [sys.executable, *profile, "-m", "penstock_scheduler"],
                env={**os.environ, "PENSTOCK_NATS_URL": server.url, "PENSTOCK_HOME": folder},
                stderr=subprocess.DEVNULL,
            )
            try:
                results = event_loop.run(measure(server.url, scheduler.pid, options.runs, options.length))
            finally:
                scheduler.send_signal(signal.SIGTERM)
                scheduler.wait(30)
        finally:
            server.stop()
    width = max(map(len, results))
    targets = {"scheduler_facts_per_s": ">= 3000"}
    for name, value in results.items():
        print(f"{name:<{width}}  {value:>10.2f}  {targets.get(name, '')}")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


if __name__ == "__main__":
    main()
