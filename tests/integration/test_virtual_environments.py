"""Declared environments with the real uv, against an index on loopback: resolved, installed, removed, interrupted."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_adapters.commands import masked
from penstock_adapters.uv import resolver
from penstock_adapters.uv.command import EnvironmentBuildError, Indexes
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.environments.lock import EnvironmentLock
from penstock_core.errors import UnavailableError
from penstock_testkit.servers.package_index import PackageIndex

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

INSTALL = """
import asyncio, sys
from pathlib import Path
from penstock_adapters.uv.command import Indexes
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_core.environments import lock
folder, url = sys.argv[1:]
found = lock.parse(sys.stdin.read())
print(asyncio.run(VirtualEnvironments(Path(folder), 0, 60).install(found, Indexes(url), print)), flush=True)
sys.stdin.close()
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with PackageIndex() as found:
        found.add("tools", "1.0", requires=("base>=1",))
        found.add("tools", "2.0", requires=("base>=1",))
        found.add("base", "1.5")
        yield found


def declared(served: PackageIndex, *requirements: str, **more: object) -> EnvironmentDeclaration:
    parts: dict[str, object] = {
        "name": "e",
        "python": PYTHON,
        "requirements": requirements,
        "index": served.url,
        **more,
    }
    return EnvironmentDeclaration(**parts)  # type: ignore[arg-type]


async def resolve(declaration: EnvironmentDeclaration) -> EnvironmentLock:
    return await resolver.resolve(declaration, lambda line: None, 60)


