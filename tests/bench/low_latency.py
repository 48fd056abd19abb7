"""A low-latency endpoint compared with the same model in a bare FastAPI handler, side by side.

    .venv/bin/python tests/bench/low_latency.py [--seconds N]

Prints one JSON object. `latency_ms` are medians of requests one after another, alternating between both servers, and
the difference of the medians. `per_second` are requests per second of 16 connections, in alternating rounds, and their
ratio. `processor_ms` is the processor time of a request, of all processes of the server. `overload` has ten times as
many connections as the endpoint's queue: how many requests were answered and refused, the p99 of the answers in
milliseconds, and how many failed in another way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from penstock import Client
from penstock.client import platform
from penstock_testkit.environment import user_environment

MODEL = """
from penstock import pipeline, step
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
import numpy as np

ROWS, LABELS = load_wine(return_X_y=True)
SCALER = StandardScaler().fit(ROWS)
CLASSIFIER = LogisticRegression().fit(SCALER.transform(ROWS), LABELS)

@step
def scale(row: list[float]) -> np.ndarray:
    return SCALER.transform(np.array([row]))

@step
def classify(scaled: np.ndarray) -> dict[str, float]:
    shares = CLASSIFIER.predict_proba(scaled)[0]
    return {str(name): float(share) for name, share in enumerate(shares)}

@pipeline
def wine(row: list[float]):
    return classify(scale(row))
"""
BARE = """
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from model import classify, scale

app = FastAPI()

class Body(BaseModel):
    row: list[float]

@app.post("/predict")
async def predict(body: Body) -> dict[str, float]:
    return classify.function(scale.function(body.row))

if __name__ == "__main__":
    import sys
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""
ROW = json.dumps({"row": [14.23, 1.71, 2.43, 15.6, 127.0, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065.0]}).encode()
QUEUE = 50


class Connection:
    """A connection that sends one request again and again: it costs as little as can be."""

    def __init__(self, port: int, path: str, token: str = "") -> None:
        self._port = port
        authorization = f"authorization: Bearer {token}\r\n" if token else ""
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{authorization}content-type: application/json\r\n"
        self._request = f"{head}content-length: {len(ROW)}\r\n\r\n".encode() + ROW
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self) -> int:
        """Send the request; return the status of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.index(b"content-length:")
        await reader.readexactly(int(lower[at + 15 : lower.index(b"\r\n", at)]))
        if b"connection: close" in lower:
            writer.close()
            self._streams = None
        return int(head[9:12])


async def latency(connections: dict[str, Connection], count: int) -> dict[str, float]:
    """Medians of requests one after another, in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in connections}
    for n in range(count + 50):
        for name, one in connections.items():
            began = time.perf_counter()
            status = await one.post()
            if n >= 50:
                times[name].append((time.perf_counter() - began) * 1e3)
            assert status == 200, (name, status)
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


async def load(make: object, connections: int, seconds: float) -> tuple[Counter[int], list[float]]:
    """Statuses, and the seconds of the answers, of connections that send all the time."""
    statuses: Counter[int] = Counter()
    answers: list[float] = []
    until = time.monotonic() + seconds

    async def one() -> None:
        connection: Connection = make()  # type: ignore[operator]
        while time.monotonic() < until:
            began = time.perf_counter()
            try:
                status = await connection.post()
            except (OSError, asyncio.IncompleteReadError):
                status = 0
                connection = make()  # type: ignore[operator]
            statuses[status] += 1
            if status == 200:
                answers.append(time.perf_counter() - began)
            elif status == 429:
                await asyncio.sleep(0.05)

    await asyncio.gather(*(one() for _ in range(connections)))
    return statuses, answers


def processor_time(pids: set[int]) -> float:
    """Processor time of processes and all their descendants so far, in seconds."""
    stats: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks = int(fields[11]) + int(fields[12])
            stats[int(entry.name)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
    found = {*pids}
    while more := {pid for pid, (parent, _) in stats.items() if parent in found} - found:
        found |= more
    return sum(stats[pid][1] for pid in found if pid in stats)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def measure(bare: int, port: int, token: str, seconds: float, pids: dict[str, set[int]]) -> dict[str, object]:
    """Measure both servers."""
    makers = {
        "bare": lambda: Connection(bare, "/predict"),
        "penstock": lambda: Connection(port, "/v1/endpoints/default/wine", token),
    }
    medians = await latency({name: make() for name, make in makers.items()}, 500)
    rates: dict[str, list[float]] = {name: [] for name in makers}
    costs: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(3):
        for name, make in makers.items():
            before = processor_time(pids[name])
            statuses, _ = await load(make, 16, seconds)
            assert set(statuses) == {200}, (name, statuses)
            rates[name].append(statuses[200] / seconds)
            costs[name].append((processor_time(pids[name]) - before) * 1e3 / statuses[200])
    per_second = {name: round(statistics.median(found)) for name, found in rates.items()}
    statuses, answers = await load(makers["penstock"], 10 * QUEUE, 2 * seconds)
    overload = {
        "answered": statuses[200],
        "refused": statuses[429],
        "failed": sum(count for status, count in statuses.items() if status not in (200, 429)),
        "p99_ms": round(sorted(answers)[int(len(answers) * 0.99)] * 1e3, 1),
    }
    return {
        "latency_ms": {**medians, "difference": round(medians["penstock"] - medians["bare"], 3)},
        "per_second": {**per_second, "ratio": round(per_second["penstock"] / per_second["bare"], 2)},
        "processor_ms": {name: round(statistics.median(found), 3) for name, found in costs.items()},
        "overload": overload,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--record", type=float, default=1.0, help="share of the runs that are recorded")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "model.py").write_text(MODEL)
        (home / "bare.py").write_text(BARE)
        environment = {**user_environment(), **{name: os.environ[name] for name in ("PATH",)}}
        penstock, port = str(Path(sys.executable).parent / "penstock"), free_port()
        bare = subprocess.Popen([sys.executable, "bare.py", str(port)], cwd=home, env=environment)
        up = subprocess.Popen([penstock, "up", "--json"], cwd=home, env=environment, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while platform.find(home / ".penstock") is None:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            client = Client(home=home / ".penstock")
            client.pipelines.register(f"{home / 'model.py'}:wine")
            workers = {"min_workers": options.workers, "max_workers": options.workers, "record": options.record}
            trigger = {"kind": "endpoint", "name": "endpoint", "queue": QUEUE, **workers}
            client.deployments.apply("wine", {"pipeline": "wine", "mode": "low_latency", "triggers": [trigger]})
            client.endpoints.call("wine", json.loads(ROW))
            found = platform.find(home / ".penstock")
            assert found is not None
            token = (home / ".penstock" / "token").read_text().strip()
            where = int(found.url.rpartition(":")[2])
            pids = {"bare": {bare.pid}, "penstock": {found.pid}}
            print(json.dumps(uvloop.run(measure(port, where, token, options.seconds, pids)), indent=2))
        finally:
            bare.terminate()
            up.terminate()
            bare.wait(10)
            up.wait(30)


if __name__ == "__main__":
    main()
