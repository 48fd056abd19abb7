"""docker-compose.yml with the images of this repository on a real Docker engine: a run outlives killed containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from penstock_testkit.containers.engine import DockerEngine

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "scheduler", "triggers", "cron", "builder", "executor", "artifacts")
WAIT = 300.0

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


class Compose:
    """The services of docker-compose.yml; its secrets are made by the script that `make compose-env` calls."""

    def __init__(self, engine: DockerEngine, folder: Path) -> None:
        self._engine = engine
        variables = subprocess.check_output([sys.executable, ROOT / "deploy/compose/env.py"], text=True, timeout=10)
        images = {f"PENSTOCK_{name.upper()}_IMAGE": f"penstock-{name}:test" for name in _BUILT}
        images |= {f"{name.upper()}_IMAGE": f"penstock.test/{name}:{tag}" for name, tag in _OTHERS.items()}
        self.variables = dict(line.split("=", 1) for line in variables.splitlines()) | images
        self._file = folder / ".env"
        self._file.write_text("".join(f"{name}={value}\n" for name, value in self.variables.items()))

    def command(self, *arguments: str) -> list[str]:
        """Return a command of `docker compose`."""
        files = ["--env-file", str(self._file), "--file", str(ROOT / "docker-compose.yml")]
        return ["docker", "compose", *files, *arguments]

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run `docker compose`; returns what it printed."""
        return self._engine.run(self.command(*arguments), timeout=timeout)

    def penstock(self, *arguments: str) -> Any:
        """Run the command on this machine; returns the JSON that it prints."""
        command = self._engine.inside(str(Path(sys.executable).parent / "penstock"), *arguments, "--json")
        address = {"PENSTOCK_URL": "http://127.0.0.1:8765", "PENSTOCK_TOKEN": self.variables["PENSTOCK_TOKEN"]}
        return json.loads(self._engine.run(command, timeout=180, env=address))

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self._engine.output("ps", "-q", "--filter", f"label=com.docker.compose.service={service}").strip()

    def crash(self, service: str) -> None:
        """Kill a service's container like a crash: unlike after `docker kill`, the engine restarts it."""
        os.kill(self._engine.pid_of(self.container(service)), signal.SIGKILL)

    def wait_healthy(self, service: str, restarts: int) -> None:
        """Wait until a service is healthy after a number of restarts."""
        deadline = time.monotonic() + WAIT
        while True:
            state = self._engine.state_of(self.container(service))
            if state["Restarts"] >= restarts and state.get("Health", {}).get("Status") == "healthy":
                return
            assert time.monotonic() < deadline, (service, state)
            time.sleep(0.2)


_BUILT = ("services", "artifacts", "executor", "runner")
_OTHERS = {"nats": "2", "seaweedfs": "4", "postgres": "15"}


@pytest.fixture(scope="module")
def compose(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """All services, ready; the engine removes them with everything else."""
    services = Compose(engine, tmp_path_factory.mktemp("compose"))
    services.run("up", "--detach", "--no-build", "--wait", "--wait-timeout", "200", timeout=300)
    return services


def test_the_training_example_outlives_killed_containers(compose: Compose, engine: DockerEngine) -> None:
    arguments = compose.command("run", "--rm", "--no-TTY", "client", "penstock", "run", "training", "--json")
    run = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=engine.environment
    )
    try:
        deadline = time.monotonic() + WAIT
        while not compose.penstock("runs", "list", "--state", "running"):
            assert time.monotonic() < deadline and run.poll() is None, run.communicate()[0]
            time.sleep(0.2)
        for service in ("executor", "scheduler"):
            compose.crash(service)
        output = run.communicate(timeout=WAIT)[0]
    finally:
        run.kill()
    assert run.returncode == 0, output
    for service in ("executor", "scheduler"):
        compose.wait_healthy(service, restarts=1)
    (found,) = compose.penstock("runs", "list")
    assert found["state"] == "succeeded"
    # Its outputs are in the bucket, and its list is in PostgreSQL.
    get = f"cd /tmp && penstock artifacts get {found['run_id']} -o report && test -s report.html"
    compose.run("run", "--rm", "--no-TTY", "client", "sh", "-c", get)
    password = f"PGPASSWORD={compose.variables['POSTGRES_PASSWORD']}"
    query = ("psql", "-h", "127.0.0.1", "-U", "penstock", "-tc", "select count(*) from runs")
    assert engine.output("exec", "-e", password, compose.container("postgres"), *query).strip() == "1"


def test_containers_are_confined(compose: Compose, engine: DockerEngine) -> None:
    for service in SERVICES:
        container = compose.container(service)
        assert engine.output("exec", container, "id", "-u").strip() == "10001"
        refused = engine.docker("exec", container, "touch", "/opt/penstock/file", check=False)
        assert "Read-only file system" in refused
        (mounts,) = json.loads(engine.output("inspect", "-f", "[{{json .HostConfig}}]", container))
        assert mounts["CapDrop"] == ["ALL"] and mounts["Memory"] > 0
    config = engine.output("history", "--no-trunc", "--format", "{{.CreatedBy}}", "penstock-executor:test")
    assert not [value for name, value in compose.variables.items() if "IMAGE" not in name and value in config]


def test_services_stop_gracefully(compose: Compose, engine: DockerEngine) -> None:
    for service in SERVICES:
        container = compose.container(service)
        engine.docker("stop", "--time", "30", container)
        assert engine.state_of(container)["ExitCode"] == 0, engine.docker("logs", "--tail", "20", container)
