"""Secrets of steps on a platform: steps get them, and nothing that the platform writes has a value."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from penstock_adapters.nats.bus import Bus
from penstock_servicekit.nats_connection import connect, servers
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).with_name("penstock"))

VALUE = "correct-horse-battery"
PASSED = "through-the-environment"
LINE = "MIIEvQIBADANBgkqhkiG9w0B"
PEM = f"-----BEGIN KEY-----\n{LINE}\n-----END KEY-----\n"

FLOWS = """
import base64, json, os, subprocess, sys, urllib.parse
from pathlib import Path
from penstock import context, pipeline, step

WORKER = "from penstock import context; print(context().secret('db'))"

@step(secrets={"DB_PASSWORD": "secret:db", "KEY_FILE": "secret:pem#file"}, env_from=["PASSED_THROUGH"])
def use(fail: bool) -> int:
    value = os.environ["DB_PASSWORD"]
    pem = Path(os.environ["KEY_FILE"]).read_text()
    assert context().secret("db") == value and context().secret("pem") == pem
    print("password", value, repr(os.environ), os.environ["PASSED_THROUGH"])
    print(json.dumps({"password": value}), urllib.parse.quote(value), base64.b64encode(f"user:{value}".encode()))
    print(pem)
    print(subprocess.check_output([sys.executable, "-c", WORKER], text=True))
    for letter in value:
        print(letter, end="", flush=True)
    print("x" * 20000 + value + "y" * 20000)
    context().log_param("password", value)
    context().set_tag("tag", value)
    context().log_metric(f"metric {value}", 1.0)
    context().log_artifact(f"artifact {value}", {"password": value})
    context().progress(1, 2, value)
    context().checkpoint({"password": value})
    if fail:
        raise ValueError(f"cannot connect with {value}")
    return len(value)

@step(secrets=["db"])
def leak() -> str:
    return context().secret("db")

@step(secrets=["limited"])
def limited() -> None: ...

@step(secrets=["missing"])
def lacks() -> None: ...

@step
def snoop() -> bool:
    return "DB_PASSWORD" in os.environ

@pipeline
def using(fail: bool = False):
    snoop().after(use(fail))

@pipeline
def leaking():
    leak()

@pipeline
def other():
    limited()

@pipeline
def lacking():
    lacks()
