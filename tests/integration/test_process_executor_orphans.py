"""The process executor with steps that leave child processes, and with killed parts of its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_adapters.process import executor, orphans, sweep
from penstock_core.errors import UnavailableError
from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Inline
from penstock_testkit.executor_harness import OpenHarness, alive, failed, gone, pid_in

# ------------------------------------------------------------------------------------------------ what is left behind


@pytest.mark.parametrize("session", [False, True])
async def test_grandchildren_do_not_outlive_the_attempt(
    executor_harness: OpenHarness, tmp_path: Path, session: bool
) -> None:
    b = await executor_harness("""
        import subprocess
        from pathlib import Path

        def leave(folder, session):
            child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $! > inner; wait"], cwd=folder,
                                     start_new_session=session)
            Path(folder, "outer").write_text(str(child.pid))
            while not (Path(folder, "inner").exists() and Path(folder, "inner").read_text()):
                pass
            return 1
    """)
    end = await b.run("leave", {"folder": str(tmp_path), "session": session})
    assert end.outcome is Outcome.SUCCEEDED
    await gone(await pid_in(tmp_path / "outer"), await pid_in(tmp_path / "inner"))


async def test_a_step_that_forks_reports_once(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import os

        def fork():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            return "parent" if pid else "child"
    """)
    assert (await b.run("fork")).outputs == {"result": Inline("parent")}


async def test_multiprocessing_works_inside_a_step(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        def double(n): return 2 * n

        def pool(method):
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as workers:
                return list(workers.map(double, range(4)))
    """)
    for method in ("fork", "spawn"):
        end = await b.run("pool", {"method": method}, key=method)
        assert end.outputs == {"result": Inline([0, 2, 4, 6])}, end.error


async def test_close_leaves_no_process(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness("""
        import os, subprocess
        from pathlib import Path

        def busy(folder):
            Path(folder, "server").write_text(str(os.getppid()))
            child = subprocess.Popen(["sleep", "60"], start_new_session=True)
            Path(folder, "pid").write_text(str(child.pid))
            child.wait()
    """)
    key = await b.start("busy", {"folder": str(tmp_path)})
    grandchild = await pid_in(tmp_path / "pid")
    await b.executor.close()
    failed(b.events.ends[key], "Lost", "the executor stopped", outcome=Outcome.LOST)
    assert not alive(b.events.began[key].pid) and not alive(await pid_in(tmp_path / "server"))
    await gone(grandchild)
    assert list((b.home / "work").iterdir()) == []
    with pytest.raises(UnavailableError):
        await b.start("busy")
    await b.executor.close()


# ------------------------------------------------------------------------------------------------- fork servers that go


async def test_a_killed_fork_server_loses_only_its_own_attempts(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness("""
        import os, subprocess, time
        from pathlib import Path

        def busy(folder):
            child = subprocess.Popen(["sleep", "60"], start_new_session=True)
            Path(folder, "pid").write_text(str(child.pid))
            time.sleep(60)

        def server(): return os.getppid()
    """)
    pid = (await b.run("server")).outputs["result"]
    other = (await b.run("server", key="other", env={"OTHER": "1"})).outputs["result"]
    assert isinstance(pid, Inline) and pid != other
    key = await b.start("busy", {"folder": str(tmp_path)})
    grandchild = await pid_in(tmp_path / "pid")
    os.kill(pid.value, signal.SIGKILL)
    end = await b.events.until("ends", key)
    failed(end, "Lost", "fork server", "SIGKILL", outcome=Outcome.LOST)
    assert not alive(b.events.began[key].pid) and not alive(grandchild)
    assert (await b.run("server", key="again")).outputs["result"] not in (pid, other)
    assert (await b.run("server", key="other-again", env={"OTHER": "1"})).outputs["result"] == other


async def test_a_spare_child_that_is_killed_is_replaced(executor_harness: OpenHarness) -> None:
    b = await executor_harness("import os\n\ndef server(): return os.getppid()")
    pid = (await b.run("server")).outputs["result"]
    assert isinstance(pid, Inline)
    for n in range(5):
        for child in Path(f"/proc/{pid.value}/task/{pid.value}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        end = await b.run("server", key=f"s{n}")
        # It may have been killed after it received the attempt.
        assert end.outputs == {"result": pid} or (end.error and end.error.type == "Signal"), end


async def test_idle_fork_servers_exit(executor_harness: OpenHarness) -> None:
    b = await executor_harness("import os\n\ndef server(): return os.getppid()", servers=1, idle=0.2)
    first = (await b.run("server", key="a", env={"A": "1"})).outputs["result"]
    second = (await b.run("server", key="b", env={"A": "2"})).outputs["result"]
    assert isinstance(first, Inline) and isinstance(second, Inline)
    await gone(first.value, second.value)  # one is too many, the other idle for too long
    assert (await b.run("server", key="c", env={"A": "1"})).outcome is Outcome.SUCCEEDED


async def test_a_missing_interpreter(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def fine(): return 1")
    where = b.where
    b.where = replace(where, python="/no/such/python")
    await b.executor.submit(b.request("fine"))
    failed(b.events.ends["fine"], "EnvironmentUnusable", "/no/such/python")
    b.where = where
    await b.executor.submit(b.request("fine", key="bad-env", env={"A=B": "\0"}))
    failed(b.events.ends["bad-env"], "EnvironmentUnusable")


async def test_an_interpreter_without_penstock_is_reported(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness("def fine(): return 1")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    b.where = replace(b.where, python=str(python))
    await b.executor.submit(b.request("fine"))
    failed(await b.events.until("ends", "fine"), "ImportCrash", "exited with code 1", "penstock")


# ----------------------------------------------------------------------------------------------- an executor that dies

_EXECUTOR = """
import asyncio, sys
from pathlib import Path
from penstock_testkit.executor_harness import ExecutorHarness

async def main():
    async with ExecutorHarness(Path(sys.argv[1]), '''
import os, subprocess, time
from pathlib import Path

def busy(folder):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    Path(folder, "child").write_text(str(child.pid))
    Path(folder, "server").write_text(str(os.getppid()))
    Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(60)
''') as bed:
        await bed.start("busy", {"folder": sys.argv[1]})
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("server_too", [False, True])
async def test_processes_of_a_killed_executor_exit(tmp_path: Path, server_too: bool) -> None:
    executor = subprocess.Popen([sys.executable, "-c", _EXECUTOR, str(tmp_path)])
    server, child, pid = -1, -1, -1
    try:
        pid = await pid_in(tmp_path / "pid")
        server, child = await pid_in(tmp_path / "server"), await pid_in(tmp_path / "child")
        assert sweep(tmp_path / "home") == 0  # its executor is running
        assert alive(pid) and alive(server) and alive(child)
        if server_too:
            os.kill(server, signal.SIGSTOP)  # it cannot detect the exit of the executor
        executor.kill()
        executor.wait()
        if server_too:
            assert sweep(tmp_path / "home") >= 2
        await gone(pid, server, child)
        sweep(tmp_path / "home")
        assert list((tmp_path / "home" / "work").iterdir()) == []
    finally:
        executor.kill()
        executor.wait()
        for left in (pid, server, child):
            if left > 0:
                with suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)


