"""Orchestration through `penstock run FILE --json` on the embedded platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import Client

PENSTOCK = str(Path(sys.executable).parent / "penstock")

SOURCE = """
import os
import time
from pathlib import Path

from penstock import on_exit, on_failure, one_of, otherwise, pipeline, run_pipeline, sleep, step, when


@step
def double(x: int) -> int:
    return 2 * x


@step
def fails_for(x: int, bad: int) -> int:
    if x == bad:
        raise ValueError(f"{x} is bad")
    return x


@step
def listed(values: list[int | None]) -> list[int | None]:
    return values


@step
def says(word: str | None) -> str:
    return str(word)


@pipeline
def fanned(bad: int = 7):
    items = double.map(range(12))
    return listed(fails_for.partial(bad=bad).with_options(min_success=0.9, window=5).map(x=items))


@pipeline
def branches(x: int = 1):
    twice = double(x).after(sleep(0.2))
    with when(twice > 10):
        large = says("large")
    with otherwise():
        small = says("small")
    with on_failure() as failure:
        says.with_options(name="failed")(failure.error)
    with on_exit() as ending:
        says.with_options(name="ended")(ending.outcome)
    return one_of(large, small)


@step
def lingers(marker: str) -> int:
    Path(marker).write_text(str(os.getpid()))
    time.sleep(60)
    return 1


@pipeline
def child(marker: str):
    return lingers(marker)


@pipeline
def parent(marker: str):
    answer = run_pipeline("child", marker=marker)
    with on_exit() as ending:
        says.with_options(name="ended")(ending.outcome)
    return answer


@pipeline(deadline="2s")
def late(marker: str):
    answer = lingers(marker)
    with on_exit() as ending:
        says.with_options(name="ended")(ending.error)
    return answer


@step
def total(values: list[int]) -> int:
    return sum(values)


@pipeline
def wide(n: int = 2000):
    return total(double.map(x=counted(n)))


@step
def counted(n: int) -> list[int]:
    return list(range(n))


@step
def interval(x: int) -> list[float]:
    begun = time.time()
    time.sleep(0.1)
    return [begun, time.time()]


@pipeline
def limited():
    return interval.with_options(concurrency="licence:2").map([1, 2, 3, 4, 5, 6])
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "orchestrated.py"
    path.write_text(SOURCE)
    return path


def run(source: Path, pipeline: str, *params: str, code: int = 0) -> dict[str, Any]:
    """The JSON of a run."""
    command = [PENSTOCK, "run", f"{source}:{pipeline}", "--json"]
    command += [word for param in params for word in ("-p", param)]
    env = environment(source)
    done = subprocess.run(command, cwd=source.parent, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def states(ended: dict[str, Any]) -> dict[str, str]:
    return {key: step["state"] for key, step in ended["steps"].items() if "[" not in key}


def test_items_keep_their_order_and_are_listed_as_steps(source: Path) -> None:
    ended = run(source, "fanned", "bad=6")
    assert ended["outputs"]["result"] == [0, 2, 4, None, *range(8, 24, 2)]
    assert states(ended) == {"double": "succeeded", "fails_for": "succeeded", "listed": "succeeded"}
    items = {key: step["state"] for key, step in ended["steps"].items() if key.startswith("fails_for[")}
    assert items == {f"fails_for[{n}]": "failed" if n == 3 else "succeeded" for n in range(12)}


@pytest.mark.parametrize(("x", "word"), [(1, "small"), (20, "large")])
def test_branches_and_exit_handlers(source: Path, x: int, word: str) -> None:
    ended = run(source, "branches", f"x={x}")
    assert ended["outputs"]["result"] == word
    found = states(ended)
    assert sorted(found[key] for key in ("says", "says-2")) == ["skipped", "succeeded"]
    assert (found["sleep"], found["failed"], found["ended"]) == ("succeeded", "skipped", "succeeded")


def test_limits_are_never_exceeded(source: Path) -> None:
    intervals = run(source, "limited")["outputs"]["result"]
    for begun, _ in intervals:
        assert sum(start <= begun < end for start, end in intervals) <= 2


def test_a_run_past_its_deadline_fails_and_its_processes_stop(source: Path, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    ended = run(source, "late", f"marker={marker}", code=1)
    assert (ended["state"], ended["error"]) == ("failed", "the run did not finish by its deadline")
    assert states(ended) == {"lingers": "cancelled", "ended": "succeeded"}
    if marker.exists():  # on a busy machine it may not have started yet
        gone(int(marker.read_text()))


def test_cancelling_a_run_cancels_its_child_run_and_then_runs_exit_steps(source: Path, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    up = subprocess.Popen(
        [PENSTOCK, "up"], env=environment(source), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        client = connected(source)
        client.pipelines.register(f"{source}:child")
        begun = client.run(client.pipelines.register(f"{source}:parent"), {"marker": str(marker)})
        wait_for(marker.exists)
        client.runs.cancel(begun.run_id, "enough")
        ended = client.runs.wait(begun.run_id, timeout=60)
        assert ended.state == "cancelled"
        assert ended.steps["child"].state == "cancelled"
        assert ended.steps["ended"].outputs["result"] == {"value": "cancelled"}
        (other,) = client.runs.list(pipeline="child")
        assert client.runs.wait(other.run_id, timeout=60).state == "cancelled"
        gone(int(marker.read_text()))
    finally:
        up.terminate()
        up.wait(30)


@pytest.mark.slow
def test_a_mapped_step_with_two_thousand_items(source: Path) -> None:
    ended = run(source, "wide", "n=2000")
    assert ended["outputs"]["result"] == sum(2 * x for x in range(2000))
    assert states(ended) == {"counted": "succeeded", "double": "succeeded", "total": "succeeded"}


def connected(source: Path) -> Client:
    """A client of the platform that is coming up."""
    state = source.parent / "home"
    wait_for((state / "platform.json").exists)
    return Client(home=state)


def environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PENSTOCK_HOME": str(source.parent / "home")}


def wait_for(there: Callable[[], bool], timeout: float = 60.0) -> None:
    until = time.monotonic() + timeout
    while not there():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def gone(pid: int) -> None:
    """Wait until a process has exited."""
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
