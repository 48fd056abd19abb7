"""On one machine, steps of every pool run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PIPELINE = """
from penstock import pipeline, step

@step(pool="gpu")
def far() -> int:
    return 1

@step
def near(x: int) -> int:
    return x + 1

@pipeline
def pools() -> int:
    return near(far())
"""


def test_steps_of_every_pool_run_on_a_standalone_platform(tmp_path: Path) -> None:
    (tmp_path / "pooled.py").write_text(PIPELINE)
    done = subprocess.run(
        [str(Path(sys.executable).parent / "penstock"), "run", "pooled.py", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"] == {"result": 2}


def test_a_step_that_no_machine_can_run_is_refused_and_named(tmp_path: Path) -> None:
    large = PIPELINE.replace("@step\n", "@step(resources=Resources(gpu=500))\n").replace(
        "import pipeline, step", "import Resources, pipeline, step"
    )
    (tmp_path / "large.py").write_text(large)
    penstock = str(Path(sys.executable).parent / "penstock")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [penstock, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = run("run", "large.py")
    assert done.returncode == 2, done.stderr
    assert "steps.near.resources: no executor of pool 'default' has 500 GPUs" in done.stderr
    assert "large.py:8" in done.stderr