def imported(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


async def test_an_environment_has_what_was_resolved_and_nothing_else(index: PackageIndex, tmp_path: Path) -> None:
    lock = await resolve(declared(index, "tools"))
    assert lock.versions() == {"base": "1.5", "tools": "2.0"}
    assert (await resolve(declared(index, "base", "tools>1"))).digest() == lock.digest()
    environments = VirtualEnvironments(tmp_path / "environments", 10**9, 60)
    assert environments.find(lock.digest()) is None
    python = await environments.install(lock, Indexes(index.url), lambda line: None)
    assert imported(python, "import tools, base; print(tools.VERSION, base.VERSION)") == "2.0 1.5"
    with pytest.raises(subprocess.CalledProcessError):
        imported(python, "import pydantic")
    downloads = len(index.downloads)
    assert await environments.install(lock, Indexes("http://127.0.0.1:9"), lambda line: None) == python
    assert len(index.downloads) == downloads
    older = await resolve(declared(index, "tools", constraints=("tools<2",)))
    assert older.versions()["tools"] == "1.0"


async def test_the_words_of_the_resolver_are_the_error(index: PackageIndex) -> None:
    with pytest.raises(EnvironmentBuildError, match=r"only tools<=2\.0 is available"):
        await resolve(declared(index, "tools>=3"))
    with pytest.raises(EnvironmentBuildError, match="nothing-here"):
        await resolve(declared(index, "nothing-here"))
    with pytest.raises(UnavailableError, match="index does not answer"):
        await resolve(declared(index, "tools", index="http://127.0.0.1:9/simple"))
    with pytest.raises(EnvironmentBuildError, match="did not finish in 0 seconds"):
        await resolver.resolve(declared(index, "tools"), lambda line: None, 0.001)


async def test_a_wheel_with_another_content_is_refused(index: PackageIndex, tmp_path: Path) -> None:
    lock = await resolve(declared(index, "base"))
    index.add("base", "1.5", code="VERSION = 'replaced'\n")
    environments = VirtualEnvironments(tmp_path / "environments", 10**9, 60)
    with pytest.raises(EnvironmentBuildError, match=r"(?i)hash"):
        await environments.install(lock, Indexes(index.url), lambda line: None)
    assert environments.find(lock.digest()) is None
    assert [path.name for path in (tmp_path / "environments").iterdir()] == [f"{lock.digest()}.lock"]


async def test_a_version_of_python_that_is_not_here(index: PackageIndex, tmp_path: Path) -> None:
    lock = await resolve(declared(index, "base", python="3.99"))
    with pytest.raises(EnvironmentBuildError, match=r"3\.99"):
        await VirtualEnvironments(tmp_path, 10**9, 60).install(lock, Indexes(index.url), lambda line: None)


async def test_an_installation_that_is_killed_leaves_nothing_that_is_used(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = await resolve(declared(index, "base"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty-cache"))
    folder = tmp_path / "environments"
    index.waiting.clear()
    index.open.clear()
    killed = subprocess.Popen(
        [sys.executable, "-c", INSTALL, str(folder), index.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdin is not None
    killed.stdin.write(lock.text())
    killed.stdin.close()
    assert await asyncio.to_thread(index.waiting.wait, 60)
    assert killed.stdout is not None
    killed.stdout.close()
    killed.kill()
    killed.wait()
    index.open.set()
    environments = VirtualEnvironments(folder, 10**9, 60)
    assert environments.find(lock.digest()) is None
    python = await environments.install(lock, Indexes(index.url), lambda line: None)
    assert imported(python, "import base; print(base.VERSION)") == "1.5"


async def test_several_that_need_an_environment_install_it_once(index: PackageIndex, tmp_path: Path) -> None:
    lock = await resolve(declared(index, "base"))
    index.downloads.clear()
    lines: list[str] = []
    several = [VirtualEnvironments(tmp_path / "environments", 10**9, 60) for _ in range(5)]
    found = await asyncio.gather(*(one.install(lock, Indexes(index.url), lines.append) for one in several))
    assert len(set(found)) == 1
    assert sum("Installed 1 package" in line for line in lines) == 1


async def test_unused_environments_are_removed_and_used_ones_stay(index: PackageIndex, tmp_path: Path) -> None:
    old, new = await resolve(declared(index, "tools<2")), await resolve(declared(index, "tools"))
    folder = tmp_path / "environments"
    first = VirtualEnvironments(folder, 0, 60)
    for lock in (old, new):
        await first.install(lock, Indexes(index.url), lambda line: None)
    assert await first.remove_unused() == []
    user = VirtualEnvironments(folder, 0, 60)
    assert user.find(new.digest())
    first.release()
    assert await first.remove_unused() == [old.digest()]
    assert first.find(old.digest()) is None
    assert imported(str(folder / new.digest() / "bin" / "python"), "import tools; print(tools.VERSION)") == "2.0"
    user.release()
    assert await first.remove_unused() == [new.digest()]
    assert not (folder / new.digest()).exists()


async def test_what_killed_installers_have_left_is_removed_later(tmp_path: Path) -> None:
    for name, age in (("abandoned.part", 2 * 86400), ("in-progress.part", 3600)):
        (tmp_path / name / "bin").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    await VirtualEnvironments(tmp_path, 10**9, 60).remove_unused()
    assert [path.name for path in tmp_path.iterdir()] == ["in-progress.part"]


async def test_an_environment_whose_interpreter_was_uninstalled_is_installed_again(
    index: PackageIndex, tmp_path: Path
) -> None:
    lock = await resolve(declared(index, "base"))
    environments = VirtualEnvironments(tmp_path / "environments", 10**9, 60)
    for user in (environments, VirtualEnvironments(tmp_path / "environments", 10**9, 60)):
        python = await user.install(lock, Indexes(index.url), lambda line: None)
        Path(python).unlink()
        Path(python).symlink_to(tmp_path / "uninstalled")
        environments.release()
    assert user.find(lock.digest()) is None
    async with asyncio.timeout(60):
        assert await user.install(lock, Indexes(index.url), lambda line: None) == python
    assert imported(python, "import base; print(base.VERSION)") == "1.5"


async def test_an_installation_does_not_wait_for_another_process_for_ever(index: PackageIndex, tmp_path: Path) -> None:
    lock = await resolve(declared(index, "base"))
    other = VirtualEnvironments(tmp_path, 10**9, 60)
    waiting = VirtualEnvironments(tmp_path, 10**9, 0.3)
    async with other._exclusive(lock.digest()):
        with pytest.raises(UnavailableError, match=r"another process .* for 0\.3 s"):
            await waiting.install(lock, Indexes(index.url), lambda line: None)


async def test_a_uv_lock_is_used_as_it_is(index: PackageIndex, tmp_path: Path) -> None:
    project = (
        '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["tools"]\n'
        f'[[tool.uv.index]]\nurl = "{index.url}"\ndefault = true\n'
    )
    (tmp_path / "pyproject.toml").write_text(project)
    command = [sys.executable, "-m", "uv", "lock", "--quiet"]
    await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, check=True)
    text = (tmp_path / "uv.lock").read_text()
    index.add("tools", "3.0")
    lock = await resolve(declared(index, pyproject=project, uv_lock=text))
    assert lock.versions() == {"base": "1.5", "tools": "2.0"}
    with pytest.raises(EnvironmentBuildError, match=r"(?i)lock"):
        await resolve(declared(index, pyproject=project.replace('"tools"', '"base"'), uv_lock=text))


def test_secrets_in_urls_are_masked() -> None:
    assert masked("\x1b[31mfetching https://ada:secret@host/simple") == "fetching https://***@host/simple"
