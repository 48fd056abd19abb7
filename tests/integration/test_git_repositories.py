"""Repositories on real Git servers: refs, commits, shared mirrors, credentials, and hostile repositories."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_adapters.git import command
from penstock_adapters.git.checkout import Checkout
from penstock_adapters.git.command import Credentials, Git, GitError, GitLimits
from penstock_adapters.git.mirrors import Mirrors
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.git_sources import GitSource
from penstock_testkit.servers.child import BinaryMissingError
from penstock_testkit.servers.git import HttpGitServer, Repository, git_daemon, ssh_server
from penstock_testkit.servers.ports import free_ports
from penstock_testkit.servers.processes import processes_with

LIMITS = GitLimits(timeout=60.0, size=100 * 2**20, protocols=("http", "ssh", "git"))


class Builder:
    """What a builder does with repositories."""

    def __init__(self, folder: Path, credentials: Credentials | None = None, limits: GitLimits = LIMITS) -> None:
        self.folder = folder
        self.mirrors = Mirrors(folder / "git", 10 * 2**30)
        self.credentials = credentials
        self.limits = limits
        self.lines: list[str] = []
        self._count = 0

    def session(self, url: str) -> AbstractAsyncContextManager[Git]:
        return command.session(url, self.limits, self.credentials, self.lines.append)

    async def resolve(self, url: str, ref: str = "") -> str:
        async with self.session(url) as git:
            return await self.mirrors.resolve(git, ref)

    async def check_out(self, url: str, ref: str = "", **options: bool) -> Path:
        self._count += 1
        target = self.folder / f"checkout-{self._count}"
        commit = await self.resolve(url, ref)
        source = GitSource(url=url, ref=ref, **options)  # type: ignore[arg-type]
        await Checkout(self.mirrors, self.session, self.lines.append).write(source, commit, target)
        return target


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repositories"


@pytest.fixture
def repository(root: Path) -> Repository:
    made = Repository(root / "team" / "repo")
    made.commit({"pipeline.py": "one"}, "one")
    return made


@pytest.fixture
def http(root: Path) -> Iterator[HttpGitServer]:
    with HttpGitServer(root) as server:
        yield server


async def test_branches_tags_and_commits_are_resolved(
    repository: Repository, http: HttpGitServer, tmp_path: Path
) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.git("tag", "light")
    repository.git("tag", "-a", "-m", "annotated", "v1")
    second = repository.commit({"pipeline.py": "two"})
    builder, url = Builder(tmp_path), f"{http.url}/team/repo"
    assert await builder.resolve(url) == await builder.resolve(url, "main") == second
    assert await builder.resolve(url, "light") == await builder.resolve(url, "v1") == first
    assert await builder.resolve(url, "refs/heads/main") == second
    assert (await builder.check_out(url, first) / "pipeline.py").read_text() == "one"
    assert (await builder.check_out(url, "v1") / "pipeline.py").read_text() == "one"
    assert (await builder.check_out(url) / "pipeline.py").read_text() == "two"
    with pytest.raises(GitError, match="has no branch or tag 'nope'"):
        await builder.resolve(url, "nope")
    with pytest.raises(GitError, match="has no branch or tag"):
        await builder.resolve(url, first[:10])
    with pytest.raises(GitError):
        await builder.check_out(url, "0" * 40)


async def test_a_commit_is_fetched_once_and_without_history(
    repository: Repository, http: HttpGitServer, tmp_path: Path
) -> None:
    for number in range(20):
        repository.commit({"pipeline.py": str(number), "data.txt": str(number) * 1000})
    builder, url = Builder(tmp_path), f"{http.url}/team/repo"
    await asyncio.gather(*(builder.check_out(url) for _ in range(5)))
    posts = [request for request in http.requests if request.startswith("POST")]
    assert len(posts) <= 5 + 2  # each asks for its ref, and one of them fetches
    (mirror,) = (tmp_path / "git").glob("*.git")
    assert (mirror / "shallow").read_text().split() == [repository.git("rev-parse", "HEAD")]
    before = len(http.requests)
    await builder.check_out(url, repository.git("rev-parse", "HEAD"))
    assert len(http.requests) == before  # a commit that is there needs no server


async def test_git_daemon(repository: Repository, root: Path, tmp_path: Path) -> None:
    with git_daemon(root, tmp_path) as url:
        found = await Builder(tmp_path).check_out(f"{url}/team/repo", "main")
    assert (found / "pipeline.py").read_text() == "one"


async def test_ssh_with_a_key(repository: Repository, root: Path, tmp_path: Path) -> None:
    keys = tmp_path / "ssh"
    keys.mkdir()
    try:
        with ssh_server(root, keys) as server:
            limits = replace(LIMITS, known_hosts=str(server.known_hosts))
            builder = Builder(tmp_path / "a", Credentials.of(server.key), limits)
            found = await builder.check_out(f"{server.url}/team/repo", "main")
            assert (found / "pipeline.py").read_text() == "one"
            with pytest.raises(GitError, match="cannot be read"):
                await Builder(tmp_path / "b", None, limits).resolve(f"{server.url}/team/repo")
            with pytest.raises(GitError, match="has no known key"):
                await Builder(tmp_path / "c", Credentials.of(server.key)).resolve(f"{server.url}/team/repo")
    except BinaryMissingError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("secret", ["deploy-user:t0ken", "t0ken"])
async def test_basic_authentication(repository: Repository, http: HttpGitServer, tmp_path: Path, secret: str) -> None:
    http.passwords = {"deploy-user": "t0ken", "oauth2": "t0ken"}
    url = f"{http.url}/team/repo"
    builder = Builder(tmp_path, Credentials.of(secret))
    assert (await builder.check_out(url) / "pipeline.py").read_text() == "one"
    assert all("t0ken" not in line for line in builder.lines)
    stored = [path for path in (tmp_path / "git").rglob("*") if path.is_file()]
    assert stored and all(b"t0ken" not in path.read_bytes() for path in stored)
    for wrong in (None, Credentials.of("deploy-user:wrong")):
        with pytest.raises(GitError, match="needs other credentials") as refused:
            await Builder(tmp_path, wrong).resolve(url)
        assert "wrong" not in str(refused.value)


async def test_credentials_are_for_their_host_only(
    repository: Repository, http: HttpGitServer, root: Path, tmp_path: Path
) -> None:
    with HttpGitServer(root) as other:
        other.passwords = {"oauth2": "t0ken"}
        async with command.session(f"{http.url}/team/repo", LIMITS, Credentials.of("t0ken"), print) as git:
            with pytest.raises(GitError, match="needs other credentials"):
                await git.run(["ls-remote", "--", f"{other.url}/team/repo"])


async def test_what_the_machine_and_its_variables_say_has_no_effect(
    repository: Repository, http: HttpGitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "executed"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[core]\n\thooksPath = {home}\n[url "file:///nowhere/"]\n\tinsteadOf = http://\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {marker}")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_EXEC_PATH", "/nowhere")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    found = await Builder(tmp_path).check_out(f"{http.url}/team/repo")
    assert (found / "pipeline.py").read_text() == "one"
    assert not marker.exists() and not (tmp_path / "trace").exists()


async def test_protocols_that_are_not_allowed_are_refused(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(GitError, match="builders use http, ssh, git only, not file"):
        await Builder(tmp_path).resolve(f"file://{repository.folder}")
    async with command.session("http://127.0.0.1/x", LIMITS, None, print) as git:
        for url in (f"file://{repository.folder}", "ext::sh -c id", f"{repository.folder}"):
            with pytest.raises(PenstockError):
                await git.run(["ls-remote", "--", url])


async def test_links_out_of_the_repository_and_hooks_have_no_effect(
    repository: Repository, http: HttpGitServer, tmp_path: Path
) -> None:
    (repository.folder / "inside").symlink_to("pipeline.py")
    (repository.folder / "outside").symlink_to("/etc/passwd")
    (repository.folder / "above").symlink_to("../../secret")
    (repository.folder / "folder").symlink_to("/etc")
    marker = tmp_path / "executed"
    repository.commit({".gitattributes": "*.py filter=evil diff=evil\n"})
    repository.git("config", "filter.evil.smudge", f"touch {marker}")
    builder = Builder(tmp_path)
    found = await builder.check_out(f"{http.url}/team/repo")
    assert (found / "inside").read_text() == "one"
    assert not any((found / name).is_symlink() for name in ("outside", "above", "folder"))
    assert "outside is a link out of the repository and is left out" in builder.lines
    assert not marker.exists()


async def test_links_of_a_repository_are_not_followed_by_what_is_written_beside_submodules(
    repository: Repository, http: HttpGitServer, root: Path, tmp_path: Path
) -> None:
    """Git writes through a link at the place of its index: the builder's own files could be overwritten."""
    Repository(root / "team" / "library").commit({"library.py": "x"})
    victim = tmp_path / "victim"
    victim.write_text("of the builder")
    repository.git("submodule", "add", "--quiet", f"{root}/team/library", "libs")
    repository.git("config", "-f", ".gitmodules", "submodule.libs.url", "../library")
    for number in range(4):
        (repository.folder / f"libs.index-{number}").symlink_to(victim)
    repository.commit({})
    found = await Builder(tmp_path).check_out(f"{http.url}/team/repo", submodules=True)
    assert (found / "libs/library.py").read_text() == "x"
    assert victim.read_text() == "of the builder"


