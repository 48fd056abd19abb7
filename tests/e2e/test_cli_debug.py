"""`penstock debug` in a real terminal: breakpoints, post mortem, edited code, and nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from penstock import Client
from penstock.client.embedded import EmbeddedPlatform
from penstock.client.views import Run
from penstock.errors import NotFoundError, RefusedError
from penstock_testkit.environment import user_environment

PENSTOCK = str(Path(sys.executable).parent / "penstock")

FLOWS = """
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import scaled
from penstock import context, pipeline, sleep, step, when


@step
def table(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(rows), "y": ["a"] * rows})


@step
def total(data: pd.DataFrame, factor: float, limit: float = 20) -> float:
    value = scaled(float(data["x"].sum()), factor)
    if value > limit:
        worst = int(data["x"].max())
        raise ValueError(f"{value} is above {limit}")
    return value


@pipeline
def totals(rows: int = 10):
    return total.partial(data=table(rows)).map(factor=[0.1, 1.0])


@step
def stops(n: int) -> int:
    doubled = n * 2
    breakpoint()
    return doubled


@step(env={"PYTHONBREAKPOINT": "0"})
def passes(n: int) -> int:
    breakpoint()
    return n


@step
def reads_terminal(n: int) -> int:
    import pdb
    pdb.set_trace()
    return n


def stops_in_worker(n: int) -> int:
    breakpoint()
    return n


@step
def workers(n: int) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(stops_in_worker, [n])


@pipeline
def stopping(n: int = 4):
    return [stops(n), passes(n), reads_terminal(n), workers(n)]


@step(retries=1, retry_delay=0.01, env={"OWN": "given"})
def logs(folder: Path, n: int) -> Path:
    found = context().restore("nothing")
    print("files", sorted(path.name for path in folder.iterdir()), "restored", found)
    print("variables", os.environ.get("OWN"), os.environ.get("SHELL_ONLY"))
    context().log_metric("loss", 0.25, step=3)
    context().log_param("depth", n)
    context().set_tag("stage", "trial")
    context().log_artifact("rows", pd.DataFrame({"x": [os.getpid()]}))
    context().register_model("never-registered", {"weights": [os.getpid()]})
    context().progress(1, 2, "half")
    context().checkpoint({"epoch": context().attempt})
    if context().attempt == 1:
        raise ConnectionError("try again")
    Path("written.txt").write_text(f"pid {os.getpid()}")
    return Path("written.txt")


def in_worker(n: int) -> str:
    context().log_metric("of_worker", n)
    return f"{context().run_id} {context().step}"


@step
def spawns(n: int) -> list[str]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(in_worker, [n])


@step
def never(n: int) -> int:
    return n


@pipeline
def logging_steps(folder: Path, n: int = 2):
    logs(folder, n)
    texts = spawns(n)
    with when(n > 100):
        never(n)
    sleep(0.01)
    return texts


@step
def waits(n: int) -> int:
    if context().run_id and Path(os.environ.get("TMPDIR", "/tmp"), "wait-forever").exists():
        print("waiting now", flush=True)
        while True:
            time.sleep(0.05)
    return n


@pipeline
def waiting(n: int = 1):
    return waits(n)
"""


class Project:
    """A folder with pipelines, a platform that is kept running, and the runs of all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = Client(home=folder / ".penstock")
        self.environment = {
            **user_environment(),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TMPDIR": str(folder / "temporary"),
            "SHELL_ONLY": "secret",
            "TERM": "dumb",
        }
        (folder / "temporary").mkdir()
        (folder / "data").mkdir()
        (folder / "data" / "a.txt").write_text("a")
        (folder / "helpers.py").write_text("def scaled(value, factor):\n    return value * factor\n")
        (folder / "flows.py").write_text(FLOWS)

    def run(self, name: str, **inputs: object) -> Run:
        version = self.client.pipelines.register(f"{self.folder / 'flows.py'}:{name}", publish=False)
        return self.client.run(version, inputs, wait=True)

    def debug(
        self, run: Run, *arguments: str, cwd: Path | None = None, variables: dict[str, str] | None = None
    ) -> pexpect.spawn[str]:
        """Start the command in a terminal."""
        return pexpect.spawn(
            PENSTOCK,
            ["debug", run.run_id, *arguments],
            cwd=str(cwd or self.folder),
            env={**self.environment, **(variables or {})},
            encoding="utf-8",
            timeout=60,
            dimensions=(40, 250),
        )

    def stored(self) -> set[str]:
        """Every file of the state folder's artifact store."""
        root = self.folder / ".penstock" / "artifacts"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PENSTOCK_URL", "PENSTOCK_TOKEN", "PENSTOCK_HOME"):
            patch.delenv(name, raising=False)
        made = Project(tmp_path_factory.mktemp("debug"))
        patch.setenv("TMPDIR", made.environment["TMPDIR"])
        kept = EmbeddedPlatform(made.folder / ".penstock")
        kept.start()
        kept.wait()
        yield made
        kept.close()


