"""What a hostile step can reach: no secrets of the platform; as another user, nothing of others in its state folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock import Client
from penstock_testkit.servers.child import Child

SECRET = "hunter2-of-the-artifact-store"
PIPELINE = """
import os
from pathlib import Path
from penstock import pipeline, step

def tried(what, *paths) -> list[str]:
    done = []
    for path in paths:
        try:
            what(Path(path))
            done.append(str(path))
        except OSError:
            pass
    return done

def read(path: Path) -> None:
    list(path.iterdir()) if path.is_dir() else path.open("rb").close()

def overwrite(path: Path) -> None:
    path.open("ab").close()

def add(path: Path) -> None:
    (path / "planted.py").write_text("")

@step
def attack(home: str, platform: int, secret: str) -> dict[str, list[str]]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and secret[::-1].encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            pass
    folder = Path(home)
    sources = Path(__file__).parent
    private = [path for name in ("token", "platform.json", "read-model.db", "nats", "nats/server.conf", "nats/issuer",
                                 "previews") if (path := folder / name)]
    artifacts = [path for path in (folder / "artifacts" / "sha256").glob("*/*") if path.stat().st_uid != os.getuid()]
    return {
        "user": [str(os.getuid()), os.environ.get("HOME", "")],
        "environments": found,
        "memory": tried(read, f"/proc/{platform}/mem", f"/proc/{platform}/environ"),
        "private": tried(read, *private, home),
        "sources": tried(overwrite, *sources.rglob("*.py")) + tried(add, sources, sources.parent),
        "artifacts": tried(overwrite, *artifacts),
    }

@step
def large(n: int) -> str:
    return "x" * n

@step
def length(text: str) -> int:
    return len(text)

@pipeline
def hostile(home: str, platform: int, secret: str):
    return attack(home, platform, secret)

@pipeline
def honest(n: int = 2_000_000):
    return length(large(n))
"""


@contextmanager
def platform(**settings: str) -> Generator[tuple[Client, int, Path]]:
    """A platform in a folder that other users reach, with a secret, and its process."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-hostile-", dir="/tmp"))
    folder.chmod(0o711)
    home = folder / "home"
    env = {
        "PENSTOCK_S3_SECRET_KEY": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "PENSTOCK_OPENLINEAGE_KEY": SECRET,
        "PENSTOCK_NATS_SEED": SECRET,
        "PENSTOCK_NATS_ISSUER_SEED": SECRET,
        "PENSTOCK_DRAIN": "0.5",
        "TMPDIR": "/tmp",  # noqa: S108 - that of the tests is closed to others
        **settings,
    }
    command = [sys.executable, "-m", "penstock_standalone", "--home", str(home)]
    child = Child("platform", reachable(command, folder), folder / "platform.log", folder, env)
    try:
        child.wait_until((home / "platform.json").exists, 60)
        (folder / "hostile.py").write_text(PIPELINE)
        client = Client(home=home)
        for name in ("hostile", "honest"):
            client.pipelines.register(f"{folder / 'hostile.py'}:{name}")
        yield client, child.pid, home
    finally:
        child.stop(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def reachable(command: list[str], folder: Path) -> list[str]:
    """Return a command whose interpreter another user can execute, although it is in a closed home folder."""
    closed = [path for path in Path(sys.executable).resolve().parents if not path.stat().st_mode & 0o001]
    if not closed:
        return command
    top = closed[-1]
    below = Path(sys.executable).resolve().relative_to(top).parts[0]
    stage = folder / "stage"
    (stage / below).mkdir(parents=True)
    mounts = f"mount --bind {top / below} {stage / below} && mount --rbind {stage} {top}"
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh", *command]


def attack(client: Client, pid: int, home: Path) -> dict[str, Any]:
    inputs = {"home": str(home), "platform": pid, "secret": SECRET[::-1]}
    run = client.run("hostile", inputs)
    assert client.runs.wait(run.run_id, timeout=120).state == "succeeded", client.runs.get(run.run_id)
    return client.artifacts.load(run.run_id)


def can_mount() -> bool:
    return os.getuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


@pytest.mark.slow
def test_a_step_of_the_platforms_user_finds_no_secret_in_any_environment() -> None:
    with platform() as (client, pid, home):
        found = attack(client, pid, home)
        assert found["environments"] == []
        if os.getuid() != 0:  # nothing is closed to root
            assert found["memory"] == []
        assert found["user"][0] == str(os.getuid())


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs root, to run steps as another user")
def test_a_step_of_another_user_reaches_nothing_of_others() -> None:
    nobody = pwd.getpwnam("nobody")
    with platform(PENSTOCK_STEP_USER="nobody") as (client, pid, home):
        assert attack(client, pid, home) == {
            "user": [str(nobody.pw_uid), nobody.pw_dir],
            "environments": [],
            "memory": [],
            "private": [],
            "sources": [],
            "artifacts": [],
        }
        run = client.run("honest")
        assert client.runs.wait(run.run_id, timeout=120).state == "succeeded"
        assert client.artifacts.load(run.run_id) == 2_000_000


@pytest.mark.parametrize(("name", "words"), [("no-such-user", "no such user"), ("root", "is root")])
def test_an_unsuitable_step_user_is_refused(tmp_path: Path, name: str, words: str) -> None:
    command = [sys.executable, "-m", "penstock_standalone", "--home", str(tmp_path / "home")]
    env = {**os.environ, "PENSTOCK_STEP_USER": name}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 1
    assert f"PENSTOCK_STEP_USER={name}" in done.stderr
    assert words in done.stderr or "as root" in done.stderr
