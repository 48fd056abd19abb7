"""The process executor on real processes: output and metrics of steps."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Inline
from penstock_core.queries import series
from penstock_core.shipping import tail
from penstock_testkit.executor_harness import OpenHarness

# ------------------------------------------------------------------------------------------------ output and metrics


async def test_output_of_all_writers_is_captured_in_order(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import os, subprocess, sys
        print("at import: ü")

        def talk():
            print("grüße", end="\\n")
            print("to stderr", file=sys.stderr)
            subprocess.run(["echo", "from a program"])
            os.write(1, b"\\xff\\xfe raw \\x00 bytes\\n")
            print("no line end", end="")
    """)
    await b.run("talk")
    text = b.events.text("talk")
    assert text == (
        "at import: ü\ngrüße\nto stderr\nfrom a program\n\ufffd\ufffd raw \x00 bytes\nno line end"
    )  # fmt: skip
    assert all(entry["at"] > 1e9 for entry in b.events.entries["talk"])


async def test_output_is_streamed_while_the_step_runs(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness("""
        import os, time

        def slow(flag):
            print("first")
            print("half a ", end="", flush=True)
            while not os.path.exists(flag):
                time.sleep(0.01)
            print("line")
    """)
    flag = tmp_path / "flag"
    key = await b.start("slow", {"flag": str(flag)})
    await b.events.until("entries", key)
    assert b.events.text(key).startswith("first\n")
    assert key not in b.events.ends
    flag.touch()
    await b.events.until("ends", key)
    assert b.events.text(key) == "first\nhalf a line\n"


async def test_output_over_the_limit_is_dropped_with_a_notice(
    executor_harness: OpenHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "OUTPUT_LIMIT", 300_000)
    monkeypatch.setattr(tail, "_DISK_LIMIT", 1_000_000)
    b = await executor_harness("""
        import os, time

        def flood():
            for n in range(50):
                print(("é" * 49 + "\\n") * 1000, end="")
                time.sleep(0.02)
            return os.fstat(1).st_size
    """)
    end = await b.run("flood")
    text = b.events.text("flood")
    assert 300_000 <= len(text.encode()) < 301_000
    written = 50 * 1000 * 99
    assert f"[penstock] {(written - 300_000) / 2**20:.1f} MiB of further output were dropped" in text
    kept = end.outputs["result"]
    assert isinstance(kept, Inline) and kept.value < written  # the file was cut while the step ran


async def test_output_that_grows_in_json_is_complete(executor_harness: OpenHarness) -> None:
    b = await executor_harness("import os\n\ndef nulls():\n    for _ in range(20): os.write(1, bytes(100_000))")
    await b.run("nulls")
    assert b.events.text("nulls") == "\0" * 2_000_000


async def test_a_silent_step_has_no_output(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def quiet(): return None")
    end = await b.run("quiet")
    assert end.outputs == {"result": Inline(None)}
    assert b.events.entries == {}


async def test_metrics_are_shipped_and_their_last_values_are_in_the_result(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        from penstock import context

        def train():
            c = context()
            for n in range(3):
                c.log_metric("loss", 1 / (n + 1), step=n)
            c.log_metric("nan", float("nan"))
            c.log_param("depth", 4)
            c.set_tag("stage", "candidate")
            c.log_artifact("note", {"a": 1})
            return [c.run_id, c.step, c.attempt, c.pipeline, c.project]
    """)
    end = await b.run("train")
    assert end.outputs == {"result": Inline(["run1", "train", 1, "line", "p"])}
    assert (end.metrics, end.params) == ({"loss": 1 / 3}, {"depth": 4})
    assert end.tags == {"stage": "candidate"}
    assert end.artifacts == {"note": Inline({"a": 1})}
    wanted = [("loss", 1.0, 0), ("loss", 0.5, 1), ("loss", 1 / 3, 2), ("nan", "nan", None)]
    assert [(e["metric"], e["value"], e["step"]) for e in b.events.metrics("train")] == wanted
    assert [(p.name, series.spelled(p.value), p.step) for p in b.events.points["train"]] == wanted
    assert all(time.time() - 600 < point.at <= time.time() for point in b.events.points["train"])
    rest = [e for e in b.events.entries["train"] if "metric" not in e]
    expected = [["param", "value"], ["tag", "value"], ["artifact", "value"]]
    assert sorted(sorted(set(e) - {"at"}) for e in rest) == sorted(expected)


async def test_the_latest_progress_is_shipped_once_a_second(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        from penstock import context

        def train():
            for n in range(100_000):
                context().progress(n + 1, 100_000, "é\\n" * 300)
    """)
    began = time.monotonic()
    await b.run("train")
    took = time.monotonic() - began
    reports = b.events.progress["train"]
    last = reports[-1]
    assert (last.run_id, last.key, last.attempt) == ("run1", "train", 1)
    assert (last.done, last.total, last.text) == (100_000, 100_000, "é\n" * 100)
    assert len(reports) <= took / tail.PROGRESS_INTERVAL + 2
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert "train" not in b.events.entries
    async with asyncio.timeout(60):
        while list((b.home / "work").rglob("*.progress")):
            await asyncio.sleep(0.01)


async def test_progress_of_worker_processes(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import multiprocessing, subprocess, sys
        from penstock import context

        def report(n):
            context().progress(n, 4, "forked")

        def fan():
            context().progress(1, 4)
            with multiprocessing.get_context("fork").Pool(1) as pool:
                pool.map(report, [2, 3])

        def starts():
            code = "from penstock import context; context().progress(4, 4, 'started')"
            subprocess.run([sys.executable, "-c", code], check=True)
    """)
    await asyncio.gather(b.run("fan"), b.run("starts"))
    last = [(b.events.progress[key][-1].done, b.events.progress[key][-1].text) for key in ("fan", "starts")]
    assert last == [(3, "forked"), (4, "started")]


async def test_invalid_progress_is_dropped(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import glob, os
        from penstock import context

        def scribble():
            context().progress(1, 4)
            with open(os.getcwd() + ".progress", "r+b") as file:
                file.write(b'[1, 5, 4, ""]'.ljust(2047) + b"\\n")
    """)
    await b.run("scribble")
    assert [report.done for report in b.events.progress.get("scribble", [])] in ([], [1])


async def test_a_hundred_thousand_metrics(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        from concurrent.futures import ThreadPoolExecutor
        from penstock import context

        def log(start):
            for n in range(start, 100_000, 2):
                context().log_metric(f"m{n % 1500}", n, step=n)

        def train():
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(log, [0, 1]))
    """)
    end = await b.run("train")
    assert end.outcome is Outcome.SUCCEEDED
    assert sorted(point.step or 0 for point in b.events.points["train"]) == list(range(100_000))
    assert len(b.events.metrics("train")) < 20_000, "only the latest values are shipped"
    assert 0 < len(end.metrics) <= 500


async def test_a_corrupted_metrics_file_is_tolerated(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import glob, os
        from penstock import context

        def train():
            context().log_metric("good", 1.0, step=1)
            path = os.getcwd() + ".points"
            with open(path, "ab") as file:
                file.write(b'\\xff\\xfe\\n["half"\\n{"at": 1}\\n[1,2,3,4]\\n["a",null,-1,1]\\n["b",1.5,1,1]\\n')
                file.write(b'["c",null,1e300,1]\\n["",1,1,1]\\n["d",99999999999999999999,1,1]\\n["e",1,1,"x"]\\n')
                file.write(b'["' + b"n" * 300 + b'",1,1,1]\\n["f",1,1,true,5]\\n')
            context().log_metric("good", 2.0, step=2)
    """)
    end = await b.run("train")
    assert end.outcome is Outcome.SUCCEEDED
    assert [(point.name, point.value) for point in b.events.points["train"]] == [("good", 1.0), ("good", 2.0)]


async def test_times_to_load_and_to_save_are_reported_apart(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import time

        class Slow:
            def __reduce__(self):
                time.sleep(0.3)
                return (Slow, ())

        def made():
            return Slow()

        def broken():
            raise ValueError("no")
    """)
    end = await b.run("made")
    assert 0.3 <= end.save_seconds < 60 and end.finished_at - end.started_at < 0.3 + end.load_seconds
    assert 0 < end.load_seconds < 60
    failed = await b.run("broken")
    assert failed.save_seconds == 0 and failed.load_seconds > 0
