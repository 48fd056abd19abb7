"""A library outside of the pipeline's folder, in a relative `PYTHONPATH`, from the command to the step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import importlib

import toolbox
from penstock import pipeline, step

@step
def numbers() -> list[int]:
    hidden = importlib.import_module("not_named_here"[4:])
    return [toolbox.ONE, hidden.TWO]

@pipeline
def main() -> list[int]:
    return numbers()
"""


def test_a_relative_module_path_works(tmp_path: Path) -> None:
    library, project = tmp_path / "lib", tmp_path / "project"
    (library / "toolbox").mkdir(parents=True)
    (library / "toolbox/__init__.py").write_text("from toolbox.numbers import ONE\n")
    (library / "toolbox/numbers.py").write_text("ONE = 1\n")
    (library / "named_here.py").write_text("TWO = 2\n")  # the source does not show that it is imported
    project.mkdir()
    (project / "flows.py").write_text(FLOWS)
    done = subprocess.run(
        [PENSTOCK, "run", "flows.py", "--json"],
        cwd=project,
        env={**user_environment(), "PYTHONPATH": "../lib"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert json.loads(done.stdout)["outputs"]["result"] == [1, 2]