"""


@dataclass
class Workspace:
    """A folder with a running platform."""

    folder: Path
    environment: dict[str, str]

    def command(self, *arguments: str, value: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.environment,
            input=value,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.command(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "flows.py").write_text(FLOWS)
    home = folder / "user"
    home.mkdir()
    environment = user_environment() | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PASSED_THROUGH": PASSED}
    environment |= {"PENSTOCK_FSYNC": "false", "PENSTOCK_PORT": "0"}
    log = (folder / "up.log").open("wb")
    with log, subprocess.Popen([PENSTOCK, "up"], cwd=folder, env=environment, stdout=log, stderr=log) as process:
        found = Workspace(folder, environment)
        try:
            # A command before that would start a platform of its own.
            while not (folder / ".penstock" / "platform.json").exists():
                assert process.poll() is None, (folder / "up.log").read_text()
                time.sleep(0.05)
            for name, value in (("db", f"{VALUE}\n"), ("pem", PEM)):
                done = found.command("secrets", "set", name, value=value)
                assert done.returncode == 0, done.stderr
            yield found
        finally:
            process.terminate()


async def _streams(url: str) -> bytes:
    """Everything in all streams and buckets of the platform: their files are compressed."""
    broker, bus = await connect(servers(url), "test", asyncio.get_running_loop().create_future())
    try:
        names = (await bus.api("STREAM.NAMES"))["streams"]
        assert len(names) > 10
        return b"".join([await _stream(bus, name) for name in names])
    finally:
        await broker.stop()


async def _stream(bus: Bus, name: str) -> bytes:
    found = await bus.read(name, ">")
    return b"\n".join(str(message.headers).encode() + message.data for message in found)


def _written(workspace: Workspace) -> dict[str, bytes]:
    """All that is written below the folder and in the streams, by place."""
    files = [path for path in workspace.folder.rglob("*") if path.is_file() and path.name != "flows.py"]
    note = json.loads((workspace.folder / ".penstock" / "platform.json").read_bytes())
    found: dict[str, bytes] = {}
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # the running platform removes files of attempts that ended
            found[str(path)] = path.read_bytes()
    return found | {"streams": asyncio.run(_streams(note["nats_url"]))}


def _leaks(workspace: Workspace) -> list[str]:
    marks = [VALUE.encode(), LINE.encode(), PASSED.encode(), b"Y29ycmVjdC1ob3JzZS"]
    return [place for place, content in _written(workspace).items() for mark in marks if mark in content]


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_that_is_written_has_the_value_of_a_secret(workspace: Workspace, fail: bool) -> None:
    done = workspace.command("run", "flows.py:using", "-p", f"fail={str(fail).lower()}", "--logs")
    shown = done.stdout + done.stderr
    assert ("succeeded" in shown) is not fail, shown
    assert done.returncode == int(fail), shown
    assert "password ***" in shown and "***" in shown
    assert VALUE not in shown and LINE not in shown and PASSED not in shown
    run_id = workspace.json("runs", "list")[0]["run_id"]
    for name, arguments in {
        "history": ("runs", "export", run_id),
        "logs": ("runs", "logs", run_id, "--metrics"),
        "show": ("runs", "show", run_id, "--json"),
    }.items():
        done = workspace.command(*arguments)
        assert done.returncode == 0, done.stderr
        (workspace.folder / f"{name}-{fail}").write_text(done.stdout + done.stderr)
    (workspace.folder / "backups").mkdir(exist_ok=True)
    backup = workspace.command("admin", "backup", str(workspace.folder / "backups" / f"of-{fail}"))
    assert backup.returncode == 0, backup.stderr
    # Artifacts and checkpoints are the step's own files: they have what it puts into them.
    leaks = [place for place in _leaks(workspace) if "/artifacts/" not in place]
    assert leaks == []
    assert b"***" in _written(workspace)["streams"]


def test_a_step_that_returns_a_secret_fails_and_says_which_output(workspace: Workspace) -> None:
    done = workspace.command("run", "flows.py:leaking")
    assert done.returncode == 1 and "the output 'result' contains the value of a secret" in done.stdout + done.stderr
    assert [place for place in _leaks(workspace) if "/artifacts/" not in place] == []


def test_a_missing_secret_fails_the_step_and_says_how_to_set_it(workspace: Workspace) -> None:
    done = workspace.command("run", "flows.py:lacking")
    shown = done.stdout + done.stderr
    assert done.returncode == 1 and "secret 'missing' does not exist in project 'default'" in shown
    assert "penstock secrets set missing" in shown


def test_a_secret_is_refused_to_other_pipelines_than_those_it_names(workspace: Workspace) -> None:
    assert workspace.command("secrets", "set", "limited", value=VALUE).returncode == 0
    assert workspace.command("secrets", "allow", "limited", "--pipeline", "using").returncode == 0
    done = workspace.command("run", "flows.py:other")
    assert done.returncode == 1 and "secret 'limited' may not be used by pipeline 'other'" in done.stdout + done.stderr


def test_the_last_use_is_shown_and_values_are_not(workspace: Workspace) -> None:
    shown = workspace.json("secrets", "show", "db")
    assert shown["last_used_by"].endswith((", step use", ", step leak")) and shown["last_used_at"] > 0
    listed = workspace.command("secrets", "list").stdout + workspace.command("secrets", "show", "db").stdout
    assert "db" in listed and VALUE not in listed


def test_a_value_is_no_argument_and_its_problems_are_named_before_a_platform_is_asked(workspace: Workspace) -> None:
    assert workspace.command("secrets", "set", "db", VALUE).returncode == 2
    done = workspace.command("secrets", "set", "db", value="abc")
    assert done.returncode == 2 and "too short" in done.stderr and "abc" not in done.stderr
    (workspace.folder / "binary").write_bytes(b"\xff\xfe" + os.urandom(8))
    done = workspace.command("secrets", "set", "db", "--file", "binary")
    assert done.returncode == 2 and "not UTF-8" in done.stderr
    assert len(workspace.json("secrets", "show", "db")["versions"]) == 1


def test_debugging_reads_secrets_from_the_terminals_variables(workspace: Workspace) -> None:
    assert workspace.command("run", "flows.py:using").returncode == 0
    run_id = workspace.json("runs", "list")[0]["run_id"]
    done = workspace.command("debug", run_id, "use")
    assert done.returncode == 2 and "PENSTOCK_SECRET_DB" in done.stderr and "as KEY_FILE" in done.stderr
    key = workspace.folder / "debug.pem"
    key.write_text(PEM)
    own = {"PENSTOCK_SECRET_DB": VALUE, "PENSTOCK_SECRET_PEM": PEM}
    done = Workspace(workspace.folder, workspace.environment | own).command("debug", run_id, "use")
    assert f"password {VALUE}" in done.stdout, done.stderr
