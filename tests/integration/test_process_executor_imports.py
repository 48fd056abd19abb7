"""The process executor on real processes: modules with unusual names, threads at import, and files beside a module."""

from __future__ import annotations

from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Inline
from penstock_testkit.executor_harness import OpenHarness, failed

_THREADS = """
    import queue, threading, time
    LOCK = threading.Lock()
    REQUESTS, ANSWERS = queue.Queue(), queue.Queue()

    def refresh():
        while True:
            with LOCK:
                time.sleep(0.05)
            time.sleep(0.001)

    def answer():
        while True:
            ANSWERS.put(REQUESTS.get() + 1)

    threading.Thread(target=refresh, name="refresher", daemon=True).start()
    threading.Thread(target=answer, daemon=True).start()

    def ask(n):
        with LOCK:
            REQUESTS.put(n)
        return ANSWERS.get()
"""


async def test_threads_that_a_module_starts_run_in_each_attempt(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_THREADS)
    b.write("plain", "def one(): return 1")
    keys = [await b.start("ask", {"n": n}, key=f"ask[{n}]") for n in range(3)]
    keys.append(await b.start("plain:one"))
    ends = [await b.events.until("ends", key) for key in keys]
    assert [end.outputs.get("result") for end in ends] == [Inline(1), Inline(2), Inline(3), Inline(1)]
    assert "starts the thread 'refresher'" in b.events.text("ask[0]")
    assert (await b.run("ask", {"n": 7}, key="later")).outputs["result"] == Inline(8)


async def test_a_module_that_starts_threads_and_fails_reports_its_error(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import os, threading, time
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        if len(os.sched_getaffinity(0)) and "PENSTOCK_STEP_CONTEXT" in os.environ:
            raise LookupError("no configuration")
        def f(): pass
    """)
    failed(await b.run("f"), "LookupError", "no configuration")


async def test_modules_are_named_after_files_with_any_name(executor_harness: OpenHarness) -> None:
    b = await executor_harness("")
    for number, name in enumerate(("train v2", "ü (copy)", "50%25", "tab\there")):
        b.write(name, "def one(): return __name__")
        end = await b.run(f"{name}:one", key=f"one[{number}]")
        assert end.outputs.get("result") == Inline(name), end.error


async def test_relative_paths_are_files_of_the_project(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        from pathlib import Path
        from penstock import step

        @step
        def read(table: Path, more: list[Path]) -> list[str]:
            return [one.read_text() for one in (table, *more)]

        @step
        def name(table: Path) -> str:
            return str(table)

        @step
        def opens() -> str:
            return open("data.csv").read()
    """)
    (b.source / "data.csv").write_text("rows")
    end = await b.run("read", {"table": "data.csv", "more": ["data.csv"]})
    assert end.outputs["result"] == Inline(["rows", "rows"]), end.error
    assert (await b.run("name", {"table": "new.csv"})).outputs["result"] == Inline("new.csv")
    end = await b.run("opens")
    failed(end, "FileNotFoundError", "lies beside the pipeline: open Path(__file__).parent / 'data.csv'")
    assert end.outcome is Outcome.FAILED
