"""Records the histories of this folder from runs on a real platform: `python tests/histories/record.py [NAME]...`.

Each run of `SCENARIOS` becomes `NAME.jsonl`, as `penstock runs export` writes it but for the names of the machine and
its folders, and what the API says of the run goes into `expected.json`. The recordings are what every later version
must fold to the same state: record a new scenario, but never old ones again to make a test pass.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats

from penstock import Client
from penstock.results import Run, Schedule
from penstock_adapters.nats.bus import Bus
from penstock_contracts import subjects
from penstock_testkit.cluster import Cluster

HERE = Path(__file__).parent
LIMIT = 60_000


class Recorder:
    """A platform, and what can be done to runs on it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = Client(url=cluster.url, token=cluster.token)

    def ask(self, name: str, scenario: Scenario) -> str:
        """Ask for the run of a scenario; the same name is the same run id."""
        run = self.client.run(
            scenario.pipeline or name,
            inputs=scenario.inputs,
            idempotency_key=name,
            labels={"scenario": name},
            priority=scenario.priority,
        )
        return run.run_id

    def await_event(self, run_id: str, kind: str, key: str, attempt: int = 1) -> None:
        """Return when a fact is in the log."""
        for event in self.client.events(run_id):
            if event.kind == kind and event.key == key and event.data["attempt"] == attempt:
                return
        raise AssertionError(f"run {run_id} ended without {kind} of {key}")

    def garble(self, run_id: str, tail: str) -> None:
        """Put a message that nobody can read into the log."""

        async def publish() -> None:
            connection = await nats.connect(self.cluster.nats.url)
            await Bus(connection).publish(subjects.run(run_id, tail), b"\xff")
            await connection.close()

        asyncio.run(publish())


Drive = Callable[[Recorder, str, "Scenario"], str]


def _plain(recorder: Recorder, name: str, scenario: Scenario) -> str:
    return recorder.ask(name, scenario)


