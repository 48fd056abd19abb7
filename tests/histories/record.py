"""Records the histories of this folder from runs on a real platform: `python tests/histories/record.py [NAME]...`.

Each run of `SCENARIOS` becomes `NAME.jsonl`, as `penstock runs export` writes it except for the names of the machine
and its folders; the API's view of the run is stored in `expected.json`. Every later version must fold the recordings to
the same state: record a new scenario, but never old ones again to make a test pass.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from recorder import Recorder
from scenarios import SCENARIOS

from penstock.client.views import Run, Step
from penstock_testkit.servers.cluster import Cluster

HERE = Path(__file__).parent
LIMIT = 100_000
COUNT = "count"


def expectation(run: Run) -> dict[str, Any]:
    """Return the platform's view of a finished run."""
    steps = {key: _expected(run, step) for key, step in run.steps.items() if step.item_of is None}
    return {"outcome": run.state, "error": run.error, "outputs": run.outputs, "steps": steps}


def _expected(run: Run, step: Step) -> dict[str, Any]:
    shown = {
        "status": step.state,
        "attempts": step.attempts,
        "reason": step.reason,
        "error": [step.error.type, step.error.message] if step.error else None,
        "outputs": step.outputs,
        "artifacts": step.artifacts,
        "metrics": step.metrics,
        "params": step.params,
    }
    if step.items is not None:
        shown["count"] = step.items[COUNT]
        items = {key: item for key, item in run.steps.items() if item.item_of == step.key}
        shown["items"] = {key: _expected(run, item) for key, item in items.items()}
    return shown


def summary(run: Run) -> str:
    """Return statuses, attempts and item counts in the notation of scenarios."""
    return " ".join(
        f"{key}={step.state}{f'*{step.attempts}' if step.attempts > 1 else ''}"
        f"{f'[{step.items[COUNT]}]' if step.items else ''}"
        for key, step in run.steps.items()
        if step.item_of is None
    )


def record(cluster: Cluster, names: list[str], folder: Path) -> dict[str, Any]:
    """Run scenarios, export their histories into `folder`, and return their expected states."""
    recorder = Recorder(cluster)
    for file in ("pipelines.py", "orchestration.py"):
        shutil.copy(HERE / file, cluster.src)
    wanted = {name: SCENARIOS[name] for name in names}
    for file, pipeline in {(s.file, p) for name, s in wanted.items() for p in (*s.also, s.pipeline or name)}:
        recorder.client.pipelines.register(f"{cluster.src / file}:{pipeline}")
    expected: dict[str, Any] = {}
    for name, scenario in wanted.items():
        run_id = scenario.drive(recorder, name, scenario)
        run = recorder.client.runs.wait(run_id, timeout=90)
        assert (run.state, summary(run)) == (scenario.outcome, scenario.steps), f"{name}: {run} {summary(run)}"
        path = recorder.client.runs.export(run_id, folder / f"{name}.jsonl")
        assert path.stat().st_size < LIMIT, f"{name} has {path.stat().st_size} bytes"
        expected[name] = expectation(run)
        sys.stdout.write(f"{name}: {path.stat().st_size} bytes\n")
        sys.stdout.flush()
    return expected


def main(names: list[str]) -> None:
    """Record the named scenarios, or all."""
    everything = not names
    with tempfile.TemporaryDirectory(prefix="penstock-histories-") as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        with Cluster(Path(temporary) / "cluster") as cluster:
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
