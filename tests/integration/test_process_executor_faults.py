"""The process executor on real processes that crash, lie, hang, or are cancelled."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from penstock_adapters.process import executor
from penstock_core import exhaustion
from penstock_core.facts import Outcome
from penstock_core.pipeline.ir import Resources
from penstock_core.pipeline.values import Inline
from penstock_testkit.executor_harness import OpenHarness, failed, gone, pid_in

# -------------------------------------------------------------------------------------------------- ends without result


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        ("os._exit(3)", "Exit", "called exit with code 3 before the step returned"),
        ("os._exit(0)", "Exit", "called exit with code 0 before the step returned"),
        ("os.kill(os.getpid(), 9)", "Signal", "killed by signal 9 (SIGKILL)"),
        ("os.kill(os.getpid(), 15)", "Signal", "killed by signal 15 (SIGTERM)"),
        ("import ctypes; ctypes.string_at(0)", "Signal", "signal 11 (SIGSEGV)"),
    ],
)
async def test_exiting_without_a_result(executor_harness: OpenHarness, body: str, kind: str, text: str) -> None:
    b = await executor_harness(f"import os\n\ndef end():\n    print('before')\n    {body}\n\ndef fine(): return 1\n")
    end = await b.run("end")
    failed(end, kind, text)
    assert b.events.text("end").startswith("before\n")
    assert end.started_at > 0
    if "SEGV" in text:
        assert "steps.py" in b.events.text("end")  # Python's stack, by faulthandler
    assert (await b.run("fine")).outputs == {"result": Inline(1)}


FULL = """
import errno, os
import penstock.store
from penstock.runner import child

def refuse(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

def own():
    raise OSError(errno.EMFILE, "Too many open files")

def large():
    penstock.store.FolderStore.temporary = refuse
    return "x" * 1_000_000
"""


async def test_a_full_disk_of_the_platform_is_not_the_steps_failure(executor_harness: OpenHarness) -> None:
    b = await executor_harness(FULL)
    end = await b.run("large")
    assert (end.outcome, end.error and end.error.type) == (Outcome.LOST, exhaustion.OUT_OF_RESOURCES)
    failed(await b.run("own"), "OSError", "Too many open files")


async def test_an_attempt_without_room_for_its_files_is_lost_before_it_starts(executor_harness: OpenHarness) -> None:
    b = await executor_harness(FULL + "child._prepare = refuse\n")
    end = await b.run("own")
    assert (end.outcome, end.error and end.error.type) == (Outcome.LOST, exhaustion.OUT_OF_RESOURCES)
    assert end.started_at == 0


async def test_a_child_killed_externally(executor_harness: OpenHarness) -> None:
    b = await executor_harness(
        "import time\n\ndef sleep():\n    print('began')\n    time.sleep(60)\n\ndef fine(): return 1"
    )
    key = await b.start("sleep")
    await b.events.until("entries", key)
    os.kill(b.events.began[key].pid, signal.SIGKILL)
    failed(await b.events.until("ends", key), "Signal", "SIGKILL", "out of memory")
    assert (await b.run("fine")).outcome is Outcome.SUCCEEDED


async def test_memory_beyond_the_limit(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        def hog(): return len(bytearray(400 * 2**20))
        def array():
            import numpy as np
            return float(np.ones(60 * 2**20).sum())
    """)
    limited = Resources(memory=256 * 2**20)
    end = await b.run("hog", resources=limited)
    failed(end, "OutOfMemory", "memory limit of 256 MiB")
    assert end.error is not None and "MemoryError" in end.error.bases and "steps.py" in end.error.traceback
    failed(await b.run("array", resources=limited), "OutOfMemory", "Unable to allocate")
    b.write(
        "tables",
        """
        import pandas as pd

        def table(): return pd.DataFrame({"a": range(1000)})  # with pyarrow, which reserves far more than it uses
        def read(table): return len(table)
    """,
    )
    made = await b.run("tables:table", resources=limited)
    assert made.error is None
    assert (await b.run("tables:read", {"table": made.outputs["result"]}, resources=limited)).error is None
    assert (await b.run("hog", key="unlimited")).outputs == {"result": Inline(400 * 2**20)}


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (b"not json", "is invalid"),
        (b'{"run_id":"other","key":"forge","attempt":1,"outcome":"succeeded"}', "that of subject"),
        (b'{"run_id":"run1","key":"forge","attempt":1,"outcome":"lost"}', "cannot end like this"),
        (b'{"run_id":"run1","key":"forge","attempt":1,"outcome":"succeeded","metrics":{"a":"b"}}', "metrics"),
        (b"[" * 50_000, "is invalid"),
    ],
)
async def test_forged_results_affect_only_their_own_attempt(
    executor_harness: OpenHarness, monkeypatch: pytest.MonkeyPatch, what: bytes, text: str
) -> None:
    monkeypatch.setattr(executor, "_LINGER", 0.1)
    b = await executor_harness("""
        import os, socket, time

        def forge(what):
            link = next(s for s in map(lambda n: _socket(n), range(3, 1024)) if s)
            link.send(b"result x y z\\n")
            link.send(b"\\xff\\xfe\\n\\n")
            link.send(b"exit 99999 0\\n")
            link.send(b"imported\\n")
            link.send(b"exit 1 0\\n")
            link.send(b"refused steps\\n{}")
            for number in range(1, 3):
                link.send(b"result %d 0\\n" % number + what.encode())
            time.sleep(60)

        def _socket(n):
            try:
                s = socket.socket(fileno=os.dup(n))
                return s if s.type == socket.SOCK_SEQPACKET else None
            except OSError:
                return None

        def wait(): time.sleep(0.5)

        def fine(): return 1
    """)
    other = await b.start("wait")  # number 1
    end = await b.run("forge", {"what": what.decode()})  # number 2
    failed(end, "BadResult", text)
    await gone(b.events.began["forge"].pid)  # no longer needed after its result
    assert (await b.events.until("ends", other)).outcome is Outcome.SUCCEEDED
    assert (await b.run("fine")).outcome is Outcome.SUCCEEDED


