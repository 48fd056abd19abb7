"""The source bundle, the commit and the environment of a pipeline version."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from penstock import DefinitionError, bundle
from penstock.bundle import environment, source
from penstock.bundle.git import without_credentials
from penstock.bundle.ignore import Rules


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name in ("pipeline.py", "features/__init__.py", "features/steps.py", "data/small.csv", "run.sh"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    (root / "run.sh").chmod(0o755)
    return root


def write(path: Path, text: str | bytes = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_the_digest_depends_only_on_names_and_contents(project: Path, tmp_path: Path) -> None:
    packed = bundle.pack(project)
    assert packed.files == ("data/small.csv", "features/__init__.py", "features/steps.py", "pipeline.py", "run.sh")
    assert packed.warnings == ()
    assert packed.digest == hashlib.sha256(packed.data).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(packed.data)) as archive:
        members = {member.name: member for member in archive.getmembers()}
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in members.values()} == {(0, 0, 0, "")}
        assert members["run.sh"].mode == 0o755
        assert (archive.extractfile("pipeline.py") or io.BytesIO()).read() == b"# pipeline.py\n"
    assert packed.write(tmp_path / "x.tar").read_bytes() == packed.data
    os.utime(project / "pipeline.py", (1, 1))
    assert bundle.pack(project).digest == packed.digest
    write(project / "pipeline.py", "changed")
    assert bundle.pack(project).digest != packed.digest


def test_unneeded_files_are_excluded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle.pack(project).digest
    for name in (
        *(".env", ".git/config", ".penstock/token", "__pycache__/a.pyc", "features/__pycache__/b.pyc", "old.pyc"),
        *("node_modules/x/index.js", "env/pyvenv.cfg", "env/lib/x.py", "cache/CACHEDIR.TAG", "cache/x"),
        *("a.egg-info/PKG-INFO", "state/platform.json"),
    ):
        write(project / name)
    os.mkfifo(project / "pipe")
    monkeypatch.setenv("PENSTOCK_HOME", str(project / "state"))
    assert bundle.pack(project).digest == before


def test_links_are_followed_to_files_only(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "shared.py", "shared = 1")
    (project / "shared.py").symlink_to(tmp_path / "shared.py")
    (project / "nothing").symlink_to("nowhere")
    (project / "loop").symlink_to(".")
    packed = bundle.pack(project)
    assert "shared.py" in packed.files
    assert sorted(packed.warnings) == [
        "loop is a link to a folder and is left out: links are followed to files only",
        "nothing is a link to nothing and is left out",
    ]


def test_large_files_except_python_are_excluded_with_a_warning(project: Path) -> None:
    write(project / "weights.bin", bytes(source.FILE_LIMIT + 1))
    write(project / "generated.py", b"#" * (source.FILE_LIMIT + 1))
    packed = bundle.pack(project)
    assert "generated.py" in packed.files
    assert "weights.bin" not in packed.files
    assert len(packed.warnings) == 1
    assert "weights.bin (1.0 MiB)" in packed.warnings[0]


def test_an_oversized_bundle_is_rejected_naming_the_largest_files(project: Path) -> None:
    for n in range(22):
        write(project / f"part{n}.bin", bytes(source.FILE_LIMIT - n))
    with pytest.raises(DefinitionError, match=r"more than 20\.0 MiB.*part0\.bin \(1\.0 MiB\).*\.penstockignore"):
        bundle.pack(project)
    write(project / ".penstockignore", "*.bin\n")
    assert "part0.bin" not in bundle.pack(project).files


def test_a_folder_with_too_many_files_is_rejected(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_ENTRIES", 5)
    with pytest.raises(DefinitionError, match="move the pipeline into a separate folder"):
        bundle.pack(project)


@pytest.mark.parametrize(
    ("patterns", "left_out", "kept"),
    [
        ("*.csv", ["a.csv", "x/y/b.csv"], ["a.csvx", "csv"]),
        ("/a.csv", ["a.csv"], ["x/a.csv"]),
        ("x/*.csv", ["x/a.csv"], ["x/y/a.csv", "z/x/a.csv"]),
        ("x/**/a", ["x/a", "x/y/z/a"], ["a", "xa"]),
        ("**/tmp", ["tmp", "a/b/tmp"], ["tmpx"]),
        ("data/**", ["data/a", "data/a/b"], ["data"]),
        ("tmp/", ["tmp/"], ["tmp"]),
        ("a?.[bc]", ["ax.b", "ay.c"], ["a.b", "ax.d", "a/.b"]),
        ("[!a].py", ["b.py"], ["a.py"]),
        ("*.py\n!keep.py", ["a.py"], ["keep.py"]),
        ("# a\n\n  \n", [], ["a", "# a"]),
        ("a.b+c(d)", ["a.b+c(d)"], ["aXb+c(d)"]),
        ("[z-a", ["[z-a"], ["z"]),
        ("[z-a]", ["[z-a]"], ["b"]),
    ],
)
def test_ignore_patterns(patterns: str, left_out: list[str], kept: list[str]) -> None:
    rules = Rules(patterns.splitlines())
    assert [name for name in left_out if not rules.match(name.rstrip("/"), name.endswith("/"))] == []
    assert [name for name in kept if rules.match(name, folder=False)] == []


def test_ignore_patterns_match_git(tmp_path: Path) -> None:
    """The same patterns exclude the same files in git and here."""
    patterns = "*.log\n/only_root\nlib/*.so\n**/gen/\n!keep.log\ndocs/**/x.txt\n"
    names = ["a.log", "keep.log", "only_root", "sub/only_root", "lib/a.so", "lib/b/a.so", "gen/x", "a/gen/y"]
    names += ["docs/x.txt", "docs/a/x.txt", "x.txt", "b.py", "sub/keep.log", "sub/c.log"]
    for name in names:
        write(tmp_path / name)
    write(tmp_path / ".gitignore", patterns)
    write(tmp_path / ".penstockignore", patterns)
    git(tmp_path, "init", "-q")
    listed = git(tmp_path, "ls-files", "--others", "--exclude-standard").split()
    assert bundle.pack(tmp_path).files == tuple(sorted(name for name in listed if not name.startswith(".")))


@pytest.mark.parametrize(
    ("file", "root", "module"),
    [("pipeline.py", ".", "pipeline"), ("features/steps.py", ".", "features.steps"), ("data/x.py", "data", "x")],
)
def test_the_project_of_a_file(project: Path, file: str, root: str, module: str) -> None:
    assert bundle.project_of(project / file) == ((project / root).resolve(), module)
    assert bundle.project_of(project / "features/__init__.py") == (project, "features")


# -------------------------------------------------------------------------------------------------------------- git


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def test_git_metadata_has_commit_branch_remote_and_changes(project: Path) -> None:
    assert bundle.git_info(project) is None
    git(project, "init", "-q")
    assert bundle.git_info(project) is None
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    git(project, "remote", "add", "origin", "https://me:secret@example.com/acme/models.git")
    commit = git(project, "rev-parse", "HEAD").strip()
    remote = "https://example.com/acme/models.git"
    assert bundle.git_info(project) == {"commit": commit, "branch": "main", "remote": remote, "dirty": False}
    # A change elsewhere in the repository does not affect this folder.
    write(project / "elsewhere.py")
    assert (bundle.git_info(project / "features") or {})["dirty"] is False
    assert (bundle.git_info(project) or {})["dirty"] is True
    git(project, "checkout", "-q", "--detach")
    assert (bundle.git_info(project) or {})["branch"] == ""


def test_without_git_there_is_no_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert bundle.git_info(project) is None


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:pass@example.com/x.git", "https://example.com/x.git"),
        ("https://token@example.com/x.git", "https://example.com/x.git"),
        ("ssh://git@example.com:22/x", "ssh://example.com:22/x"),
        ("git@example.com:x/y.git", "git@example.com:x/y.git"),
        ("https://example.com/x?token=1", "https://example.com/x"),
        ("/srv/git/x", "/srv/git/x"),
    ],
)
def test_credentials_are_removed_from_remote_urls(address: str, shown: str) -> None:
    assert without_credentials(address) == shown


# ------------------------------------------------------------------------------------------------------ environment


def test_the_environment_lists_installed_packages_without_paths() -> None:
    info = bundle.environment_info()
    assert info["implementation"] == "cpython"
    assert info["version"] == ".".join(map(str, sys.version_info[:3]))
    from importlib import metadata

    for name in ("penstock", "scikit-learn", "typing-extensions"):
        assert info["packages"][name] == metadata.version(name)
    assert bundle.environment_info()["digest"] == info["digest"]
    assert sys.prefix not in json.dumps(info)
    hint = bundle.interpreter_info()
    assert hint["python"] == sys.executable
    assert all(Path(folder).stat().st_mtime_ns == at for folder, at in hint["folders"].items())


def test_another_interpreter_reports_the_same_environment() -> None:
    code = "from penstock.bundle import environment; environment.main()"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {
        "environment": bundle.environment_info(),
        "interpreter": bundle.interpreter_info(),
    }


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate package folder on the module path."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    return folder


@pytest.mark.parametrize(
    ("origin", "version"),
    [
        ('{"url": "file:///home/ada/lib", "dir_info": {"editable": true}}', "1.0"),
        ('{"url": "https://h/x.git", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}', "1.0 commit 01234"),
        ('{"url": "file:///x.whl", "archive_info": {"hashes": {"sha256": "0123456789abcdef"}}}', "1.0 sha256:0123"),
        ('{"url": "file:///x.whl", "archive_info": {"hash": "sha256=0123456789abcdef"}}', "1.0 sha256:0123"),
        ("no JSON", "1.0"),
    ],
)
def test_an_unpublished_distribution_is_identified_by_its_content(site: Path, origin: str, version: str) -> None:
    write(site / "My_own.lib-1.0.dist-info" / "direct_url.json", origin)
    packages = bundle.environment_info()["packages"]
    assert list(packages) == ["my-own-lib"]
    assert packages["my-own-lib"].startswith(version)
    assert "ada" not in packages["my-own-lib"]


def test_a_distribution_from_a_folder_is_identified_by_its_files(site: Path) -> None:
    info = site / "mine-1.0.dist-info"
    write(info / "direct_url.json", '{"url": "file:///home/ada/mine", "dir_info": {}}')
    found: list[str] = []
    for module, script, url in (("a", "x", "u"), ("a", "y", "v"), ("b", "y", "v")):
        lines = [f"mine/__init__.py,sha256={module},1", f"../../bin/mine,sha256={script},2", "mine/x.pyc,,"]
        write(info / "RECORD", "\n".join([*lines, f"mine-1.0.dist-info/direct_url.json,sha256={url},3"]))
        found.append(bundle.environment_info()["digest"])
    assert found[0] == found[1] != found[2]


def test_the_environment_digest_depends_on_packages_and_not_on_project_code(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(site), str(site.parent)])
    digests = [bundle.environment_info()["digest"]]
    write(site.parent / "project-1.0.egg-info" / "PKG-INFO")
    write(site.parent / "module.py")
    for tool in ("pip-25.0", "penstock-0.2.0", "penstock_platform-0.2.0"):
        write(site / f"{tool}.dist-info" / "METADATA")
    assert bundle.environment_info()["digest"] == digests[0]
    write(site / "numpy-2.0.dist-info" / "METADATA")
    assert bundle.environment_info()["digest"] != digests[0]


def test_unreadable_folders_on_the_path_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(Path(__file__))])
    assert environment.environment_info()["packages"] == {}


def test_importing_the_package_is_fast() -> None:
    """Every command waits for it: neither the client nor a scientific library is imported."""
    heavy = [
        "asyncio",
        "nats",
        "numpy",
        "pandas",
        "subprocess",
        "http.client",
        "penstock.client.client",
        "penstock.serialize",
    ]
    code = f"import sys; from penstock import context, pipeline, step; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
