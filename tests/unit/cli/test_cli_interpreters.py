"""Which interpreter `penstock debug` calls a step with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from penstock.bundle import environment_info
from penstock_cli.errors import UsageError
from penstock_cli.runs import interpreters


def interpreter(folder: Path, environment: object) -> str:
    """An executable that says it has an environment."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps({'environment': environment})}\nEND\n")
    path.chmod(0o755)
    return str(path)


def test_that_of_the_command_is_preferred() -> None:
    assert interpreters.find(environment_info(), ["/nonexistent/python"]) == sys.executable


def test_one_of_a_registrant_is_used_if_that_of_the_command_lacks_something(tmp_path: Path) -> None:
    own = environment_info()
    wanted = {**own, "packages": {**own["packages"], "no-such-package": "1.0"}}
    hint = interpreter(tmp_path, wanted)
    assert interpreters.find(wanted, ["/nonexistent/python", hint]) == hint


def test_the_error_says_what_is_missing(tmp_path: Path) -> None:
    own = environment_info()
    wanted = {**own, "packages": {**own["packages"], "no-such-package": "1.0"}}
    hint = interpreter(tmp_path, own)
    with pytest.raises(UsageError, match=r"no-such-package 1\.0 is missing.*--python PATH"):
        interpreters.find(wanted, [hint])
