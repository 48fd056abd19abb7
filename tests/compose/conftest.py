"""A Docker engine with the images of this repository, built on base images made from the files of this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_testkit.containers import filesystem
from penstock_testkit.containers.engine import DockerEngine
from penstock_testkit.servers.child import BinaryMissingError

ROOT = Path(__file__).parents[2]
TARGETS = ("services", "artifacts", "executor", "runner")
_CONTEXT = ("constraints.txt", "pyproject.toml", "hatch_build.py", "LICENSE", "README.md", ".dockerignore")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """An engine with all images that docker-compose.yml needs."""
    started = DockerEngine(tmp_path_factory.mktemp("docker"))
    try:
        started.start()
        _import_images(started)
    except BinaryMissingError as missing:
        pytest.skip(str(missing))
    try:
        build(started, tmp_path_factory.mktemp("context"))
        yield started
    finally:
        started.stop()


def _import_images(engine: DockerEngine) -> None:
    engine.image("penstock.test/python:3", filesystem.python_base)
    engine.image("penstock.test/nats:2", filesystem.nats, 'ENTRYPOINT ["nats-server"]')
    engine.image("penstock.test/seaweedfs:4", filesystem.seaweedfs, 'ENTRYPOINT ["weed"]')
    engine.image("penstock.test/postgres:15", filesystem.postgres, 'ENTRYPOINT ["/entrypoint"]', "USER 999:999")


def build(engine: DockerEngine, context: Path) -> None:
    """Build the images of this repository without a network: from wheels in the build context."""
    for name in _CONTEXT:
        shutil.copy(ROOT / name, context)
    for name in ("libs", "services", "distributions"):
        shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    (context / "wheels").mkdir()
    for wheel in wheels().glob("*.whl"):
        shutil.copy(wheel, context / "wheels")
    arguments = ["--build-arg", "BASE=penstock.test/python:3", "--build-arg", "OFFLINE=true"]
    dockerfile = str(ROOT / "deploy/images/Dockerfile")
    for target in TARGETS:
        tag = f"penstock-{target}:test"
        engine.docker("build", *arguments, "-f", dockerfile, "--target", target, "-t", tag, str(context), timeout=600)


def wheels() -> Path:
    """Return a folder with the pinned wheels of the images; it is filled once for each version of constraints.txt."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    needed = ("client", "platform", "previews", "argo", "examples")
    wanted = ["uv", "hatchling", *(requirement for name in needed for requirement in groups[name])]
    constraints = ROOT / "constraints.txt"
    key = hashlib.sha256(repr((wanted, constraints.read_text(), sys.version_info)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-wheels"
    if not (cache / key).is_dir():
        part = cache / f"{key}.{os.getpid()}"
        command = [sys.executable, "-m", "pip", "wheel", "-q", "-w", str(part), "-c", str(constraints), *wanted]
        subprocess.run(command, check=True, timeout=600)
        part.rename(cache / key)
    return cache / key
