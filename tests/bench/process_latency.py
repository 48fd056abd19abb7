"""Latency of the process executor: from `start()` to the user's function, and from its end to `finished`.

    .venv/bin/python tests/bench/process_latency.py [--count N]

Prints one JSON object. `start_to_function` and `end_to_finished` are milliseconds (median, p95) of attempts one after
another; `per_second` counts no-op attempts with 1, 2 and 8 at a time; `first` is the time from a cold start. `light` is
a module that imports nothing, `heavy` one that imports pandas and scikit-learn. `limit` is a bare fork and wait of a
process of that size, with nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from penstock_adapters.process import AttemptEnvironment, ProcessExecutor
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, AttemptStarted
from penstock_core.pipeline.values import Inline
from penstock_core.shipping.messages import Message

STEP = "\n\ndef noop(value: int) -> int:\n    return value + 1\n"
MODULES = {"light": STEP, "heavy": "import pandas\nimport sklearn.ensemble\nimport sklearn.linear_model\n" + STEP}


class Events:
    """Records when each attempt finishes."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[tuple[AttemptFinished, float]]] = {}

    def started(self, fact: AttemptStarted) -> None:
        """Ignored."""

    def publish(self, message: Message) -> None:
        """Ignored."""

    def commit(self, fact: ArtifactCommitted) -> None:
        """Ignored."""

    def finished(self, fact: AttemptFinished) -> None:
        """Wake the waiting task."""
        self.waiting.pop(fact.key).set_result((fact, time.time()))


class Bench:
    """One executor with one module."""

    def __init__(self, executor: ProcessExecutor, events: Events, module: str) -> None:
        self.executor, self.events, self.module = executor, events, module
        self.count = 0

    async def once(self) -> tuple[float, float]:
        """Run a no-op; seconds from start to function and from its end to `finished`."""
        self.count += 1
        key = f"s{self.count}"
        future = self.events.waiting[key] = asyncio.get_running_loop().create_future()
        request = AttemptRequested(
            run_id="bench", key=key, attempt=1, pool="default", project="p", pipeline="b", version=1,
            entrypoint=f"{self.module}:noop", inputs={"value": Inline(self.count)},
        )  # fmt: skip
        began = time.time()
        await self.executor.submit(request)
        fact, reported_at = await future
        assert fact.outcome == "succeeded", fact
        return fact.started_at - began, reported_at - fact.finished_at

    async def rate(self, count: int, width: int) -> float:
        """Attempts per second, `width` at a time."""
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await self.once()

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(width)))
        return round(count / (time.perf_counter() - began), 1)


def _source(folder: Path, name: str) -> Path:
    (folder / "source").mkdir()
    (folder / "source" / f"{name}.py").write_text(MODULES[name])
    return folder / "source"


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    return {
        "median": round(statistics.median(seconds) * 1e3, 3),
        "p95": round(statistics.quantiles(seconds, n=20)[18] * 1e3, 3),
    }


async def measure(name: str, count: int, pause: float) -> dict[str, Any]:
    """All numbers of one module."""
    with tempfile.TemporaryDirectory() as folder:
        source = _source(Path(folder), name)
        where = AttemptEnvironment(
            source=str(source), python=sys.executable, artifacts=f"{folder}/artifacts", environment=name
        )
        events = Events()

        async def prepare(attempt: AttemptRequested) -> AttemptEnvironment:
            return where

        executor = ProcessExecutor("bench", events, events, prepare, Path(folder))
        bench = Bench(executor, events, name)
        began = time.perf_counter()
        await bench.once()
        first = time.perf_counter() - began
        samples: list[tuple[float, float]] = []
        for _ in range(count):
            await asyncio.sleep(pause)
            samples.append(await bench.once())
        rates = {str(width): await bench.rate(count, width) for width in (1, 2, 8)}
        await executor.close()
    return {
        "first": round(first, 3),
        "start_to_function": spread([start for start, _ in samples]),
        "end_to_finished": spread([end for _, end in samples]),
        "per_second": rates,
    }


def limit(name: str, count: int) -> dict[str, float]:
    """Bare forks per second of a process that has imported the module."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        exec(MODULES[name], {})  # noqa: S102 - our own text, in a child, so that this process stays light
        began = time.perf_counter()
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        os.write(writing, str(count / (time.perf_counter() - began)).encode())
        os._exit(0)
    os.close(writing)
    rate = float(os.read(reading, 100))
    os.wait()
    os.close(reading)
    return {"forks_per_second": round(rate, 1), "fork_ms": round(1e3 / rate, 3)}


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.005, help="seconds between attempts one after another")
    parser.add_argument("--modules", nargs="*", default=list(MODULES))
    args = parser.parse_args()
    report = {
        name: {**asyncio.run(measure(name, args.count, args.pause)), "limit": limit(name, args.count)}
        for name in args.modules
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
