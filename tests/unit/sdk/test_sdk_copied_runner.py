"""The runner in an image that has none: copied into a volume, it starts with any Python, and hides its libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from penstock.runner.pod import copy_runner

CODE = """
import os, sys
sys.argv[1:] = []
from penstock.runner.pod import __main__ as runner
from penstock_core import pod_protocol
import nats
pod_protocol.RUNNER_LIBRARIES = os.environ["PYTHONPATH"].split(":")[1]
assert runner.main() == 2  # it is no pod
print(os.environ["PYTHONPATH"], penstock.__file__ if "penstock" in globals() else "")
"""


def test_a_copied_runner_needs_nothing_else(tmp_path: Path) -> None:
    modules, libraries = tmp_path / "modules", tmp_path / "libraries"
    copy_runner.copy(modules, libraries)
    copy_runner.copy(modules, libraries)  # an init container may be started again
    assert {path.name for path in modules.iterdir()} == {"penstock", "penstock_core"}
    # -S: without the packages of this interpreter.
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", CODE],
        env={"PYTHONPATH": f"{modules}:{libraries}", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(modules)
    assert "is missing or invalid" in done.stderr