async def test_a_link_to_itself_is_left_out(repository: Repository, http: HttpGitServer, tmp_path: Path) -> None:
    (repository.folder / "loop").symlink_to("loop")
    repository.commit({})
    found = await Builder(tmp_path).check_out(f"{http.url}/team/repo")
    assert [path.name for path in found.iterdir()] == ["pipeline.py"]


async def test_a_commit_of_a_private_repository_is_checked_out_with_its_credentials_only(
    repository: Repository, http: HttpGitServer, tmp_path: Path
) -> None:
    """Also by a full commit, which is not looked up, when another build has fetched it already."""
    http.passwords = {"ada": "secret"}
    url = f"{http.url}/team/repo"
    owner = Builder(tmp_path, Credentials.of("ada:secret"))
    commit = await owner.resolve(url)
    await owner.check_out(url, commit)
    for other in (None, Credentials.of("eve:secret")):
        with pytest.raises(GitError, match="cannot be read"):
            await Builder(tmp_path, other).check_out(url, commit)


async def test_a_commit_with_more_files_than_git_can_list_is_refused(
    repository: Repository, http: HttpGitServer, tmp_path: Path
) -> None:
    """Ten trees that each contain the next one ten times are ten billion files, in a few hundred bytes."""
    tree = repository.git("write-tree")
    for _ in range(10):
        entries = "".join(f"040000 tree {tree}\td{n}\n" for n in range(10))
        tree = repository.git("mktree", given=entries)
    commit = repository.git("commit-tree", "-m", "bomb", tree)
    repository.git("update-ref", "refs/heads/bomb", commit)
    with pytest.raises(GitError, match="more files"):
        await Builder(tmp_path).check_out(f"{http.url}/team/repo", "bomb")


