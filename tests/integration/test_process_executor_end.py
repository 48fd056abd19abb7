"""The process executor on real processes: a step's process ends as a Python program does."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Inline, Stored
from penstock_testkit.executor_harness import OpenHarness

_END = """
    import atexit, gzip, logging.handlers, tempfile, threading, time, zipfile
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    from penstock import context

    SHARED = tempfile.TemporaryDirectory()
    MODULE = open(SHARED.name + "/module", "w")
    atexit.register(lambda: print("handler of the module"))

    def thread():
        def write():
            time.sleep(0.3)
            Path("late").write_text("complete")
        threading.Thread(target=write).start()
        return Path("late")

    def pool(folder):
        executor = ThreadPoolExecutor(2)
        for n in range(4):
            executor.submit(lambda n=n: (time.sleep(0.1), Path(folder, f"pool{n}").write_text("x")))

    def handlers(folder):
        atexit.register(lambda: (Path(folder, "atexit").write_text("x"), context().log_metric("at_exit", 3)))
        logging.getLogger("m").addHandler(
            logging.handlers.MemoryHandler(1000, target=logging.FileHandler(Path(folder, "log")))
        )
        logging.getLogger("m").warning("kept")

    def files(folder):
        global plain, packed, archive, binary
        plain = open(Path(folder, "plain"), "w")
        plain.write("text")
        binary = open(Path(folder, "binary"), "wb")
        binary.write(b"bytes")
        packed = gzip.open(Path(folder, "packed.gz"), "wt")
        packed.write("packed")
        archive = zipfile.ZipFile(Path(folder, "archive.zip"), "w")
        archive.writestr("member", "archived")

    def module():
        Path(SHARED.name, "seen").touch()
        return sorted(path.name for path in Path(SHARED.name).iterdir())

    def fails(folder):
        atexit.register(Path(folder, "failed").touch)
        raise KeyError("k")

    def broken_handler():
        atexit.register(lambda: 1 / 0)

    def forever():
        threading.Thread(target=time.sleep, args=(600,), name="poller").start()
"""


async def test_threads_handlers_and_buffers_are_complete_before_the_result_counts(
    executor_harness: OpenHarness, tmp_path: Path
) -> None:
    b = await executor_harness(_END)
    late = (await b.run("thread")).outputs["result"]
    assert isinstance(late, Stored) and late.artifact.size == len("complete")
    for name in ("pool", "handlers", "files"):
        end = await b.run(name, {"folder": str(tmp_path)})
        assert end.outcome is Outcome.SUCCEEDED
        assert end.metrics == ({"at_exit": 3} if name == "handlers" else {})
    assert all((tmp_path / f"pool{n}").exists() for n in range(4))
    assert (tmp_path / "atexit").exists()
    assert (tmp_path / "log").read_text() == "kept\n"
    assert (tmp_path / "plain").read_text() == "text"
    assert (tmp_path / "binary").read_bytes() == b"bytes"
    assert gzip.decompress((tmp_path / "packed.gz").read_bytes()) == b"packed"
    assert zipfile.ZipFile(tmp_path / "archive.zip").read("member") == b"archived"
    assert "handler of the module" in b.events.text("pool")


async def test_what_a_module_made_at_import_outlives_each_attempt(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_END)
    for n in range(2):
        end = await b.run("module", key=f"module{n}")
        assert end.outcome is Outcome.SUCCEEDED, end.error


async def test_the_end_of_a_failed_step_and_of_a_broken_handler(executor_harness: OpenHarness, tmp_path: Path) -> None:
    b = await executor_harness(_END)
    end = await b.run("fails", {"folder": str(tmp_path)})
    assert end.error is not None and end.error.type == "KeyError"
    assert (tmp_path / "failed").exists()
    end = await b.run("broken_handler")
    assert end.outcome is Outcome.SUCCEEDED
    assert "ZeroDivisionError" in b.events.text("broken_handler")


async def test_a_thread_that_never_ends_is_named_and_bounded_by_the_timeout(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_END)
    end = await b.run("forever", timeout=7)
    assert end.outcome is Outcome.TIMED_OUT
    assert "waits for its threads: poller" in b.events.text("forever")


async def test_an_exit_is_a_system_exit_and_surrogates_cost_one_parameter(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        import sys
        from penstock import context

        def leaves(): sys.exit(3)

        def logs():
            context().log_param("bad", {"a": ["\\ud800"]})
            context().log_param("good", 1)
    """)
    end = await b.run("leaves")
    assert end.error is not None and end.error.type == "Exit" and "SystemExit" in end.error.bases
    end = await b.run("logs")
    assert end.outcome is Outcome.SUCCEEDED, end.error
    assert end.params == {"bad": "{'a': ['\\ud800']}", "good": 1}


_WORKERS = """
    import multiprocessing, os, subprocess, sys
    from penstock import context

    def log(name):
        about = context()
        about.log_metric(name, 5.0)
        about.log_param(name, [1])
        about.log_artifact(name, b"xyz")
        about.set_tag(name, "x")
        return [about.step, about.run_id]

    def pool(method):
        context().log_metric("own", 1.0)
        with multiprocessing.get_context(method).Pool(1) as workers:
            return workers.map(log, ["worker"])[0]

    def fork():
        pid = os.fork()
        if not pid:
            log("worker")
            os._exit(0)
        os.waitpid(pid, 0)
        return [context().step, context().run_id]

    def loky():
        import joblib
        return joblib.Parallel(n_jobs=2)(joblib.delayed(log)("worker") for _ in range(2))[0]

    def program():
        code = "import steps; print(steps.log('worker'))"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": sys.path[0]})
        return [context().step, context().run_id]

    def register(model):
        try:
            context().register_model(model, b"weights")
        except RuntimeError as error:
            return str(error)

    def registers():
        with multiprocessing.get_context("fork").Pool(1) as workers:
            return workers.map(register, ["m"])[0]
"""


async def test_metrics_of_all_kinds_of_worker_processes_are_kept(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_WORKERS)
    for name, inputs in (
        *(("pool", {"method": method}) for method in ("fork", "spawn", "forkserver")),
        *((name, {}) for name in ("fork", "loky", "program")),
    ):
        key = f"{name}{inputs.get('method', '')}"
        end = await b.run(name, inputs, key=key)
        assert end.outputs["result"] == Inline([key, "run1"]), end.error
        assert end.metrics == ({"own": 1.0, "worker": 5.0} if name == "pool" else {"worker": 5.0})
        assert end.params == {"worker": [1]} and end.tags == {"worker": "x"}
        assert list(end.artifacts) == ["worker"]
        assert {point.name for point in b.events.points[key]} == set(end.metrics)


async def test_a_worker_process_cannot_register_models_and_says_so(executor_harness: OpenHarness) -> None:
    b = await executor_harness(_WORKERS)
    got = (await b.run("registers")).outputs["result"]
    assert isinstance(got, Inline)
    assert got.value.startswith("register_model('m') in a worker process: only the step's own process")