async def test_an_unresponsive_fork_server_is_replaced(
    executor_harness: OpenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_HANDOVER", 0.3)
    b = await executor_harness("import os\n\ndef server(): return os.getppid()")
    pid = (await b.run("server")).outputs["result"]
    assert isinstance(pid, Inline)
    os.kill(pid.value, signal.SIGSTOP)
    began = time.monotonic()
    failed(await b.run("server", key="stuck"), "Lost", outcome=Outcome.LOST)
    assert time.monotonic() - began < 10
    assert (await b.run("server", key="next")).outcome is Outcome.SUCCEEDED


async def test_every_attempt_finishes_once_despite_kills(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness("import time\n\ndef nap(n):\n    time.sleep(n % 5 / 100)\n    print(n)\n    return n")
    choose = random.Random(4)
    numbers = iter(range(120))

    async def worker() -> None:
        for n in numbers:
            end = await b.run("nap", {"n": n}, key=f"nap{n}")
            assert end.outcome in (Outcome.SUCCEEDED, Outcome.LOST, Outcome.FAILED)
            if end.outcome is Outcome.SUCCEEDED:
                assert (end.outputs, b.events.text(f"nap{n}")) == ({"result": Inline(n)}, f"{n}\n")
            elif end.outcome is Outcome.FAILED:
                assert end.error is not None and end.error.type == "Signal"

    def good() -> int:
        return sum(end.outcome is Outcome.SUCCEEDED for end in b.events.ends.values())

    async def killer() -> None:
        while True:
            # On a busy machine starting a server takes long: leave time for progress between two kills.
            before = good()
            while good() == before:
                await asyncio.sleep(0.02)
            for server in b.executor._pool.all():  # pyright: ignore[reportPrivateUsage]
                children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
                victims = [server.pid, *map(int, children.read_text().split())] if children.exists() else []
                with suppress(ProcessLookupError):
                    os.kill(choose.choice(victims), signal.SIGKILL)

    killing = asyncio.create_task(killer())
    await asyncio.gather(*(worker() for _ in range(6)))
    killing.cancel()
    assert len(b.events.ends) == 120
    bad = [end for end in b.events.ends.values() if end.outcome is not Outcome.SUCCEEDED]
    assert 0 < len(bad) < 120
    assert (await b.run("nap", {"n": 1}, key="after")).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("removed_before", ["open", "lock"])
def test_a_work_folder_that_a_concurrent_sweep_removes_is_created_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, removed_before: str
) -> None:
    """Executors of one state folder start at the same time, and each removes unlocked folders first."""
    calls = {"open": os.open, "lock": orphans.fcntl.flock}
    removed: list[Path] = []

    def sweep_once() -> None:
        if not removed:
            removed.extend((tmp_path / "work").iterdir())
            removed[0].rmdir()

    def open_folder(path: Path, flags: int) -> int:
        if removed_before == "open":
            sweep_once()
        return calls["open"](path, flags)

    def lock(descriptor: int, operation: int) -> None:
        if removed_before == "lock":
            sweep_once()
        calls["lock"](descriptor, operation)

    monkeypatch.setattr(orphans.os, "open", open_folder)
    monkeypatch.setattr(orphans.fcntl, "flock", lock)
    folder = orphans.WorkFolder(tmp_path)
    assert folder.path.is_dir() and removed[0] != folder.path
    monkeypatch.undo()
    folder.release()