async def test_submodules_by_option(repository: Repository, http: HttpGitServer, root: Path, tmp_path: Path) -> None:
    library = Repository(root / "team" / "library")
    at = library.commit({"library.py": "old"})
    repository.git("submodule", "add", "--quiet", f"{root}/team/library", "libs/library")
    repository.git("config", "-f", ".gitmodules", "submodule.libs/library.url", "../library")
    repository.commit({})
    library.commit({"library.py": "new"})
    builder, url = Builder(tmp_path), f"{http.url}/team/repo"
    assert not (await builder.check_out(url) / "libs/library/library.py").exists()
    found = await builder.check_out(url, submodules=True)
    assert (found / "libs/library/library.py").read_text() == "old"
    assert any(f"{http.url}/team/library at {at[:12]}" in line for line in builder.lines)


@pytest.mark.parametrize(
    ("url", "path", "why"),
    [
        ("ext::sh -c touch% executed", "libs", "is refused"),
        ("--upload-pack=touch executed", "libs", "disallowed submodule url"),
        ("file:///etc", "libs", "builders use"),
        ("http://127.0.0.1:1/--upload-pack=x", "libs", "is refused"),
    ],
)
async def test_hostile_submodules_are_refused(
    repository: Repository, http: HttpGitServer, root: Path, tmp_path: Path, url: str, path: str, why: str
) -> None:
    library = Repository(root / "team" / "library")
    library.commit({"library.py": "x"})
    repository.git("submodule", "add", "--quiet", f"{root}/team/library", path)
    repository.git("config", "-f", ".gitmodules", f"submodule.{path}.url", url)
    repository.commit({})
    with pytest.raises(PenstockError, match=why):
        await Builder(tmp_path).check_out(f"{http.url}/team/repo", submodules=True)
    assert not list(tmp_path.rglob("executed"))


