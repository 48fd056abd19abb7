"""`penstock runs export`: its output can be replayed without a platform."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from penstock_testkit import histories

PENSTOCK = str(Path(sys.executable).parent / "penstock")
PIPELINE = """
from penstock import pipeline, step

@step
def double(x: int) -> int:
    return 2 * x

@step
def broken(x: int) -> int:
    raise ValueError("no")

@pipeline
def flow(x: int = 1):
    return double(broken(double(x)))
"""


def test_an_exported_run_can_be_replayed(tmp_path: Path) -> None:
    def penstock(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [PENSTOCK, *arguments], cwd=tmp_path, env=env, capture_output=True, timeout=60, check=False
        )

    (tmp_path / "flow.py").write_text(PIPELINE)
    assert penstock("run", "flow.py").returncode == 1
    done = penstock("runs", "export", "last", "--to", "run.jsonl")
    assert (done.returncode, done.stdout) == (0, b"run.jsonl\n"), done.stderr
    history = histories.load(tmp_path / "run.jsonl")
    assert history.states() == {"double": "succeeded", "broken": "failed", "double-2": "skipped"}
    history.check()
    done = penstock("runs", "export", "last")
    assert done.stdout == (tmp_path / "run.jsonl").read_bytes(), done.stderr
    assert penstock("runs", "export", "nothing").returncode == 2
