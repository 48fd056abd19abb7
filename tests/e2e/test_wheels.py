"""The wheels in empty environments: the complete platform in one, and only the client in the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock_core.version import VERSION

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

PIPELINE = """
import sys

from penstock import pipeline, step

@step
def prefix() -> str:
    return sys.prefix

@pipeline
def where():
    return prefix()
"""

REPLAY = """
import sys

sys.modules["pytest"] = sys.modules["hypothesis"] = None
from penstock_testkit import histories

history = histories.load("run.jsonl")
history.check()
print(history.states())
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with some of the wheels, and a project folder outside the repository."""

    prefix: Path
    project: Path

    def variables(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        return {**kept, "PENSTOCK_IDLE": "0", "PATH": f"{self.prefix / 'bin'}{os.pathsep}{os.defpath}", **more}

    def call(self, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.prefix / "bin" / arguments[0]), *arguments[1:]]
        done = subprocess.run(
            command,
            cwd=self.project,
            env=self.variables(**variables),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, f"{command} ends with {done.returncode}: {done.stdout}{done.stderr}"
        return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What `make wheels` builds, without a look at whether the environment of the tests is up to date."""
    folder = tmp_path_factory.mktemp("dist")
    command = ["make", "--old-file=.venv/.installed", "wheels", f"BIN={BIN}", f"DIST={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return sorted(folder.iterdir())


def install(folder: Path, *wheels: Path) -> Environment:
    uv = str(BIN / "uv")
    prefix, project = folder / "environment", folder / "project"
    project.mkdir()
    (project / "where.py").write_text(PIPELINE)
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(prefix)], check=True, timeout=60)
    command = [uv, "pip", "install", "--quiet", "--python", str(prefix / "bin" / "python")]
    command += ["--constraint", str(ROOT / "constraints.txt"), *map(str, wheels)]
    # `make setup` has put every dependency into the cache; where the cache was emptied, the index has them.
    if subprocess.run([*command, "--offline"], check=False, capture_output=True, timeout=120).returncode:
        subprocess.run(command, check=True, timeout=300)
    return Environment(prefix, project)


@pytest.fixture(scope="module")
def whole(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = install(tmp_path_factory.mktemp("whole"), *wheels)
    # uv compiles no modules. Do it here, where a busy machine may take its time: a platform has 20 seconds to start.
    environment.call("python", "-c", "import penstock_standalone.main")
    return environment


@pytest.fixture(scope="module")
def client(wheels: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return install(tmp_path_factory.mktemp("client"), wheels[0])


@pytest.fixture
def platform(whole: Environment) -> Iterator[dict[str, str]]:
    """A platform that `penstock up` of the whole environment runs: its address and state folder."""
    process = subprocess.Popen(
        [str(whole.prefix / "bin" / "penstock"), "up", "--json"],
        cwd=whole.project,
        env=whole.variables(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def test_two_wheels_contain_all_packages_once(wheels: list[Path]) -> None:
    assert [wheel.name.split("-")[:2] for wheel in wheels] == [["penstock", VERSION], ["penstock_platform", VERSION]]
    tops = [{name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()} for wheel in wheels]
    assert tops[0] == {"penstock", "penstock_cli", "penstock_core", f"penstock-{VERSION}.dist-info"}
    assert not tops[0] & tops[1]
    with zipfile.ZipFile(wheels[1]) as wheel:
        metadata = wheel.read(f"penstock_platform-{VERSION}.dist-info/METADATA").decode()
    assert f"Requires-Dist: penstock=={VERSION}\n" in metadata


def test_both_wheels_run_a_pipeline_outside_the_repository(whole: Environment) -> None:
    assert whole.call("penstock", "--version").stdout == f"penstock {VERSION}\n"
    run = json.loads(whole.call("penstock", "run", "where.py", "--json").stdout)
    assert run["state"] == "succeeded"
    assert run["outputs"]["result"] == str(whole.prefix), "steps run with the interpreter of the command"
    whole.call("penstock", "runs", "export", "last", "--to", "run.jsonl")
    assert whole.call("python", "-c", REPLAY).stdout == "{'prefix': 'succeeded'}\n"


def test_the_client_wheel_says_what_to_install_to_start_a_platform(client: Environment) -> None:
    assert client.call("penstock", "--version").stdout == f"penstock {VERSION}\n"
    for arguments in (["up"], ["run", "where.py"], ["doctor"]):
        done = client.call("penstock", *arguments, code=3)
        assert f"pip install penstock-platform=={VERSION}" in done.stdout + done.stderr


def test_the_client_wheel_uses_a_platform_of_another_environment(client: Environment, platform: dict[str, str]) -> None:
    token = (Path(platform["home"]) / "token").read_text()
    by_address = {"PENSTOCK_URL": platform["url"], "PENSTOCK_TOKEN": token}
    for where in (by_address, {"PENSTOCK_HOME": platform["home"]}):
        run = json.loads(client.call("penstock", "run", "where.py", "--json", **where).stdout)
        assert run["state"] == "succeeded"
        assert run["outputs"]["result"] == str(client.prefix), "steps run in the client's environment"
        client.call("penstock", "doctor", **where)
