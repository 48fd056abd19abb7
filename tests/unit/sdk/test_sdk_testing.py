"""`penstock.testing`: a context for each test, and replaced steps."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from penstock import context, pipeline, step, testing
from penstock.testing import Isolated


@step
def load(rows: int, start: int = 1) -> list[int]:
    context().log_metric("rows", rows)
    return list(range(start, start + rows))


@step(retries=2, retry_delay=0)
def total(values: list[int]) -> int:
    context().log_metric("total", sum(values))
    return sum(values)


@step
async def report(value: int) -> str:
    context().set_tag("reported", value)
    return f"total {value}"


@pipeline
def reporting(rows: int = 3):
    return report(total.with_options(retries=1)(load(rows)))


def test_the_context_is_that_of_the_test(penstock_testing: Isolated) -> None:
    assert context() is penstock_testing.context
    assert load(2) == [1, 2]
    assert penstock_testing.logged.metrics == {"rows": 2.0}


def test_what_other_tests_logged_is_not_there(penstock_testing: Isolated) -> None:
    assert penstock_testing.logged.metrics == {}
    assert reporting.local() == "total 6"
    assert penstock_testing.logged.metrics == {"rows": 3.0, "total": 6.0}
    assert penstock_testing.logged.tags == {"reported": "6"}


def test_fields_of_the_context() -> None:
    outer = context()
    with testing.isolate(step="load[2]", attempt=3, seed=7) as isolated:
        assert (context().step, context().attempt) == ("load[2]", 3)
        assert context() is isolated.context
    assert context() is outer


def test_a_step_is_replaced_in_calls_and_in_local_runs(penstock_testing: Isolated) -> None:
    penstock_testing.replace(load, returns=[5, 6])
    assert load(10) == [5, 6]
    assert reporting.local(rows=4) == "total 11"
    assert penstock_testing.calls(load) == [{"rows": 10, "start": 1}, {"rows": 4, "start": 1}]


def test_a_copy_with_other_options_is_replaced_too(penstock_testing: Isolated) -> None:
    penstock_testing.replace(total.with_options(timeout=5), lambda values: len(values) * 100)
    assert reporting.local() == "total 300"
    assert penstock_testing.calls(total) == [{"values": [1, 2, 3]}]


def test_replacements_end_with_the_test() -> None:
    with testing.isolate() as outer:
        outer.replace(load, returns=[1])
        with testing.isolate() as inner:
            inner.replace(load, returns=[2])
            inner.replace(load, returns=[3])
            assert load(9) == [3]
        assert load(9) == [1]
    assert load(1) == [1]


def test_a_step_that_raises_is_retried(penstock_testing: Isolated) -> None:
    penstock_testing.replace(total, raises=ConnectionError("no network"))
    with pytest.raises(ConnectionError, match="no network"):
        reporting.local()
    assert len(penstock_testing.calls(total)) == 2


def test_asynchronous_steps(penstock_testing: Isolated) -> None:
    penstock_testing.replace(report, lambda value: f"replaced {value}")
    assert reporting.local() == "replaced 6"
    assert asyncio.run(report(1)) == "replaced 1"  # type: ignore[arg-type]


def test_results_of_local_runs_are_checked(penstock_testing: Isolated) -> None:
    penstock_testing.replace(total, returns="eleven")
    with pytest.raises(TypeError, match="output 'result' of step 'total' is declared as int"):
        reporting.local()


def test_wrong_use_is_refused(penstock_testing: Isolated) -> None:
    with pytest.raises(TypeError, match=r"replace\(\) takes a step, not .*<function"):
        penstock_testing.replace(total.function, returns=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"replace\(load\): pass a function, or returns=…, or raises=…"):
        penstock_testing.replace(load)
    with pytest.raises(TypeError, match=r"replace\(load\)"):
        penstock_testing.replace(load, len, returns=3)
    with pytest.raises(LookupError, match=r"calls\(load\): the step was not replaced in this test"):
        penstock_testing.calls(load)
    penstock_testing.replace(load, returns=None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'lines'"):
        load(1, lines=3)  # type: ignore[call-arg]


def test_pytest_loads_the_plugin_without_the_rest_of_penstock(tmp_path: Path) -> None:
    """Every pytest beside an installation loads it."""
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n\n\ndef test_it():\n    assert 'penstock.pytest_plugin' in sys.modules\n"
        "    assert not {'penstock.authoring', 'penstock.testing', 'penstock_core'} & sys.modules.keys()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:anyio"]
    plugins = ["-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:timeout"]
    done = subprocess.run([*command, *plugins, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