async def test_an_oversized_result_is_rejected(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        class Step:
            hints, outputs = {}, {}
            def __init__(self, entry): self.entry = entry
            def function(self, parts): return parts
            def split(self, parts): return {f"p{n}": self.entry for n in range(parts)}

        texts = Step(["y" * 60_000])
        files = Step([b""] * 2000)
    """)
    end = await b.run("texts", {"parts": 20})
    assert end.outcome is Outcome.SUCCEEDED  # too large to be inline together: some became artifacts
    kinds = [type(value).__name__ for value in end.outputs.values()]
    assert kinds.count("Inline") == 8 and kinds.count("Stored") == 12
    failed(await b.run("files", {"parts": 6}), "ResultTooLarge", "MiB", "return one folder")


# ------------------------------------------------------------------------------------------------- timeout and cancel


async def test_a_timeout(executor_harness: OpenHarness) -> None:
    b = await executor_harness("import time\n\ndef sleep():\n    print('began')\n    time.sleep(60)")
    end = await b.run("sleep", timeout=0.3)
    failed(end, "Timeout", "ran longer than its timeout of 0.3 s", outcome=Outcome.TIMED_OUT)
    assert 0.25 < end.finished_at - b.events.began["sleep"].started_at < 30
    assert b.events.text("sleep") == "began\n"


async def test_a_timeout_of_a_step_that_ignores_sigterm_with_its_children(
    executor_harness: OpenHarness, tmp_path: Path
) -> None:
    b = await executor_harness("""
        import signal, subprocess, time
        from pathlib import Path

        def stubborn(folder):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "60"])
            Path(folder, "pid").write_text(str(child.pid))
            while True:
                time.sleep(1)
    """)
    end = await b.run("stubborn", {"folder": str(tmp_path)}, timeout=0.4)
    failed(end, "Timeout", outcome=Outcome.TIMED_OUT)
    assert end.finished_at - b.events.began["stubborn"].started_at > 0.8  # timeout and grace
    await gone(b.events.began["stubborn"].pid, await pid_in(tmp_path / "pid"))


async def test_a_step_can_clean_up_in_the_grace_period_but_its_result_is_discarded(
    executor_harness: OpenHarness, tmp_path: Path
) -> None:
    b = await executor_harness(
        """
        import signal, time
        from pathlib import Path

        def tidy(folder):
            done = []
            signal.signal(signal.SIGTERM, lambda *_: done.append(1))
            Path(folder, "pid").write_text("1")
            while not done:
                time.sleep(0.01)
            Path(folder, "tidied").touch()
            return "result"
        """,
        grace=20,
    )
    key = await b.start("tidy", {"folder": str(tmp_path)})
    await pid_in(tmp_path / "pid")
    await b.executor.cancel("run1", key, 1, "cancelled by ada")
    failed(await b.events.until("ends", key), "Cancelled", "cancelled by ada", outcome=Outcome.CANCELLED)
    assert (tmp_path / "tidied").exists()


async def test_cancel_at_every_stage(executor_harness: OpenHarness) -> None:
    b = await executor_harness("import time\ntime.sleep(0.3)\n\ndef sleep(): time.sleep(60)\n\ndef fine(): return 1")
    await b.executor.cancel("run1", "unknown", 1, "")
    key = await b.start("sleep", key="while-importing")
    await b.executor.cancel("run1", key, 1, "")
    assert key in b.events.ends and key not in b.events.began
    failed(b.events.ends[key], "Cancelled", outcome=Outcome.CANCELLED)
    await b.run("fine")
    key = await b.start("sleep", key="just-sent")
    await b.executor.cancel("run1", key, 1, "x")
    failed(await b.events.until("ends", key), "Cancelled", outcome=Outcome.CANCELLED)
    key = await b.start("sleep", key="running")
    await b.events.until("began", key)
    await b.executor.cancel("run1", key, 1, "x")
    await b.executor.cancel("run1", key, 1, "y")
    failed(await b.events.until("ends", key), "Cancelled", "x", outcome=Outcome.CANCELLED)
    await b.executor.cancel("run1", key, 1, "z")
    await gone(b.events.began["running"].pid, b.events.began["just-sent"].pid)


async def test_an_import_that_takes_too_long(executor_harness: OpenHarness) -> None:
    b = await executor_harness("import time\ntime.sleep(60)\n\ndef fine(): return 1", import_timeout=2.0)
    failed(await b.run("fine"), "Timeout", "importing module 'steps' took longer", outcome=Outcome.TIMED_OUT)
    b.write("steps", "def fine(): return 1")
    assert (await b.run("fine", key="again")).outcome is Outcome.SUCCEEDED
