"""The process executor on real processes: error reports of user code."""

from __future__ import annotations

import asyncio

import pytest

from penstock_core.facts import Outcome
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored
from penstock_testkit.executor_harness import OpenHarness

NO_SUCH_ARTIFACT = ArtifactRef(sha256="0" * 64, size=1, media_type="application/json", format="json")


# -------------------------------------------------------------------------------------------------------- exceptions


async def test_an_exception_shows_only_the_users_frames(executor_harness: OpenHarness) -> None:
    b = await executor_harness("""
        class TooHot(ValueError): pass

        def inner(x): raise KeyError("sensor")

        def measure(x):
            try:
                inner(x)
            except KeyError as error:
                raise TooHot("999 degrees\\nsecond line") from error
    """)
    end = await b.run("measure", {"x": 1})
    assert end.outcome is Outcome.FAILED and end.error is not None
    assert (end.error.type, end.error.message) == ("TooHot", "999 degrees")
    assert end.error.bases == ("ValueError", "Exception", "BaseException")
    trace = end.error.traceback
    assert f'File "{b.source}/steps.py", line 4, in inner' in trace
    assert "direct cause" in trace and 'raise TooHot("999 degrees' in trace
    assert "penstock/runner" not in trace and "importlib" not in trace
    assert end.finished_at >= end.started_at > 0


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("raise SystemExit(3)", "Exit", "exit with code 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("return 'text'[", "SyntaxError", "never closed"),
        ("raise type('Bad', (Exception,), {'__str__': lambda s: 1 / 0})()", "Bad", "cannot be shown"),
        ("raise ValueError('\\udc80')", "ValueError", "?"),
        ("def f(n): f(n + 1)\n    f(0)", "RecursionError", "maximum recursion depth"),
        (
            "raise ExceptionGroup('both', [ValueError('a'), TypeError('b')])",
            "ExceptionGroup",
            "both (2 sub-exceptions)",
        ),
        ("raise ValueError('v' * 10**6)", "ValueError", "vvv"),
    ],
)
async def test_unusual_exceptions(executor_harness: OpenHarness, body: str, kind: str, message: str) -> None:
    b = await executor_harness(f"def odd():\n    {body}\n")
    end = await b.run("odd")
    assert end.outcome is Outcome.FAILED and end.error is not None
    assert end.error.type == kind
    assert message in end.error.message and len(end.error.message) <= 2000
    assert len(end.error.traceback) <= 32 * 1024
    assert "steps.py" in end.error.traceback


async def test_missing_modules_and_functions_are_named(executor_harness: OpenHarness) -> None:
    b = await executor_harness("def good(x: int) -> int: return x")
    end = await b.run("steps:gone")
    assert end.error is not None and "module 'steps' has no step 'gone'" in end.error.message
    end = await b.run("good", {"y": 1})
    assert end.error is not None and end.error.type == "TypeError" and "unexpected keyword" in end.error.message
    end = await b.run("good", {"x": Stored(NO_SUCH_ARTIFACT)}, key="absent")
    assert end.error is not None and "is not in the store" in end.error.message


async def test_a_failing_import_fails_its_attempts_and_is_retried(
    executor_harness: OpenHarness,
) -> None:
    b = await executor_harness("import no_such_package\n\ndef fine(): return 1")
    ends = await asyncio.gather(b.run("fine", key="a"), b.run("fine", key="b"))
    for end in ends:
        assert end.outcome is Outcome.FAILED and end.error is not None
        assert (end.error.type, end.error.message) == ("ModuleNotFoundError", "No module named 'no_such_package'")
        assert "steps.py" in end.error.traceback and "runner" not in end.error.traceback
        assert "importlib" not in end.error.traceback
    b.write("steps", "def fine(): return 1")
    assert (await b.run("fine", key="c")).outputs == {"result": Inline(1)}


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("raise SystemExit(4)", "SystemExit", "called exit with code 4"),
        ("import os\nprint('last words')\nos._exit(5)", "ImportCrash", "exited with code 5): last words"),
        ("import os\nos.abort()", "ImportCrash", "SIGABRT"),
        ("def broken(:", "SyntaxError", "invalid syntax"),
    ],
)
async def test_an_import_that_exits_the_process(
    executor_harness: OpenHarness, text: str, kind: str, message: str
) -> None:
    b = await executor_harness(text)
    end = await b.run("fine")
    assert end.outcome is Outcome.FAILED and end.error is not None
    assert end.error.type == kind and message in end.error.message
    assert end.error.traceback


async def test_a_module_shadowed_by_another_is_rejected(executor_harness: OpenHarness) -> None:
    b = await executor_harness("")
    b.write("json", "def mine(): return 1")
    end = await b.run("json:mine")
    assert end.error is not None and "shadows the pipeline's json.py" in end.error.message
