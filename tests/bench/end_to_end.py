"""The benchmark of the whole path on one machine, `make bench`: prints a table and, as its last line, JSON.

Every figure comes from the embedded default: durable log (`sync_interval: always`), one process per step. Absolute
times depend on the machine and its neighbours; the ratio to the limit program, taken in the same run, does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import baseline  # noqa: E402 - beside this file
import noop_pipelines  # noqa: E402

from penstock.client.client import Client  # noqa: E402


@contextmanager
def platform(home: Path) -> Iterator[tuple[Client, int]]:
    """A platform of its own, and its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock_standalone", "--home", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=(home / "platform.log").open("wb"),
    )
    try:
        deadline = time.monotonic() + 20
        while not (home / "platform.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the platform did not start: {(home / 'platform.log').read_text()[-2000:]}")
            time.sleep(0.02)
        yield Client(home=home), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def steps_of(client: Client, run_id: str) -> list[Any]:
    """The steps of a finished run by end."""
    run = client.runs.wait(run_id, timeout=600)
    if run.state != "succeeded":
        raise SystemExit(f"run {run_id} {run.state}: {run.error}")
    return sorted(run.steps.values(), key=lambda step: step.finished_at or 0.0)


def gaps(steps: list[Any]) -> list[float]:
    """Milliseconds from each end to the next start in a chain."""
    return [(b.started_at - a.finished_at) * 1e3 for a, b in itertools.pairwise(steps)]


def percentile(values: list[float], part: float) -> float:
    """The value below which `part` of `values` lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for process in found:
        found += children.get(process, [])
    return found


def pss(pids: list[int]) -> float:
    """Proportional set size of processes in MB."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1000


def chain_and_fan(client: Client, pid: int, rounds: int) -> dict[str, float]:
    """The gap in a chain of 50, steps a second in a fan-out of 100 with fan-in, memory."""
    client.pipelines.register(noop_pipelines.chain50)
    client.pipelines.register(noop_pipelines.fan100)
    steps_of(client, client.run("chain50").run_id)  # the fork server starts
    all_gaps: list[float] = []
    per_step: list[float] = []
    memory = 0.0
    for _ in range(rounds):
        run_id = client.run("chain50").run_id
        memory = max(memory, pss(tree(pid)))
        steps = steps_of(client, run_id)
        all_gaps += gaps(steps)
        per_step.append((steps[-1].finished_at - steps[0].started_at) / 49 * 1e3)
    rates: list[float] = []
    for _ in range(rounds):
        steps = steps_of(client, client.run("fan100").run_id)
        rates.append(len(steps) / (steps[-1].finished_at - min(step.started_at for step in steps)))
    return {
        "chain_gap_ms_median": statistics.median(all_gaps),
        "chain_gap_ms_p95": percentile(all_gaps, 0.95),
        "chain_step_ms": statistics.median(per_step),
        "fan_steps_per_s": statistics.median(rates),
        "platform_pss_mb": memory,
    }


def first_step(home: Path, rounds: int) -> dict[str, float]:
    """Seconds from `penstock run` typed, with no platform up, to the first step of the user's running."""
    found: list[float] = []
    memory = 0.0
    for n in range(rounds + 1):
        began = time.time()
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "penstock"), "run", f"{HERE / 'noop_pipelines.py'}:chain50", "--json"],
            env={**os.environ, "PENSTOCK_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and n == 0:
            memory = max(memory, pss([*tree(process.pid), *_platform_tree(home)]))
            time.sleep(0.1)
        out, _ = process.communicate(timeout=60)
        run = json.loads(out)
        if n:
            found.append(min(step["started_at"] for step in run["steps"].values()) - began)
    return {"first_step_s": statistics.median(found), "all_processes_pss_mb": memory}


def _platform_tree(home: Path) -> list[int]:
    try:
        return tree(int(json.loads((home / "platform.json").read_text())["pid"]))
    except (OSError, ValueError):
        return []


def growth(ends: list[float], began: float) -> float:
    """Cost of the last tenth over the cost of the first tenth."""
    tenth = len(ends) // 10
    first = ends[tenth - 1] - began
    last = ends[-1] - ends[-tenth - 1]
    return last / first


def scale(client: Client, runs: int) -> dict[str, float]:
    """Whether the cost of a step stays flat: 10,000 steps in one run, and many runs of 10 steps."""
    client.pipelines.register(noop_pipelines.grid10000)
    client.pipelines.register(noop_pipelines.chain10)
    steps = steps_of(client, client.run("grid10000").run_id)
    ends = [step.finished_at for step in steps]
    began = min(step.started_at for step in steps)
    result = {
        "one_run_steps": float(len(steps)),
        "one_run_steps_per_s": len(steps) / (ends[-1] - began),
        "one_run_last_over_first_tenth": growth(ends, began),
    }
    began = time.time()
    ids = [client.run("chain10").run_id for _ in range(runs)]
    ends = sorted(step.finished_at for run_id in ids for step in steps_of(client, run_id))
    first = min(ends)
    result |= {
        "runs": float(runs),
        "runs_steps_per_s": len(ends) / (ends[-1] - began),
        "runs_last_over_first_tenth": growth(ends, first),
    }
    return result


TARGETS = {
    "chain_gap_ms_median": "<= 4",
    "chain_gap_ms_p95": "<= 10",
    "fan_steps_per_s": ">= 200",
    "chain_over_limit": "<= 2",
    "first_step_s": "<= 1.5",
    "platform_pss_mb": "<= 250",
    "all_processes_pss_mb": "",
    "one_run_last_over_first_tenth": "<= 1.3",
    "runs_last_over_first_tenth": "<= 1.3",
}


def main() -> None:
    """Run all measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=1000, help="runs of 10 steps in the scale part")
    parser.add_argument("--only", choices=["chain", "first", "scale"], help="measure one part")
    options = parser.parse_args()
    results: dict[str, float] = {}
    home = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        if options.only in (None, "first"):
            results |= first_step(home / "first", options.rounds)
        (home / "up").mkdir()
        with platform(home / "up") as (client, pid):
            if options.only in (None, "chain"):
                results |= chain_and_fan(client, pid, options.rounds)
                results["limit_step_ms"] = statistics.median(baseline.chain() * 1e3 for _ in range(options.rounds))
                results["chain_over_limit"] = results["chain_step_ms"] / results["limit_step_ms"]
            if options.only in (None, "scale"):
                results |= scale(client, options.runs)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    width = max(map(len, results))
    for name, value in results.items():
        print(f"{name:<{width}}  {value:>10.2f}  {TARGETS.get(name, '')}")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


if __name__ == "__main__":
    main()
