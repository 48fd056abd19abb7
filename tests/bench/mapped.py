"""One run of a step mapped over many items: items a second of one scheduler, and whether their cost stays flat.

    .venv/bin/python tests/bench/mapped.py [--items N] [--window W] [--other PYTHON] [--profile FILE]

As in `scheduler.py`, the scheduler is a process of its own and a fake executor ends attempts at once; the server does
not sync each write. The cost of an item is processor time of the scheduler and of the server. `--other` is the
interpreter of another checkout, whose scheduler is measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nats
from nats.aio.msg import Msg
from scheduler import PROJECT, STEP, FakeExecutor, cpu, prepare

from penstock_adapters.nats.buckets import versions
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.commands import EnvironmentInfo, Version
from penstock_core.facts import AttemptFinished, AttemptRequested, Outcome, RunRequested
from penstock_core.pipeline.ir import MapSpec, Node, Pipeline
from penstock_core.pipeline.values import ArtifactRef, Output, Stored
from penstock_servicekit import event_loop
from penstock_testkit.servers.nats import NatsServer


def version(window: int) -> Version:
    """A pipeline that maps a step over the stored list of another one."""
    each = Node(key="each", step="s", inputs={"x": Output("make")}, mapped=MapSpec(over=("x",), window=window))
    pipeline = Pipeline(name="mapped", steps={"s": STEP}, nodes=(Node(key="make", step="s"), each))
    return Version(
        project=PROJECT,
        name="mapped",
        version=1,
        digest="0" * 64,
        source="0" * 64,
        environment=EnvironmentInfo(digest="0" * 64, version="3"),
        pipeline=pipeline,
        registered_at=0.0,
    )


@dataclass(frozen=True)
class Sample:
    """State of the run after a tenth of the items: seconds since the start, and processor seconds used."""

    at: float
    cpu: float
    server_cpu: float


class Executor(FakeExecutor):
    """Ends the attempts of the run, and samples after each tenth."""

    def __init__(self, bus: Bus, items: int, scheduler: int, server: int) -> None:
        super().__init__(bus)
        self._items, self._scheduler, self._server = items, scheduler, server
        self._ended = -1  # the step that makes the list is no item
        self.samples = [self._sample()]

    def end(self, request: AttemptRequested) -> AttemptFinished:
        """Return the end of an attempt."""
        self._ended += 1
        if self._ended and self._ended % (self._items // 10) == 0:
            self.samples.append(self._sample())
        if request.key != "make":
            return super().end(request)
        made = ArtifactRef(sha256="0" * 64, size=1, media_type="application/jsonl", format="jsonl", items=self._items)
        return AttemptFinished(
            run_id=request.run_id, key="make", attempt=1, outcome=Outcome.SUCCEEDED, outputs={"result": Stored(made)}
        )

    def _sample(self) -> Sample:
        return Sample(time.perf_counter(), cpu(self._scheduler), cpu(self._server))


async def measure(server: NatsServer, scheduler: int, options: argparse.Namespace) -> dict[str, float]:
    """Request the run and wait until it finishes."""
    bus = Bus(await nats.connect(server.url, pending_size=64 * 1024 * 1024))
    bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
    await bucket.put(versions.key(PROJECT, "mapped", 1), versions.pack(version(options.window)))
    executor = Executor(bus, options.items, scheduler, server.pid)
    await executor.start()
    done = asyncio.Event()

    async def end_of_run(message: Msg) -> None:
        done.set()

    await bus.subscribe("runs.*.*.finished", end_of_run)
    await NatsRunLog(bus, "bench").append([RunRequested(run_id="bench", project=PROJECT, pipeline="mapped", version=1)])
    await asyncio.wait_for(done.wait(), 600)
    await executor.stop()
    await bus.client.close()
    s, items = executor.samples, options.items
    tenth = items // 10
    return {
        "mapped_items": float(items),
        "mapped_items_per_s": items / (s[-1].at - s[0].at),
        "mapped_cpu_ms_per_item": (s[-1].cpu - s[0].cpu) / items * 1e3,
        "mapped_server_cpu_ms_per_item": (s[-1].server_cpu - s[0].server_cpu) / items * 1e3,
        "mapped_cpu_last_over_second_tenth": (s[-1].cpu - s[-2].cpu) / (s[2].cpu - s[1].cpu),
        "mapped_server_cpu_last_over_second_tenth": (s[-1].server_cpu - s[-2].server_cpu)
        / (s[2].server_cpu - s[1].server_cpu),
        "mapped_first_tenth_per_s": tenth / (s[1].at - s[0].at),
        "mapped_last_tenth_per_s": tenth / (s[-1].at - s[-2].at),
        "mapped_scheduler_mb": int(Path(f"/proc/{scheduler}/statm").read_text().split()[1])
        * resource.getpagesize()
        / 2**20,
    }


def bench(python: str, options: argparse.Namespace, profile: str | None = None) -> dict[str, float]:
    """Measure the scheduler of one interpreter."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        server = NatsServer(Path(folder) / "nats")
        server.start()
        try:
            asyncio.run(prepare(server.url))
            scheduler = subprocess.Popen(
                [python, *(["-m", "cProfile", "-o", profile] if profile else []), "-m", "penstock_scheduler"],
                env={**os.environ, "PENSTOCK_NATS_URL": server.url, "PENSTOCK_HOME": folder},
                stderr=subprocess.DEVNULL,
            )
            try:
                return event_loop.run(measure(server, scheduler.pid, options))
            finally:
                scheduler.send_signal(signal.SIGTERM)
                scheduler.wait(30)
        finally:
            server.stop()


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000, help="items of the mapped step")
    parser.add_argument("--window", type=int, default=1000, help="items in flight at the same time")
    parser.add_argument("--other", help="interpreter of another checkout, to be measured in the same run")
    parser.add_argument("--profile", help="write a cProfile of the scheduler to this file")
    options = parser.parse_args()
    results = bench(sys.executable, options, options.profile)
    if options.other:
        results |= {f"other_{name}": value for name, value in bench(options.other, options).items()}
    targets = {"mapped_items_per_s": ">= 400", "mapped_cpu_last_over_second_tenth": "<= 1.3"}
    width = max(map(len, results))
    for name, value in results.items():
        print(f"{name:<{width}}  {value:>10.2f}  {targets.get(name, '')}")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


if __name__ == "__main__":
    main()