@pytest.fixture(scope="module")
def totals(project: Project) -> Run:
    return project.run("totals")


@pytest.fixture(scope="module")
def stopping(project: Project) -> Run:
    return project.run("stopping")


@pytest.fixture(scope="module")
def logging_steps(project: Project) -> Run:
    return project.run("logging_steps", folder=project.folder / "data")


def finish(terminal: pexpect.spawn[str]) -> tuple[str, int]:
    """Return what is left to read and the exit code."""
    terminal.expect(pexpect.EOF)
    terminal.close()
    return str(terminal.before), int(terminal.exitstatus or 0)


def test_breakpoints_stop_in_the_terminal(project: Project, stopping: Run) -> None:
    with project.debug(stopping, "stops") as terminal:
        terminal.expect_exact("calling stops(n=4)")
        terminal.expect_exact("(Pdb) ")
        terminal.sendline("p doubled + 1000")
        terminal.expect_exact("1008")
        terminal.expect_exact("(Pdb) ")
        terminal.sendline("doubled = 77")
        terminal.expect_exact("(Pdb) ")
        terminal.sendline("c")
        out, code = finish(terminal)
    assert "result = 77" in out and "nothing was recorded" in out
    assert code == 0


def test_post_mortem_shows_the_variables_of_the_line_that_raised(project: Project, totals: Run) -> None:
    assert totals.state == "failed"
    with project.debug(totals, "total[1]", "--pdb") as terminal:
        terminal.expect_exact("calling total(data=<DataFrame 10 x 2>, factor=1.0)")
        terminal.expect_exact("ValueError: 45.0 is above 20")
        terminal.expect_exact("(Pdb) ")
        terminal.sendline("p worst * 1000")
        terminal.expect_exact("9000")
        terminal.expect_exact("(Pdb) ")
        terminal.sendline("up")
        terminal.expect_exact("Oldest frame")  # the platform's own frames are not shown
        terminal.expect_exact("(Pdb) ")
        terminal.sendline("q")
        _, code = finish(terminal)
    assert code == 1


def test_without_pdb_the_traceback_is_shown(project: Project, totals: Run) -> None:
    with project.debug(totals, "total[1]") as terminal:
        out, code = finish(terminal)
    assert "in total" in out and "ValueError: 45.0 is above 20" in out and "--pdb" in out
    assert "penstock/runner" not in out
    assert code == 1


def test_local_code_replaces_that_of_the_run(project: Project, totals: Run, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOWS.replace("if value > limit:", "breakpoint()\n    if value > 1000 * limit:"))
    (tmp_path / "helpers.py").write_text("def scaled(value, factor):\n    return value * factor + 0.5\n")
    (tmp_path / ".penstock").symlink_to(project.folder / ".penstock")
    with project.debug(totals, "total[1]", "--with-local-code", cwd=tmp_path) as terminal:
        terminal.expect_exact("the code of this folder")
        terminal.expect_exact("(Pdb) ")
        terminal.sendline("c")
        out, code = finish(terminal)
    assert "result = 45.5" in out
    assert code == 0
    (tmp_path / "flows.py").unlink()
    with project.debug(totals, "total[1]", "--with-local-code", cwd=tmp_path) as terminal:
        out, code = finish(terminal)
    assert "has no module 'flows'" in out and "change to the folder that has flows.py" in out
    assert code == 2


