"""Steps with declared environments in pods: their images are built and pushed; the runner is brought along.

The node gets the image from a registry on this machine through the socket of its containerd.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock_testkit.containers import filesystem
from penstock_testkit.containers.buildkit import BuildKitServer, RegistryServer, find_tool
from penstock_testkit.servers import kubernetes as kit
from penstock_testkit.servers.child import BinaryMissingError
from penstock_testkit.servers.kubernetes import Platform
from penstock_testkit.servers.package_index import PackageIndex

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

PIPELINES = """
from penstock import Environment, pipeline, step

tools = Environment("tools", ["tools"], index={index!r}, dockerfile="Dockerfile")
own = Environment("own", image={own!r})

@step(environment=tools)
def declared() -> list[str]:
    import sys
    import tools
    try:
        import nats
        libraries = "has the runner's libraries"
    except ImportError:
        libraries = "has none"
    return [tools.VERSION, sys.prefix, libraries]

@step(environment=own, fresh_pod=True)
def image(before: list[str]) -> list[str]:
    return [*before, open("/own").read().strip()]

@pipeline
def images() -> list[str]:
    return image(declared())
"""


@dataclass
class Built:
    platform: Platform
    text: str
    registry: RegistryServer
    own: str

    def give_to_node(self, image: str) -> None:
        client = ["ctr", "-a", os.environ["PENSTOCK_TEST_CONTAINERD"], "-n", "k8s.io"]
        subprocess.run([*client, "images", "pull", "--plain-http", image], check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    if not os.environ.get("PENSTOCK_TEST_CONTAINERD"):
        pytest.skip("PENSTOCK_TEST_CONTAINERD is not set: images cannot be given to the nodes of this cluster")
    folder = tmp_path_factory.mktemp("images")
    registry = RegistryServer(folder / "registry")
    buildkit = BuildKitServer(folder / "b", registry.host)
    try:
        registry.start()
        registry.wait()
        base = registry.push_root(f"python:{PYTHON}", filesystem.python_base)
        buildkit.start()
    except BinaryMissingError as missing:
        registry.stop()
        pytest.skip(str(missing))
    services = {
        "PENSTOCK_IMAGES_REPOSITORY": f"{registry.host}/environments",
        "PENSTOCK_IMAGES_ADDRESS": buildkit.address,
        "PENSTOCK_IMAGES_INSECURE": "true",
        "PENSTOCK_IMAGES_BASE": base,
        "PATH": f"{Path(find_tool('buildctl', 'BuildKit')).parent}:{os.environ['PATH']}",
    }
    with (
        PackageIndex() as index,
        kit.platform_in(tmp_path_factory.mktemp("argo"), services=services, worker_idle=30) as platform,
    ):
        index.add("tools", "1.0")
        index.add("tools", "2.0")
        own = _own_image(registry, base, folder)
        text = PIPELINES.format(index=index.url, own=own)
        platform.services.source("Dockerfile", f"FROM {base}\nRUN echo mine > /own\n")
        yield Built(platform, text, registry, own)
    buildkit.stop()
    registry.stop()


def _own_image(registry: RegistryServer, base: str, folder: Path) -> str:
    """Push an image of the user, which has no `penstock`; returns its name with the digest."""
    (folder / "own").write_text("of the user\n")
    layer = folder / "layer.tar"
    subprocess.run(["tar", "-C", str(folder), "-cf", str(layer), "own"], check=True, timeout=30)
    crane = find_tool("crane", "crane")
    append = [crane, "append", "--insecure", "-b", base, "-f", str(layer), "-t", f"{registry.host}/own:1"]
    subprocess.run(append, check=True, capture_output=True, timeout=120)
    digest = subprocess.check_output([crane, "digest", "--insecure", f"{registry.host}/own:1"], text=True, timeout=60)
    return f"{registry.host}/own@{digest.strip()}"


def test_steps_run_in_the_images_of_their_environments(built: Built) -> None:
    version = built.platform.register("environment_images", built.text, "images")
    found = built.platform.client.pipelines.get("images", version.version).environments
    assert found["own"]["image"] == built.own and found["own"]["image_only"]
    assert found["tools"]["image"].startswith(f"{built.registry.host}/environments@sha256:")
    for one in found.values():
        built.give_to_node(one["image"])
    run_id = built.platform.start("images")
    expected = ["2.0", "/opt/environment", "has none", "of the user"]
    assert built.platform.result(run_id) == expected, built.platform.losses(run_id)
    # The pod of the first step stays for others of its environment; that of the second one does not.
    second = built.platform.start("images")
    assert built.platform.result(second) == expected
    assert len(built.platform.kube.names(second)) == 1
