"""A registry of images and a BuildKit daemon for tests, on loopback. The daemon needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from penstock_testkit.servers.child import BinaryMissingError, Child
from penstock_testkit.servers.ports import free_ports


def find_tool(name: str, package: str) -> str:
    """Return an executable: in the folder `PENSTOCK_TEST_TOOLS`, or on PATH.

    Raises:
        BinaryMissing: it is not installed.
    """
    tools = os.environ.get("PENSTOCK_TEST_TOOLS")
    found = shutil.which(name, path=f"{tools}:{os.environ.get('PATH', '')}" if tools else None)
    if found is None:
        raise BinaryMissingError(f"no executable {name!r}: install {package}; PENSTOCK_TEST_TOOLS names its folder")
    return found


class RegistryServer:
    """A registry with HTTP and without users; `prefix` is the command that it is started with."""

    def __init__(self, folder: Path, prefix: Callable[..., Sequence[str]] = lambda *command: command) -> None:
        self.host = f"127.0.0.1:{free_ports(1)[0]}"
        self.folder = folder
        self._prefix = prefix
        self._child: Child | None = None

    def start(self) -> None:
        """Start it; `wait` waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yml"
        config.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.folder}/data}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        command = self._prefix(find_tool("docker-registry", "the package 'docker-registry'"), "serve", str(config))
        self._child = Child("docker-registry", command, self.folder / "log", self.folder)

    def wait(self) -> None:
        """Wait until it answers here."""
        assert self._child is not None
        self._child.wait_until(self._answers, 30)

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()

    def push_root(self, name: str, write: Callable[[Path], None]) -> str:
        """Push an image with one layer, the root file system that `write` writes; returns its name with the host."""
        archive = self.folder / "root.tar"
        write(archive)
        crane = find_tool("crane", "crane of go-containerregistry")
        reference = f"{self.host}/{name}"
        config = ("--env=PATH=/usr/local/bin:/usr/bin:/bin", "--set-platform=linux/amd64")
        for words in (
            ("append", "--oci-empty-base", "-f", str(archive), "-t", reference),
            ("mutate", *config, reference, "-t", reference),
        ):
            subprocess.run([crane, *words, "--insecure"], check=True, capture_output=True, timeout=120)
        archive.unlink()
        return reference

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}/v2/", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


class BuildKitServer:
    """A BuildKit daemon, whose builds are in the network of this machine."""

    def __init__(self, folder: Path, registry: str) -> None:
        self._folder = folder
        self._registry = registry
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """What `buildctl --addr` takes."""
        return f"unix://{self._folder}/s"

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            BinaryMissing: BuildKit or runc is not installed, or this is not root.
        """
        if os.geteuid() != 0:
            raise BinaryMissingError("a BuildKit daemon can only be started by root")
        daemon, client = find_tool("buildkitd", "BuildKit"), find_tool("buildctl", "BuildKit")
        find_tool("runc", "the package 'runc'")
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "config.toml"
        config.write_text(
            '[worker.oci]\nenabled = true\nnetworkMode = "host"\n[worker.containerd]\nenabled = false\n'
            f'[registry."{self._registry}"]\nhttp = true\n'
        )
        command = [
            *(daemon, f"--root={self._folder}/data", f"--addr={self.address}", f"--config={config}"),
            f"--otel-socket-path={self._folder}/o",
        ]
        self._child = Child("buildkitd", command, self._folder / "log", self._folder)
        answers = [client, f"--addr={self.address}", "debug", "workers"]
        self._child.wait_until(
            lambda: subprocess.run(answers, capture_output=True, check=False, timeout=30).returncode == 0, 60
        )

    def stop(self) -> None:
        """Stop it and remove its data."""
        if self._child is not None:
            self._child.stop(20)
            shutil.rmtree(self._folder / "data", ignore_errors=True)