def test_nothing_is_written_and_everything_logged_is_printed(project: Project, logging_steps: Run) -> None:
    run_id = logging_steps.run_id
    assert logging_steps.succeeded, logging_steps
    before, models = project.stored(), len(project.client.models.versions("never-registered"))
    with project.debug(logging_steps, "logs") as terminal:
        out, code = finish(terminal)
    assert "files ['a.txt'] restored {'epoch': 1}" in out
    assert "variables given None" in out  # of the attempt, not of this shell
    for line in (
        "metric loss = 0.25 (step 3)",
        "param depth = 2",
        "tag stage = trial",
        "artifact rows = parquet, ",
        "model never-registered: not registered",
        "progress 1/2 half",
        "result = file, ",
    ):
        assert line in out
    assert code == 0
    assert project.stored() == before
    assert len(project.client.models.versions("never-registered")) == models
    assert project.client.runs.get(run_id).last_seq == logging_steps.last_seq
    assert not list((project.folder / "temporary").glob("penstock-debug-*"))


def test_an_earlier_attempt_is_called_with_its_own_number_and_checkpoint(project: Project, logging_steps: Run) -> None:
    with project.debug(logging_steps, "logs", "--attempt", "1") as terminal:
        out, code = finish(terminal)
    assert "restored nothing" in out and "ConnectionError: try again" in out
    assert code == 1


def test_the_context_reaches_spawned_workers(project: Project, logging_steps: Run) -> None:
    with project.debug(logging_steps, "spawns") as terminal:
        out, code = finish(terminal)
    assert "metric of_worker = 2" in out
    assert f'result = ["{logging_steps.run_id} spawns"]' in out
    assert code == 0


def test_ctrl_c_ends_the_step(project: Project) -> None:
    run = project.run("waiting")
    marker = project.folder / "temporary" / "wait-forever"
    marker.touch()
    try:
        with project.debug(run, "waits") as terminal:
            terminal.expect_exact("waiting now")
            terminal.sendintr()
            out, code = finish(terminal)
    finally:
        marker.unlink()
    assert "interrupted" in out
    assert code == 130


def test_breakpoints_on_the_platform_name_the_command(stopping: Run) -> None:
    assert stopping.steps["passes"].state == "succeeded"
    kinds = {"stops": "BreakpointError", "reads_terminal": "BdbQuit", "workers": "BreakpointError"}
    for step, kind in kinds.items():
        error = stopping.steps[step].error
        assert error is not None and error.type == kind
        assert f"debug it with `penstock debug {stopping.run_id} {step}`" in error.message


def test_steps_without_a_function_call_are_refused(project: Project, totals: Run, logging_steps: Run) -> None:
    attempt = project.client.runs.attempt
    with pytest.raises(RefusedError, match=r"Step 'total' is mapped: name one of its items, such as total\[1\], "):
        attempt(totals.run_id, "total")
    with pytest.raises(NotFoundError, match=r"has no step 'nosuch': its steps: table, total"):
        attempt(totals.run_id, "nosuch")
    with pytest.raises(NotFoundError, match=r"Step 'never' has no attempt: it is skipped"):
        attempt(logging_steps.run_id, "never")
    with pytest.raises(NotFoundError, match=r"Step 'logs' has no attempt 3: it has the attempts 1 to 2"):
        attempt(logging_steps.run_id, "logs", 3)
    with pytest.raises(RefusedError, match=r"Step 'sleep' waits and calls no function"):
        attempt(logging_steps.run_id, "sleep")
    again = project.client.runs.resume(totals.run_id, wait=True)
    with pytest.raises(RefusedError, match=rf"Step 'table' reuses the result of run {totals.run_id}"):
        attempt(again.run_id, "table")


def test_an_archived_run_of_another_machine(project: Project, totals: Run, tmp_path: Path) -> None:
    project.client.runs.archive(totals.run_id)
    address = project.client.transport.locate()
    remote = {"PENSTOCK_URL": address.url, "PENSTOCK_TOKEN": address.token}
    with project.debug(totals, "total[0]", cwd=tmp_path, variables=remote) as terminal:
        out, code = finish(terminal)
    assert "result = 4.5" in out
    assert code == 0


def test_another_interpreter_needs_its_name(project: Project, totals: Run) -> None:
    with project.debug(totals, "total[0]", "--python", "/nonexistent/python") as terminal:
        out, code = finish(terminal)
    assert "/nonexistent/python cannot be started" in out
    assert code == 2