async def test_a_large_repository_is_refused(repository: Repository, http: HttpGitServer, tmp_path: Path) -> None:
    (repository.folder / "noise").write_bytes(os.urandom(8 * 2**20))
    repository.commit({})
    builder = Builder(tmp_path, limits=replace(LIMITS, size=2**20))
    with pytest.raises(GitError, match="has more than 1048576 bytes"):
        await builder.check_out(f"{http.url}/team/repo")


async def test_a_cancelled_call_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is cancelled while the size of a large folder is read."""

    def slow(folder: Path) -> int:
        time.sleep(0.5)
        return 0

    monkeypatch.setattr(command, "folder_size", slow)
    marker = f"12345.{os.getpid()}"
    async with Builder(tmp_path).session("http://127.0.0.1:1/repo") as git:
        call = asyncio.create_task(git.run(["-c", f"alias.wait=!sleep {marker}", "wait"], watched=tmp_path))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    assert not processes_with(marker)


async def test_a_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError, match="does not answer"):
        await Builder(tmp_path).resolve(f"http://127.0.0.1:{port}/repo")
    with pytest.raises(PenstockError) as caught:
        await Builder(tmp_path).resolve(f"ssh://git@127.0.0.1:{port}/repo")
    assert "Identity file" not in str(caught.value)


async def test_a_damaged_or_interrupted_mirror_is_made_again(
    repository: Repository, http: HttpGitServer, tmp_path: Path
) -> None:
    builder, url = Builder(tmp_path), f"{http.url}/team/repo"
    await builder.check_out(url)
    (mirror,) = (tmp_path / "git").glob("*.git")
    for damage in ("shallow.lock", "index.lock"):
        (mirror / damage).touch()  # as a fetch that was killed leaves it
    repository.commit({"pipeline.py": "two"})
    assert (await builder.check_out(url) / "pipeline.py").read_text() == "two"
    (mirror / "HEAD").unlink()  # as a removal that was interrupted leaves it
    assert (await builder.check_out(url) / "pipeline.py").read_text() == "two"
    shutil.rmtree(mirror / "objects")
    (mirror / "objects").mkdir()
    repository.commit({"pipeline.py": "three"})
    assert (await builder.check_out(url) / "pipeline.py").read_text() == "three"


async def test_mirrors_beyond_the_limit_are_removed_but_not_those_in_use(
    repository: Repository, http: HttpGitServer, root: Path, tmp_path: Path
) -> None:
    second = Repository(root / "team" / "second")
    second.commit({"pipeline.py": "second"})
    builder = Builder(tmp_path)
    builder.mirrors = Mirrors(tmp_path / "git", 0)
    commit = await builder.resolve(f"{http.url}/team/second")
    await builder.check_out(f"{http.url}/team/repo")
    async with builder.session(f"{http.url}/team/second") as git, builder.mirrors.commit(git, commit) as used:
        assert len(await builder.mirrors.remove_unused()) == 1
        assert used.is_dir()
    assert len(await builder.mirrors.remove_unused()) == 1
    assert (await builder.check_out(f"{http.url}/team/repo") / "pipeline.py").read_text() == "one"
