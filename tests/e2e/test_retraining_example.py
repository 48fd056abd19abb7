"""The loop of examples/retraining, with fewer calls: from drift to a better champion, by events alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from penstock_testkit.environment import user_environment

EXAMPLE = Path(__file__).parents[2] / "examples" / "retraining"


def test_drift_leads_to_a_better_champion_without_anybody(tmp_path: Path) -> None:
    folder = tmp_path / "retraining"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "pipeline.py"
    source.write_text(source.read_text().replace("CALLS = 60", "CALLS = 40"))
    done = subprocess.run(
        [sys.executable, str(folder / "demo.py"), "--after", "20"],
        cwd=tmp_path,
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=270,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    compared = re.findall(r"watch compared 40 calls with the data of (tumours:\d): (no drift|DRIFT)", done.stdout)
    assert compared == [("tumours:1", "no drift"), ("tumours:1", "DRIFT"), ("tumours:2", "no drift")], done.stdout
    chain = re.findall(r"penstock\.[a-z.-]+v1|(?:scoring|watching|retraining) v1 \w+", done.stdout)
    assert chain == [
        "penstock.endpoint.called.v1",
        "scoring v1 succeeded",
        "penstock.run.finished.v1",
        "watching v1 succeeded",
        "penstock.drift.detected.v1",
        "retraining v1 succeeded",
        "penstock.model.promoted.v1",
        "watching v1 succeeded",
    ], done.stdout
    before, after = map(float, re.findall(r"tumours:\d ([\d.]+)% right", done.stdout.splitlines()[-1]))
    assert after > before
