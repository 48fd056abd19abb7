"""Principals on the command line: the user of a local platform, named tokens, `--mine` and `last`."""

from __future__ import annotations

import getpass
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
USER = f"user:{getpass.getuser()}"

FLOWS = """
from penstock import pipeline, run_pipeline, step


@step
def double(n: int) -> int:
    return 2 * n


@pipeline
def small(n: int = 1):
    return double(n)


@pipeline
def parent(n: int = 1):
    return run_pipeline("small", n=n)
"""


class Workspace:
    """A folder with a running platform; commands use the token of the state folder, or another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flows.py").write_text(FLOWS)
        self.environment = user_environment()
        self.environment["XDG_CACHE_HOME"] = str(folder / "cache")
        self.up: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> None:
        self.up = subprocess.Popen(
            [PENSTOCK, "up", "--json"],
            cwd=self.folder,
            # The token of the state folder takes precedence over the environment.
            env={**self.environment, "PENSTOCK_TOKEN": "something-else"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.up.stdout is not None
        self.url = json.loads("".join(iter(self.up.stdout.readline, "}\n")) + "}")["url"]

    def stop(self) -> None:
        assert self.up is not None and self.up.stdout is not None
        self.up.send_signal(signal.SIGINT)
        self.up.communicate(timeout=30)

    def call(self, *arguments: str, token: str | None = None, code: int = 0) -> str:
        named = {} if token is None else {"PENSTOCK_URL": self.url, "PENSTOCK_TOKEN": token}
        done = subprocess.run(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.environment | named,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def json(self, *arguments: str, token: str | None = None) -> Any:
        return json.loads(self.call(*arguments, "--json", token=token))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("principals"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ci(workspace: Workspace) -> str:
    """A second, named token."""
    return workspace.call("tokens", "create", "ci", "--role", "editor").strip()


def test_the_state_folders_token_acts_as_its_owner(workspace: Workspace, ci: str) -> None:
    assert workspace.call("whoami") == f"{USER}\nadmin of all projects\n"
    assert workspace.call("whoami", token=ci) == "token:ci\neditor of project default\n"
    whoami = {"principal": "token:ci", "kind": "token", "name": "ci", "roles": {"default": "editor"}}
    assert workspace.json("whoami", token=ci) == whoami
    assert workspace.json("tokens", "list")[0]["created_by"] == USER
    assert ci not in workspace.call("tokens", "list")


def test_each_principal_has_its_own_runs_and_its_own_last_run(workspace: Workspace, ci: str) -> None:
    none = workspace.call("runs", "show", "last", token=ci, code=2)
    assert "no runs of token:ci yet" in none
    mine = workspace.json("run", "flows.py:small")["run_id"]
    theirs = workspace.json("run", "flows.py:small", token=ci)["run_id"]
    assert workspace.json("runs", "show", "last")["run_id"] == mine
    shown = workspace.json("runs", "show", "last", token=ci)
    assert (shown["run_id"], shown["requested_by"]) == (theirs, "token:ci")
    assert "by      token:ci" in workspace.call("runs", "show", theirs)
    assert {run["run_id"] for run in workspace.json("runs", "list")} >= {mine, theirs}
    assert theirs not in {run["run_id"] for run in workspace.json("runs", "list", "--mine")}
    assert [run["run_id"] for run in workspace.json("runs", "list", "--mine", token=ci)] == [theirs]
    assert [run["run_id"] for run in workspace.json("runs", "list", "--requested-by", "token:ci")] == [theirs]


def test_last_never_selects_a_child_run(workspace: Workspace) -> None:
    workspace.call("register", "flows.py:small")
    run_id = workspace.json("run", "flows.py:parent")["run_id"]
    runs = Client(home=workspace.folder / ".penstock").runs
    [key] = runs.get(run_id).steps
    children = runs.list(requested_by=f"run:{run_id}/{key}")
    assert [child.pipeline for child in children] == ["small"]
    assert workspace.json("runs", "show", "last")["run_id"] == run_id


def test_a_revoked_token_is_rejected(workspace: Workspace) -> None:
    token = workspace.json("tokens", "create", "short-lived", "--role", "viewer")["token"]
    workspace.call("runs", "list", token=token)
    workspace.call("tokens", "revoke", "short-lived")
    assert "token" in workspace.call("runs", "list", token=token, code=3)


def test_a_script_that_tracks_a_run_acts_as_the_user(workspace: Workspace) -> None:
    script = "from penstock import track\nwith track('tuning') as run:\n    run.log_metric('loss', 0.5)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=workspace.folder, env=workspace.environment, check=False, text=True
    )
    assert done.returncode == 0
    shown = workspace.json("runs", "show", "last")
    assert (shown["pipeline"], shown["requested_by"]) == ("tuning", USER)