def _cancel_running(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.started", "sleeps")
    recorder.client.cancel(run_id, "wrong data")
    return run_id


def _cancel_retrying(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.requested", "waits_long", attempt=2)
    recorder.client.cancel(run_id)
    return run_id


def _lost(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.started", "sleeps")
    recorder.cluster.kill("executor")
    recorder.cluster.restart("executor")
    return run_id


def _unreadable_end(recorder: Recorder, name: str, scenario: Scenario) -> str:
    run_id = recorder.ask(name, scenario)
    recorder.await_event(run_id, "attempt.started", "sleeps")
    recorder.garble(run_id, "step.sleeps.1.finished")
    return run_id


def _while_nobody_decides(act: Callable[[Recorder, str], None]) -> Drive:
    def drive(recorder: Recorder, name: str, scenario: Scenario) -> str:
        recorder.cluster.kill("scheduler")
        run_id = recorder.ask(name, scenario)
        act(recorder, run_id)
        recorder.cluster.restart("scheduler")
        return run_id

    return drive


def _cron(recorder: Recorder, name: str, scenario: Scenario) -> str:
    pipeline = scenario.pipeline or name
    schedule = Schedule(name="every-second", pipeline=pipeline, cron="* * * * * *", inputs=scenario.inputs)
    recorder.client.put_schedule(schedule)
    deadline = time.monotonic() + 20
    while True:
        ticks = [run for run in recorder.client.runs(pipeline, limit=100) if run.trigger.get("type") == "cron"]
        if ticks:
            recorder.client.delete_schedule("every-second")
            return ticks[-1].run_id
        assert time.monotonic() < deadline, "no tick came"
        time.sleep(0.05)


@dataclass(frozen=True)
class Scenario:
    """A run and how it must end: its outcome, and the steps by status with their attempts where there are several.

    `pipeline` is named where it is not the scenario's name.
    """

    outcome: str
    steps: str
    pipeline: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    priority: int = 0
    drive: Drive = _plain


SCENARIOS: dict[str, Scenario] = {
    "chain": Scenario("succeeded", "one=succeeded one-2=succeeded one-3=succeeded", inputs={"x": 40}, priority=3),
    "fan_in": Scenario("succeeded", "one=succeeded one-2=succeeded one-3=succeeded total=succeeded"),
    "wide": Scenario(
        "succeeded", " ".join(["one=succeeded", *(f"one-{n}=succeeded" for n in range(2, 25)), "total=succeeded"])
    ),
    "named_outputs": Scenario("succeeded", "split=succeeded total=succeeded total-2=succeeded"),
    "artifacts": Scenario("succeeded", "table=succeeded array=succeeded report=succeeded"),
    "file_input": Scenario("succeeded", "read=succeeded", inputs={"source": HERE / "pipelines.py"}),
    "metrics": Scenario("succeeded", "measured=succeeded"),
    "constants": Scenario("succeeded", "says=succeeded", inputs={"ratio": 0.25}),
    "options": Scenario("succeeded", "priced=succeeded"),
    "after": Scenario("succeeded", "nothing=succeeded nothing-2=succeeded says=succeeded"),
    "after_failure": Scenario("failed", "broken=failed says=skipped"),
    "empty": Scenario("succeeded", ""),
    "by_reference": Scenario("succeeded", "text=succeeded lengths=succeeded"),
    "failure": Scenario("failed", "one=succeeded broken=failed one-2=skipped total=skipped"),
    "independent_branch": Scenario(
        "failed",
        "broken=failed one=succeeded total=skipped one-2=succeeded one-3=succeeded one-4=succeeded total-2=skipped",
    ),
    "sub_pipeline": Scenario(
        "succeeded",
        "chain/one=succeeded chain/one-2=succeeded chain/one-3=succeeded one=succeeded "
        "chain-2/one=succeeded chain-2/one-2=succeeded chain-2/one-3=succeeded total=succeeded",
    ),
    "sub_pipeline_failure": Scenario(
        "failed",
        "failure/one=succeeded failure/broken=failed failure/one-2=skipped failure/total=skipped one=skipped",
    ),
    "retries": Scenario("succeeded", "shaky=succeeded*3 one=succeeded"),
    "retries_exhausted": Scenario("failed", "hopeless=failed*3 one=skipped"),
    "retry_on_others": Scenario("failed", "picky=failed"),
    "timeout": Scenario("failed", "endless=failed one=skipped"),
    "timeout_then_success": Scenario("succeeded", "slow_at_first=succeeded*2"),
    "exit_code": Scenario("failed", "exits=failed one=skipped"),
    "killed": Scenario("failed", "shot=failed one=skipped"),
    "out_of_memory": Scenario("failed", "greedy=failed one=skipped"),
    "cancel_running": Scenario(
        "cancelled", "one=succeeded sleeps=cancelled one-2=cancelled", "sleeping", drive=_cancel_running
    ),
    "cancel_before_start": Scenario(
        "cancelled",
        "one=cancelled sleeps=cancelled one-2=cancelled",
        "sleeping",
        drive=_while_nobody_decides(lambda recorder, run_id: recorder.client.cancel(run_id, "not today")),
    ),
    "cancel_retrying": Scenario(
        "cancelled", "waits_long=cancelled*2 one=cancelled", "retrying", drive=_cancel_retrying
    ),
    "lost": Scenario("succeeded", "one=succeeded sleeps=succeeded*2 one-2=succeeded", "sleeping", drive=_lost),
    "unreadable_end": Scenario(
        "succeeded", "one=succeeded sleeps=succeeded*2 one-2=succeeded", "sleeping", drive=_unreadable_end
    ),
    "unreadable_early_end": Scenario(
        "succeeded",
        "one=succeeded one-2=succeeded*2 one-3=succeeded",
        "chain",
        drive=_while_nobody_decides(lambda recorder, run_id: recorder.garble(run_id, "step.one-2.1.finished")),
    ),
    "unreadable_request": Scenario(
        "succeeded",
        "one=succeeded*2 one-2=succeeded one-3=succeeded",
        "chain",
        drive=_while_nobody_decides(lambda recorder, run_id: recorder.garble(run_id, "step.one.1.requested.default")),
    ),
    "unreadable_skip": Scenario(
        "failed",
        "one=succeeded one-2=skipped one-3=skipped",
        "chain",
        drive=_while_nobody_decides(lambda recorder, run_id: recorder.garble(run_id, "step.one-2.skipped")),
    ),
    "cron": Scenario("succeeded", "one=succeeded one-2=succeeded one-3=succeeded", "chain", {"x": 7}, drive=_cron),
}


def expectation(run: Run) -> dict[str, Any]:
    """What the platform says of a run that is over."""
    steps = {
        key: {
            "status": step.state,
            "attempts": step.attempts,
            "reason": step.reason,
            "error": [step.error.type, step.error.message] if step.error else None,
            "outputs": step.outputs,
            "artifacts": step.artifacts,
            "metrics": step.metrics,
            "params": step.params,
        }
        for key, step in run.steps.items()
    }
    return {"outcome": run.state, "error": run.error, "outputs": run.outputs, "steps": steps}


def summary(run: Run) -> str:
    """Statuses and attempts as a scenario writes them."""
    return " ".join(
        f"{key}={step.state}{f'*{step.attempts}' if step.attempts > 1 else ''}" for key, step in run.steps.items()
    )


def record(cluster: Cluster, names: list[str], folder: Path) -> dict[str, Any]:
    """Run scenarios, export their histories into `folder`, and return what is expected of them."""
    recorder = Recorder(cluster)
    for pipeline in {SCENARIOS[name].pipeline or name for name in names}:
        recorder.client.register(f"{cluster.src / 'pipelines.py'}:{pipeline}")
    expected: dict[str, Any] = {}
    for name in names:
        scenario = SCENARIOS[name]
        run_id = scenario.drive(recorder, name, scenario)
        run = recorder.client.wait(run_id, timeout=60)
        assert (run.state, summary(run)) == (scenario.outcome, scenario.steps), f"{name}: {run} {summary(run)}"
        path = recorder.client.export(run_id, folder / f"{name}.jsonl")
        assert path.stat().st_size < LIMIT, f"{name} has {path.stat().st_size} bytes"
        expected[name] = expectation(run)
        sys.stdout.write(f"{name}: {path.stat().st_size} bytes\n")
    return expected


def main(names: list[str]) -> None:
    """Record the named scenarios, or all."""
    everything = not names
    with tempfile.TemporaryDirectory(prefix="penstock-histories-") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        with Cluster(Path(temporary) / "cluster") as cluster:
            shutil.copy(HERE / "pipelines.py", cluster.src)
            expected = record(cluster, names or list(SCENARIOS), made)

        def anonymous(text: str) -> str:
            host = socket.gethostname()
            text = text.replace(temporary, "/home/ada").replace(f'"host":"{host}"', '"host":"machine"')
            return text.replace(f"executor-{host}-", "executor-machine-")

        for path in made.iterdir():
            (HERE / path.name).write_text(anonymous(path.read_text()))
        file = HERE / "expected.json"
        known = {} if everything or not file.exists() else json.loads(file.read_text())
        text = json.dumps({**known, **json.loads(anonymous(json.dumps(expected)))}, indent=1, sort_keys=True)
        file.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
