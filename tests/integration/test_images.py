"""Images of environments with a real registry, BuildKit and a Docker engine: built once, by digest, without secrets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock_adapters.images.build_errors import ImageBuildError
from penstock_adapters.images.engines import Build, BuildKit
from penstock_adapters.images.environment_images import EnvironmentImages
from penstock_adapters.images.registry import Registry
from penstock_adapters.uv import resolver
from penstock_adapters.uv.command import Indexes
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.environments.image_options import ImageOptions
from penstock_core.environments.lock import EnvironmentLock
from penstock_core.errors import UnavailableError
from penstock_testkit.containers import filesystem
from penstock_testkit.containers.buildkit import BuildKitServer, RegistryServer, find_tool
from penstock_testkit.containers.engine import DockerEngine
from penstock_testkit.servers.child import BinaryMissingError
from penstock_testkit.servers.package_index import PackageIndex

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SECRET = "s3cret-of-the-index"
NETRC_SECRET = "s3cret-of-netrc"


class Counted(BuildKit):
    """BuildKit, with the number of its builds."""

    builds = 0

    async def build(self, build: Build, log: object, timeout: float) -> None:
        self.builds += 1
        await super().build(build, log, timeout)  # type: ignore[arg-type]


@dataclass
class Parts:
    registry: RegistryServer
    engine: Counted
    images: EnvironmentImages
    base: str

    def config(self, image: str) -> dict[str, object]:
        crane = find_tool("crane", "crane")
        answer = subprocess.check_output([crane, "config", image, "--insecure", "--platform=linux/amd64"], timeout=60)
        return json.loads(answer)

    def files(self, image: str) -> list[str]:
        crane = find_tool("crane", "crane")
        export = [crane, "export", image, "-", "--insecure", "--platform=linux/amd64"]
        archive = subprocess.run(export, capture_output=True, check=True, timeout=60).stdout
        listed = subprocess.run(["tar", "-t"], input=archive, capture_output=True, check=True, timeout=60)
        return listed.stdout.decode().splitlines()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(find_tool('buildctl', 'BuildKit')).parent}:{os.environ['PATH']}")
        repository = f"{registry.host}/team/environments"
        engine = Counted(buildkit.address, insecure=True, cache=f"{repository}:buildcache")
        images = EnvironmentImages(engine, Registry(registry.host), repository, base, (), 120)
        yield Parts(registry, engine, images, base)
    buildkit.stop()
    registry.stop()


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    with PackageIndex() as served:
        served.add("tools", "1.0", requires=("base>=1",))
        served.add("base", "1.5")
        yield served


def declared(index: PackageIndex, *requirements: str, **image: object) -> EnvironmentDeclaration:
    options = ImageOptions(**image)  # type: ignore[arg-type]
    return EnvironmentDeclaration(name="e", python=PYTHON, requirements=requirements, index=index.url, image=options)


async def lock_of(declaration: EnvironmentDeclaration) -> EnvironmentLock:
    return await resolver.resolve(declaration, lambda line: None, 60)


async def test_an_image_has_what_the_lock_says_and_is_built_once(
    parts: Parts, index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: no secret is in a layer, the history, the manifest or the log."""
    log: list[str] = []
    (tmp_path / "netrc").write_text(f"machine index.example login ada password {NETRC_SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url.replace("://", f"://ada:{SECRET}@"))
    declaration = declared(index, "tools")
    lock, before = await lock_of(declaration), parts.engine.builds

    async def make() -> str:
        return await parts.images.make(lock, ImageOptions(), Indexes(), log.append)

    found = await asyncio.gather(*(make() for _ in range(5)))
    assert parts.engine.builds == before + 1 and len(set(found)) == 1
    assert await make() == found[0] and parts.engine.builds == before + 1
    name, _, digest = found[0].partition("@sha256:")
    assert name == f"{parts.registry.host}/team/environments" and len(digest) == 64
    files = parts.files(found[0])
    assert any(file.endswith("opt/environment/lib/python" + PYTHON + "/site-packages/tools.py") for file in files)
    assert not any("site-packages/penstock" in file or "/root/pip.conf" in file for file in files)
    config = parts.config(found[0])["config"]
    assert isinstance(config, dict) and config["User"] == "65532:65532"
    assert "PATH=/opt/environment/bin:/usr/local/bin:/usr/bin:/bin" in config["Env"]
    assert any("Successfully installed" in line for line in log)
    for text in (SECRET, NETRC_SECRET):
        assert not any(text in line for line in log)
        assert not [blob for blob in parts.registry.folder.rglob("data") if blob.is_file() and text in unpacked(blob)]


def unpacked(blob: Path) -> str:
    data = blob.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return data.decode("latin-1")


async def test_a_failed_instruction_is_named_with_its_last_lines(parts: Parts, index: PackageIndex) -> None:
    own = f"FROM {parts.base}\nRUN echo first\nRUN echo looking for it; echo not there; exit 7\n"
    lock = await lock_of(declared(index))
    with pytest.raises(ImageBuildError) as caught:
        await parts.images.make(lock, ImageOptions(dockerfile=own), Indexes(), lambda line: None)
    first, *rest = str(caught.value).splitlines()
    assert "RUN echo looking for it" in first and first.endswith("failed: exit code: 7")
    assert [line.strip() for line in rest] == ["looking for it", "not there"]
    with pytest.raises(ImageBuildError, match="not-there"):
        missing = ImageOptions(base=f"{parts.registry.host}/not-there:1")
        await parts.images.make(lock, missing, Indexes(), lambda line: None)


async def test_a_base_with_another_python_is_refused(parts: Parts, index: PackageIndex) -> None:
    lock = await lock_of(declared(index, "tools"))
    other = EnvironmentLock(python="3.99", packages=lock.packages)
    with pytest.raises(ImageBuildError, match=rf"the base image has Python {PYTHON}, not 3\.99"):
        await parts.images.make(other, ImageOptions(base=parts.base), Indexes(index.url), lambda line: None)


async def test_an_own_dockerfile_is_the_base_of_the_requirements(parts: Parts, index: PackageIndex) -> None:
    own = f"FROM {parts.base}\nRUN echo made > /made\n"
    lock = await lock_of(declared(index, "base"))
    image = await parts.images.make(lock, ImageOptions(dockerfile=own), Indexes(index.url), lambda line: None)
    files = parts.files(image)
    assert "made" in files and any(file.endswith("site-packages/base.py") for file in files)


async def test_a_build_that_takes_too_long_or_is_cancelled_stops(parts: Parts, index: PackageIndex) -> None:
    lock = await lock_of(declared(index))
    repository = f"{parts.registry.host}/team/slow"
    slow = ImageOptions(dockerfile=f"FROM {parts.base}\nRUN echo begun; sleep 1000\n")
    impatient = EnvironmentImages(parts.engine, Registry(parts.registry.host), repository, "", (), 3)
    with pytest.raises(ImageBuildError, match="not built in 3 s"):
        await impatient.make(lock, slow, Indexes(), lambda line: None)
    lines: list[str] = []
    task = asyncio.create_task(parts.images.make(lock, slow, Indexes(), lines.append))
    async with asyncio.timeout(60):
        while not any(line.endswith(" begun") for line in lines):
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    deadline = time.monotonic() + 60
    while sleeps():
        assert time.monotonic() < deadline, "an instruction runs on after its build was cancelled"
        await asyncio.sleep(0.1)


def sleeps() -> bool:
    return subprocess.run(["pgrep", "-f", "^sleep 1000$"], capture_output=True, check=False).returncode == 0


async def test_an_engine_or_a_registry_that_is_away_is_no_fault_of_the_declaration(
    parts: Parts, index: PackageIndex
) -> None:
    lock = await lock_of(declared(index))
    away = EnvironmentImages(parts.engine, Registry("127.0.0.1:9"), "127.0.0.1:9/e", parts.base, (), 60)
    with pytest.raises(UnavailableError, match=r"registry 127\.0\.0\.1:9 does not answer"):
        await away.make(lock, ImageOptions(), Indexes(), lambda line: None)
    repository = f"{parts.registry.host}/other"
    registry = Registry(parts.registry.host)
    no_engine = EnvironmentImages(BuildKit("tcp://127.0.0.1:9"), registry, repository, parts.base, (), 60)
    with pytest.raises(UnavailableError, match="does not answer"):
        await no_engine.make(lock, ImageOptions(), Indexes(), lambda line: None)


DRIVER = """
import asyncio, json, sys
from penstock_adapters.images.build_errors import ImageBuildError
from penstock_adapters.images.engines import Docker
from penstock_adapters.images.environment_images import EnvironmentImages
from penstock_adapters.images.registry import Registry
from penstock_adapters.uv import resolver
from penstock_adapters.uv.command import Indexes
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.environments.image_options import ImageOptions
from penstock_testkit.servers.package_index import PackageIndex

host, address, python = sys.argv[1:]

async def main():
    with PackageIndex() as index:
        index.add("base", "1.5")
        declaration = EnvironmentDeclaration(name="e", python=python, requirements=("base",), index=index.url)
        lock = await resolver.resolve(declaration, lambda line: None, 60)
        base = "penstock.test/python:3"
        engine = Docker(address, network="host")
        images = EnvironmentImages(engine, Registry(host), f"{host}/team/environments", base, (), 120)
        found = [await images.make(lock, ImageOptions(), Indexes(index.url), lambda line: None) for _ in range(2)]
        broken = ImageOptions(dockerfile=f"FROM {base}\\nRUN echo not there; exit 7\\n")
        try:
            await images.make(lock, broken, Indexes(index.url), lambda line: None)
        except ImageBuildError as error:
            found.append(str(error))
        try:
            await images.make(lock, ImageOptions(platforms=("linux/a", "linux/b")), Indexes(), lambda line: None)
        except ImageBuildError as error:
            found.append(str(error))
        print(json.dumps(found))

asyncio.run(main())
"""


def test_a_docker_compatible_engine_builds_the_same(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folder = tmp_path_factory.mktemp("docker")
    engine = DockerEngine(folder)
    registry = RegistryServer(folder / "registry", engine.inside)
    try:
        engine.start()
        engine.image("penstock.test/python:3", filesystem.python_base)
        registry.start()
        address = engine.environment["DOCKER_HOST"]
        (tmp_path / "driver.py").write_text(DRIVER)
        command = engine.inside(sys.executable, str(tmp_path / "driver.py"), registry.host, address, PYTHON)
        environment = engine.environment | {"UV_CACHE_DIR": str(tmp_path / "uv")}
        del environment["DOCKER_HOST"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        first, second, broken, platforms = json.loads(done.stdout.splitlines()[-1])
        assert first == second and first.startswith(f"{registry.host}/team/environments@sha256:")
        assert "RUN echo not there; exit 7 failed: exit code: 7" in broken and broken.endswith("not there")
        assert "need BuildKit" in platforms
        code = "import base; print(base.VERSION)"
        assert engine.docker("run", "--rm", "--network=none", first, "python3", "-c", code).strip().endswith("1.5")
    except BinaryMissingError as missing:
        pytest.skip(str(missing))
    finally:
        registry.stop()
        engine.stop()
