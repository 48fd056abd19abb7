"""Versions built from a Git repository on loopback: by the command, through the platform, to the steps."""

from __future__ import annotations

import hmac
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock import Client
from penstock.client import platform
from penstock_testkit.environment import user_environment
from penstock_testkit.servers.git import HttpGitServer, Repository
from penstock_testkit.servers.package_index import PackageIndex

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOW = """
from helpers import double
from penstock import pipeline, step

print("the module is imported")


@step
def first() -> list[str]:
    import tools
    return [tools.VERSION, str(double(21))]


@pipeline
def training() -> list[str]:
    return first()
"""

FORGED = """
import os

for number in range(3, 20):
    try:
        os.write(number, b"[]")
    except OSError:
        pass
os._exit(0)
"""

HOSTILE = """
import os
import pathlib
import socket
import sys

import penstock
from penstock import pipeline, step

found = []
checkout = os.path.dirname(os.path.dirname(__file__))
needed = (checkout, sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(penstock.__file__)))
for path in ({home!r}, "/root", "/etc", "/home", "/var", "/tmp", "/run"):
    for base, _, files in os.walk(path):
        names = [os.path.join(base, name) for name in files]
        found += [name for name in names if not name.startswith((*needed, "/etc/alternatives", "/etc/ld.so"))]
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        texts = (process / "environ").read_text().split("\\0")
        found += [text for text in texts if "PENSTOCK" in text or {word!r}[::-1] in text]
    except OSError:
        pass
try:
    socket.create_connection(("127.0.0.1", {port}), 2).close()
    found.append("network")
except OSError:
    pass
found += [name for name in os.environ if "PENSTOCK" in name or "TOKEN" in name]


@step
def first() -> int:
    return 1


def hostile() -> int:
    return first()


hostile.__doc__ = "found: " + ", ".join(found)
hostile = pipeline(hostile)
"""


