"""What a run and a mapped item cost the whole platform, with real processes: CPU time of each kind of process.

    .venv/bin/python tests/bench/whole_platform.py [--runs N] [--items N] [--rounds N] [--clients N] [--other PYTHON]

The platform is the embedded default: all services in one process, each write synced, one process per step. CPU time
hardly depends on the other load of the machine; rates and latencies do. `accept_…` is measured while the clients submit
runs of one no-op step and the platform already executes them; `run_…` and `item_…` are CPU milliseconds per run and
per item, until all are finished. `--other` is the interpreter of another checkout, measured in alternating rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import noop_pipelines  # noqa: E402 - beside this file
from end_to_end import tree  # noqa: E402

from penstock.client.client import Client  # noqa: E402

KINDS = ("platform", "nats", "fork_server", "steps")
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """CPU seconds of each kind of process."""

    seconds: dict[str, float]

    def per(self, before: Usage, count: int) -> dict[str, float]:
        """Milliseconds since `before` for each of `count`."""
        return {kind: (self.seconds[kind] - before.seconds[kind]) / count * 1e3 for kind in KINDS}


def usage(pid: int) -> Usage:
    """CPU time of the processes of a platform; that of steps is what their fork servers have reaped."""
    found: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for process in tree(pid):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            parent, *times = _times(process)
        except OSError:
            continue
        own, reaped = sum(times[:2]) / TICK, sum(times[2:]) / TICK
        if process == pid:
            found["platform"] += own
        elif b"nats-server" in command:
            found["nats"] += own
        elif b"penstock.runner.forkserver" in command and parent == pid:
            found["fork_server"] += own
            found["steps"] += reaped
    return Usage(found)


def _times(pid: int) -> list[int]:
    """Parent, and CPU ticks: user, system, and both of reaped children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [int(fields[1]), *map(int, fields[11:15])]


class Platform:
    """A platform of its own."""

    def __init__(self, python: str, home: Path, profile: str | None = None) -> None:
        home.mkdir()
        self.home = home
        command = [python, *(["-m", "cProfile", "-o", profile] if profile else []), "-m", "penstock_standalone"]
        self.process = subprocess.Popen(
            [*command, "--home", str(home)],
            stdout=subprocess.DEVNULL,
            stderr=(home / "platform.log").open("wb"),
        )
        self.measured: dict[str, list[float]] = {}
        self.latencies: list[float] = []

    def open(self) -> None:
        """Wait until it is up, register the pipelines and start the fork server."""
        deadline = time.monotonic() + 60
        while not (self.home / "platform.json").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the platform did not start: {(self.home / 'platform.log').read_text()[-2000:]}")
            time.sleep(0.02)
        self.client = Client(home=self.home)
        for pipeline in (noop_pipelines.one, noop_pipelines.mapped):
            self.client.pipelines.register(pipeline)
        self.client.runs.wait(self.client.run("one", {"x": 0}).run_id, timeout=120)

    def add(self, **values: float) -> None:
        """Keep figures of a round."""
        for name, value in values.items():
            self.measured.setdefault(name, []).append(value)

    def close(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@dataclass
class Submitter:
    """Submits runs over HTTP, each client the next one when the last one was accepted."""

    platform: Platform
    left: Iterator[int]
    latencies: list[float] = field(default_factory=list[float])

    async def client(self) -> None:
        """Be one client."""
        port = int(json.loads((self.platform.home / "platform.json").read_text())["url"].rpartition(":")[2])
        token = (self.platform.home / "token").read_text().strip()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in self.left:
            body = json.dumps({"pipeline": "one", "inputs": {"x": number}}).encode()
            head = (
                f"POST /v1/runs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            began = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            text = await reader.readexactly(length)
            self.latencies.append(time.perf_counter() - began)
            if b" 202 " not in answer.partition(b"\r\n")[0]:
                raise SystemExit(f"refused: {answer.decode()}{text.decode()}")
        writer.close()

    async def all(self, clients: int) -> None:
        """Submit all."""
        await asyncio.gather(*(self.client() for _ in range(clients)))


def runs_round(platform: Platform, runs: int, clients: int) -> None:
    """Submit runs and wait until all are finished."""
    before, began = usage(platform.process.pid), time.perf_counter()
    submitter = Submitter(platform, iter(range(runs)))
    asyncio.run(submitter.all(clients))
    accepted = time.perf_counter() - began
    while any(page := list(platform.client.runs.list(state=state, limit=1)) for state in ("running", "queued")):
        assert page
        time.sleep(0.2)
    took = time.perf_counter() - began
    costs = usage(platform.process.pid).per(before, runs)
    platform.latencies += submitter.latencies
    platform.add(accept_per_s=runs / accepted, runs_per_s=runs / took)
    platform.add(**{f"run_{kind}_cpu_ms": cost for kind, cost in costs.items()}, run_cpu_ms=sum(costs.values()))


def items_round(platform: Platform, items: int) -> None:
    """One run of a mapped step."""
    before, began = usage(platform.process.pid), time.perf_counter()
    run_id = platform.client.run("mapped", {"items": items}).run_id
    while platform.client.runs.get(run_id).state not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.25)
    took = time.perf_counter() - began
    costs = usage(platform.process.pid).per(before, items)
    platform.add(items_per_s=items / took)
    platform.add(**{f"item_{kind}_cpu_ms": cost for kind, cost in costs.items()}, item_cpu_ms=sum(costs.values()))


@contextmanager
def platforms(options: argparse.Namespace) -> Generator[dict[str, Platform]]:
    """All platforms that are measured, by the prefix of their figures."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    pythons = {"": sys.executable, **({"other_": options.other} if options.other else {})}
    started = {
        name: Platform(python, folder / (name or "this"), None if name else options.profile)
        for name, python in pythons.items()
    }
    try:
        for platform in started.values():
            platform.open()
        yield started
    finally:
        for platform in started.values():
            platform.close()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="runs of each round")
    parser.add_argument("--items", type=int, default=1000, help="items of the mapped run of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--profile", help="write a cProfile of the platform's process to this file")
    parser.add_argument("--other", help="interpreter of another checkout, to be measured in the same run")
    options = parser.parse_args()
    results: dict[str, float] = {"load": os.getloadavg()[0]}
    with platforms(options) as started:
        for _ in range(options.rounds):
            for platform in started.values():
                if options.runs:
                    runs_round(platform, options.runs, options.clients)
                if options.items:
                    items_round(platform, options.items)
        for name, platform in started.items():
            results |= {f"{name}{key}": statistics.median(values) for key, values in platform.measured.items()}
            if ordered := sorted(platform.latencies):
                results[f"{name}accept_ms_p50"] = ordered[len(ordered) // 2] * 1e3
                results[f"{name}accept_ms_p99"] = ordered[int(len(ordered) * 0.99)] * 1e3
    width = max(map(len, results))
    targets = {"accept_per_s": ">= 500", "accept_ms_p99": "<= 50", "items_per_s": ">= 400", "item_cpu_ms": "<= 5"}
    for name, value in results.items():
        print(f"{name:<{width}}  {value:>10.2f}  {targets.get(name, '')}")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


if __name__ == "__main__":
    main()
