"""A Docker engine of its own for tests, in network and mount namespaces of its own: it changes nothing of the machine.

Published ports are in that network namespace, so that commands that use them are started with `inside`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from penstock_testkit.servers.child import BinaryMissingError, Child

_PATH = "ENV PATH=/usr/local/bin:/usr/bin:/bin"


class DockerEngine:
    """One engine with its images, containers and volumes, all below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: Child | None = None

    def start(self, timeout: float = 60.0) -> None:
        """Start it and wait until it answers.

        Raises:
            BinaryMissing: Docker, or its plugins buildx and compose, are not installed, or this is not root.
            RuntimeError: it exited or did not answer in time; the message has the end of its log.
        """
        self._plugins()
        if os.geteuid() != 0:
            raise BinaryMissingError("a Docker engine can only be started by root")
        for name in ("dockerd", "docker", "unshare", "nsenter", "ip"):
            if shutil.which(name) is None:
                raise BinaryMissingError(f"no executable {name!r}: install the package 'docker.io'")
        daemon = [
            "dockerd",
            f"-H=unix://{self._folder}/s",
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid",
        ]
        script = 'ip link set lo up; exec "$@"'
        command = ["unshare", "--net", "--mount", "sh", "-c", script, "dockerd", *daemon]
        self._child = Child("dockerd", command, self._folder / "dockerd.log", self._folder)
        self._child.wait_until(self._answers, timeout)

    def stop(self) -> None:
        """Remove all containers, then stop the engine."""
        if self._child is None:
            return
        if left := self.output("ps", "-aq").split():
            self.docker("rm", "-fv", *left, check=False)
        self._child.stop(30)
        subprocess.run(
            ["umount", "-R", *map(str, self._folder.glob("data/overlay2"))], capture_output=True, check=False
        )
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for commands that use this engine."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "DOCKER_HOST": f"unix://{self._folder}/s",
            "DOCKER_CONFIG": str(self._folder / "config"),
            "DOCKER_BUILDKIT": "1",
            "BUILDKIT_PROGRESS": "plain",
        }

    def docker(self, *arguments: str, timeout: float = 300, check: bool = True, **options: Any) -> str:
        """Run `docker`; returns what it printed. Raises RuntimeError with that if it fails."""
        return self.run(["docker", *arguments], timeout=timeout, check=check, **options)

    def output(self, *arguments: str) -> str:
        """Return the standard output of `docker`."""
        return subprocess.check_output(["docker", *arguments], text=True, timeout=60, env=self.environment)

    def run(self, command: Sequence[str], *, timeout: float = 300, check: bool = True, **options: Any) -> str:
        """Run a command that uses this engine; returns what it printed. Raises RuntimeError with that if it fails."""
        environment = {**self.environment, **options.pop("env", {})}
        done = subprocess.run(
            list(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
            **options,
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-6000:]}")
        return done.stdout

    def inside(self, *command: str) -> list[str]:
        """Return a command that runs in the engine's network, where the published ports are."""
        return ["nsenter", f"--target={self._pid()}", "--net", *command]

    def image(self, name: str, write: Callable[[Path], None], *changes: str) -> str:
        """Make an image of the root file system that `write` writes; returns its name."""
        archive = self._folder / "root.tar"
        write(archive)
        options = [option for change in (_PATH, *changes) for option in ("-c", change)]
        self.docker("import", *options, str(archive), name)
        archive.unlink()
        return name

    def pid_of(self, container: str) -> int:
        """Return the process id of a container's first process, on this machine."""
        return int(self.output("inspect", "-f", "{{.State.Pid}}", container))

    def state_of(self, container: str) -> dict[str, Any]:
        """Return the state of a container, with the number of its restarts."""
        found = orjson.loads(self.output("inspect", container))[0]
        return {**found["State"], "Restarts": found["RestartCount"]}

    def _pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def _answers(self) -> bool:
        return (
            subprocess.run(["docker", "info"], capture_output=True, env=self.environment, check=False).returncode == 0
        )

    def _plugins(self) -> None:
        """Find the plugins buildx and compose: in `PENSTOCK_TEST_TOOLS`, or where Docker looks for them."""
        tools = os.environ.get("PENSTOCK_TEST_TOOLS", "")
        places = [
            *([Path(tools)] if tools else []),
            Path.home() / ".docker/cli-plugins",
            *(Path(f"{prefix}/lib/docker/cli-plugins") for prefix in ("/usr/local", "/usr")),
            Path("/usr/libexec/docker/cli-plugins"),
        ]
        target = self._folder / "config" / "cli-plugins"
        target.mkdir(parents=True, exist_ok=True)
        for name in ("docker-buildx", "docker-compose"):
            found = next((place / name for place in places if (place / name).is_file()), None)
            if found is None:
                raise BinaryMissingError(
                    f"Docker's plugin {name!r} is not installed; PENSTOCK_TEST_TOOLS names its folder"
                )
            (target / name).unlink(missing_ok=True)
            (target / name).symlink_to(found)