class Workspace:
    """A platform, a Git server with a repository, and a package index."""

    def __init__(self, folder: Path, index: PackageIndex, server: HttpGitServer) -> None:
        self.folder = folder
        self.server = server
        self.repository = Repository(server.root / "team" / "repo")
        self.url = f"git+{server.url}/team/repo"
        self.index = index
        (folder / "secrets" / "default").mkdir(parents=True)
        (folder / "secrets" / "default" / "deploy").write_text("t0ken-word")
        self.environment = {
            **user_environment(),
            "PENSTOCK_HOME": str(folder / "home"),
            "PENSTOCK_GIT_PROTOCOLS": "http",
            "PENSTOCK_SECRET_GITHUB": "correct-horse",
            "PENSTOCK_SECRETS_FOLDER": str(folder / "secrets"),
            "UV_CACHE_DIR": str(folder / "uv-cache"),
            "UV_HTTP_RETRIES": "0",
            "COLUMNS": "160",
        }
        self.process = self.up()

    def up(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [PENSTOCK, "up", "--port", "0"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 90
        while platform.find(self.folder / "home") is None:
            assert time.monotonic() < deadline and process.poll() is None, "the platform did not start"
            time.sleep(0.2)
        return process

    def client(self) -> Client:
        return Client(home=self.folder / "home")

    def call(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def commit(self, flow: str, folder: str = "train", **more: str) -> str:
        files = {f"{folder}/pipeline.py": flow, f"{folder}/helpers.py": "def double(x):\n    return 2 * x\n"}
        files[f"{folder}/requirements.txt"] = f"--index-url {self.index.url}\ntools<2\n"
        return self.repository.commit(files | {f"{folder}/{name}": text for name, text in more.items()})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("git-builds")
    with PackageIndex() as index, HttpGitServer(folder / "repositories") as server:
        for version in ("1.0", "2.0"):
            index.add("tools", version)
        made = Workspace(folder, index, server)
        made.commit(f"{FLOW}\n# The first commit of `main`.\n")
        yield made
        made.process.send_signal(signal.SIGTERM)
        made.process.wait(60)


def test_a_repository_becomes_a_version_that_runs_in_the_environment_of_its_files(workspace: Workspace) -> None:
    commit = workspace.commit(FLOW)
    source = f"{workspace.url}@main#subdirectory=train:training"
    done = workspace.call("register", source)
    assert done.stdout == f"published training v1 (commit {commit[:12]})\n"
    assert "the module is imported" in done.stderr and "environment 'project'" in done.stderr
    ran = json.loads(workspace.call("run", "training", "--json").stdout)
    assert ran["outputs"]["result"] == ["1.0", "42"]
    assert workspace.client().pipelines.get("training", 1).git == {
        "commit": commit,
        "branch": "main",
        "remote": f"{workspace.server.url}/team/repo",
        "dirty": False,
    }
    listed = json.loads(workspace.call("builds", "list", "--json").stdout)
    assert [(one["kind"], one["state"]) for one in listed] == [("environment", "ready"), ("version", "ready")]
    assert (listed[1]["source"], listed[1]["version"], listed[1]["commit"]) == (source, 1, commit)
    before = len(workspace.server.requests)
    again = json.loads(workspace.call("register", source, "--json").stdout)
    assert (again["version"], again["created"], again["state"]) == (1, False, "ready")
    log = workspace.call("builds", "log", "last").stdout
    assert "was built before" in log and "compiling" not in log
    assert len(workspace.server.requests) - before <= 3  # the branch was resolved, nothing was fetched


def test_an_equal_folder_on_a_machine_has_the_same_code(workspace: Workspace) -> None:
    workspace.commit(FLOW)
    workspace.call("register", f"{workspace.url}@main#subdirectory=train")
    built = workspace.client().pipelines.get("training")
    folder = workspace.folder / "clone"
    workspace.repository.git("clone", "--quiet", ".", str(folder))
    version = workspace.client().pipelines.register(str(folder / "train"), publish=False)
    registered = workspace.client().pipelines.get("training", version.version)
    # Only the environment differs: that of the machine, not that of the files.
    assert registered.source == built.source


def test_fifty_equal_requests_cost_one_build(workspace: Workspace) -> None:
    workspace.commit(FLOW.replace("def training", "def fifty").replace("double(21)", "double(4)"))
    source = f"{workspace.url}@main#subdirectory=train:fifty"
    client = workspace.client()
    with ThreadPoolExecutor(50) as pool:
        builds = list(pool.map(lambda _: client.builds.start(source), range(50)))
    ended = [client.builds.wait(one) for one in {one.id for one in builds}]
    assert {(one.pipeline, one.version) for one in ended} == {("fifty", 1)}
    logs = [workspace.call("builds", "log", one.id).stdout for one in ended]
    assert sum("compiling train/pipeline.py" in log for log in logs) == 1


@pytest.mark.parametrize(
    ("name", "flow", "why"),
    [
        ("syntax", "def x(:\n", "train/pipeline.py:1: SyntaxError"),
        ("import", "import nothing_like_this\n", "No module named 'nothing_like_this'"),
        ("none", "x = 1\n", "has no pipeline"),
        ("exit", "import os\nos._exit(3)\n", "its process ended early (exit code 3)"),
        ("output", "for _ in range(30_000): print('x' * 1000)\nimport nothing", "No module named 'nothing'"),
        ("result", FORGED, "no result"),
    ],
)
def test_a_pipeline_that_cannot_be_compiled_is_one_failed_build(
    workspace: Workspace, name: str, flow: str, why: str
) -> None:
    workspace.repository.git("checkout", "--quiet", "-B", f"broken-{name}")
    workspace.commit(flow)
    done = workspace.call("register", f"{workspace.url}@broken-{name}#subdirectory=train", code=2)
    assert why in done.stderr and 'File "/' not in done.stderr, done.stderr
    # The build of its environment is a build of its own, where that was not built before.
    shown = next(build for build in workspace.client().builds.list() if build.kind == "version")
    assert shown.state == "failed"
    assert workspace.call("builds", "show", shown.id).stdout.count("error: ") >= 1
    workspace.repository.git("checkout", "--quiet", "main")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("@nope#subdirectory=train", "has no branch or tag 'nope'"),
        ("@main#subdirectory=nowhere", "the repository has no folder or file 'nowhere'"),
        ("@main#subdirectory=train:other", "has no pipeline 'other'"),
        ("-missing@main", "cannot be read"),
        ("@main#subdirectory=train&secret=unknown", "'unknown'"),
    ],
)
def test_a_source_that_does_not_exist_is_one_clear_error(workspace: Workspace, source: str, why: str) -> None:
    workspace.commit(FLOW)
    done = workspace.call("register", f"{workspace.url}{source}", code=2)
    assert why in done.stderr and "Traceback" not in done.stderr


def test_requirements_that_cannot_be_resolved_are_the_words_of_the_resolver(workspace: Workspace) -> None:
    workspace.repository.git("checkout", "--quiet", "-B", "unresolvable")
    workspace.commit(FLOW, **{"requirements.txt": f"--index-url {workspace.index.url}\ntools>=7\n"})
    done = workspace.call("register", f"{workspace.url}@unresolvable#subdirectory=train", code=2)
    assert "environment 'project' cannot be built: No solution found" in done.stderr
    workspace.repository.git("checkout", "--quiet", "main")


def test_a_hostile_pipeline_sees_nothing_of_the_builder(workspace: Workspace) -> None:
    port = int(workspace.server.url.rpartition(":")[2])
    flow = HOSTILE.format(home=str(workspace.folder / "home"), port=port, word="t0ken-word"[::-1])
    workspace.commit(flow, "hostile")
    done = workspace.call("register", f"{workspace.url}@main#subdirectory=hostile&secret=deploy")
    found = workspace.client().pipelines.get("hostile").definition["description"]
    if "without a sandbox" in done.stderr:
        assert "PENSTOCK" not in found and "t0ken-word" not in found
        pytest.skip("bubblewrap does not work on this machine")
    assert found in ("found:", "found: /etc/localtime")


def test_a_private_repository_needs_its_secret_which_is_nowhere(workspace: Workspace) -> None:
    workspace.commit(FLOW.replace("def training", "def private"))
    source = f"{workspace.url}@main#subdirectory=train"
    workspace.server.passwords = {"oauth2": "t0ken-word"}
    try:
        refused = workspace.call("register", f"{source}:private", code=2)
        assert "needs other credentials" in refused.stderr
        workspace.call("register", f"{source}&secret=deploy:private")
    finally:
        workspace.server.passwords = {}
    files = [path for path in (workspace.folder / "home").rglob("*") if path.is_file()]
    assert len(files) > 10 and not [path for path in files if b"t0ken-word" in path.read_bytes()]


def test_a_build_is_cancelled(workspace: Workspace) -> None:
    workspace.repository.git("checkout", "--quiet", "-B", "slow")
    workspace.commit("import time\nprint('waiting', flush=True)\ntime.sleep(1000)\n")
    workspace.repository.git("checkout", "--quiet", "main")
    started = workspace.call("register", f"{workspace.url}@slow#subdirectory=train", "--no-wait").stdout
    assert "penstock builds log -f version-" in started
    client = workspace.client()
    build = client.builds.list()[0]
    deadline = time.monotonic() + 60
    while "compiling" not in workspace.call("builds", "log", build.id).stdout:
        assert time.monotonic() < deadline
    assert "cancelled build" in workspace.call("builds", "cancel", "last").stdout
    shown = client.builds.get(build.id)
    assert shown.state == "cancelled" and shown.error.startswith("it was cancelled by user:")
    followed = workspace.call("builds", "log", "-f", build.id, code=1)
    assert "it was cancelled by" in followed.stderr
    refused = workspace.call("builds", "cancel", "version-000000000000-1", code=2)
    assert "there is no build" in refused.stderr
    workspace.call("register", f"{workspace.url}@main#subdirectory=train")


def test_a_build_survives_kills_of_the_platform(workspace: Workspace) -> None:
    workspace.repository.git("checkout", "--quiet", "-B", "killed")
    workspace.commit(FLOW.replace("def training", "def killed") + "\nimport time\ntime.sleep(3)\n")
    workspace.repository.git("checkout", "--quiet", "main")
    build = workspace.client().builds.start(f"{workspace.url}@killed#subdirectory=train")
    for _ in range(2):
        deadline = time.monotonic() + 60
        while workspace.client().builds.get(build.id).commit == "":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        workspace.process.kill()
        workspace.process.wait(30)
        workspace.process = workspace.up()
    found = workspace.client().builds.wait(build.id)
    assert (found.pipeline, found.version) == ("killed", 1)
    assert not list((workspace.folder / "home" / "builds").glob("*/source/.git"))


PUBLISHING = """
deployments:
  on-push:
    pipeline: pushed
    triggers:
      - webhook: github
        secret: secret:github
        events: push
        publish: {source!r}
      - on: penstock.build.finished.v1
        name: built
        filter: data.pipeline == "pushed" && data.state == "succeeded"
"""


def test_a_push_publishes_a_version_which_starts_a_run(workspace: Workspace) -> None:
    flow = FLOW.replace("def training", "def pushed")
    workspace.commit(flow)
    source = f"{workspace.url}@main#subdirectory=train:pushed"
    workspace.call("register", source)
    (workspace.folder / "penstock.yaml").write_text(PUBLISHING.format(source=source))
    workspace.call("apply", "penstock.yaml")
    commit = workspace.commit(flow.replace("double(21)", "double(50)"))
    url = json.loads((workspace.folder / "home" / "platform.json").read_text())["url"]
    for delivery, ref in (("one", "refs/heads/dev"), ("two", "refs/heads/main"), ("two", "refs/heads/main")):
        body = json.dumps({"ref": ref, "after": commit, "repository": {}}).encode()
        signature = hmac.new(b"correct-horse", body, "sha256").hexdigest()
        headers = {
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": delivery,
            "X-Hub-Signature-256": f"sha256={signature}",
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(f"{url}/v1/webhooks/default/on-push", body, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            assert response.status in (200, 202)
    client = workspace.client()
    deadline = time.monotonic() + 120
    while not (runs := client.runs.list(pipeline="pushed")) or runs[0].state != "succeeded":
        assert time.monotonic() < deadline, client.builds.list()[:3]
        time.sleep(0.2)
    assert [run.version for run in runs] == [2]
    assert client.pipelines.get("pushed").git["commit"] == commit  # type: ignore[index]
    built = [one for one in client.builds.list() if one.requested_by == "trigger:on-push"]
    assert len(built) == 1 and built[0].source == source
    events = json.loads(workspace.call("events", "list", "--json").stdout)
    pushes = [one for one in events if one["type"] == "com.github.push"]
    explained = [workspace.call("triggers", "explain", str(one["sequence"])).stdout for one in pushes]
    assert sum("requested a build" in text for text in explained) == 1
    assert sum("filtered" in text and "refs/heads/dev" in text for text in explained) == 1
