"""Programs of users in a sandbox: what they can reach, and their limits."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from penstock_adapters import sandbox
from penstock_adapters.sandbox import Program, Sandbox, SandboxError
from penstock_testkit.servers.processes import processes_with


def program(folder: Path, code: str, timeout: float = 60.0, output: int = 1000) -> Program:
    readable = [folder, Path(sys.prefix), Path(sys.base_prefix)]
    return Program([sys.executable, "-I", "-c", code], folder, readable, b"in", timeout, output)


@pytest.fixture(params=["bubblewrap", "process"])
def runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    if request.param == "process":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("bwrap") is None:
        pytest.skip("bubblewrap (bwrap) is not installed")
    return Sandbox()


async def test_a_program_reads_its_input_and_its_variables_are_not_those_of_the_service(
    runs: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_NATS_CREDS", "secret-creds")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
    code = "import os, sys; print(sys.stdin.read(), sorted(os.environ)); print('a line', file=sys.stderr)"
    lines: list[str] = []
    output = (await runs.run(program(tmp_path, code), lines.append)).decode()
    names = ["HOME", "LC_ALL", "MPLBACKEND", "PATH", "TMPDIR", "TZ"]
    assert output == f"in {names}\n" or output == f"in {sorted([*names, 'PWD'])}\n"
    assert "a line" in lines


async def test_limits_of_time_and_output(runs: Sandbox, tmp_path: Path) -> None:
    marker = f"marker-{os.getpid()}-{tmp_path.name}"
    forks = f"import os, time; os.fork(); name = {marker!r}; time.sleep(1000)"
    with pytest.raises(SandboxError, match="did not end in 1 s"):
        await runs.run(program(tmp_path, forks, 1.0), print)
    assert not processes_with(marker)
    with pytest.raises(SandboxError, match="more than 1000 bytes"):
        await runs.run(program(tmp_path, "while True: print('x' * 100)"), print)
    with pytest.raises(SandboxError, match=r"exit code 3\)\nlast words"):
        await runs.run(program(tmp_path, "import sys; print('last words', file=sys.stderr); sys.exit(3)"), print)


async def test_a_sandbox_has_no_files_of_the_machine_and_no_network(tmp_path: Path) -> None:
    if not await sandbox._works():  # pyright: ignore[reportPrivateUsage]
        pytest.skip("bubblewrap (bwrap) does not work on this machine")
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        (folder / "file").write_text("x")
    code = f"""
import os, pathlib, socket
print(os.path.exists({str(own / "file")!r}), os.path.exists({str(other / "file")!r}), os.path.exists("/etc/shadow"))
print([name for _, name in socket.if_nameindex()], len(list(pathlib.Path("/proc").glob("[0-9]*"))) < 4)
try:
    open({str(own / "new")!r}, "w")
except OSError as error:
    print(type(error).__name__)
"""
    output = (await Sandbox().run(program(own, code), print)).decode().splitlines()
    assert output == ["True False False", "['lo'] True", "OSError"]


async def test_what_a_sandbox_can_write_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folders are in the memory of the machine."""
    if not await sandbox._works():  # pyright: ignore[reportPrivateUsage]
        pytest.skip("bubblewrap (bwrap) does not work on this machine")
    monkeypatch.setattr(sandbox, "_SCRATCH", 2**20)
    code = """
import multiprocessing
multiprocessing.Lock()
for folder in ("/", "/dev", "/tmp", "/dev/shm", "/home"):
    try:
        with open(f"{folder}/file", "wb") as file:
            file.write(bytes(2 * 2**20))
        print(folder)
    except OSError as error:
        pass
"""
    assert await Sandbox().run(program(tmp_path, code), print) == b""


async def test_a_required_sandbox_that_is_not_there_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxError, match="PENSTOCK_SANDBOX requires it"):
        await Sandbox(required=True).run(program(tmp_path, "print(1)"), print)
