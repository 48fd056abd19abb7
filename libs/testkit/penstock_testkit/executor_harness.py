"""A harness for tests of the process executor: a source folder, an executor, and a record of its reports."""

# ruff: noqa: ASYNC110, ASYNC240 - it polls the state of other processes
from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from textwrap import dedent
from types import TracebackType
from typing import Any, Self

import pytest

from penstock_adapters.process import AttemptEnvironment, ProcessExecutor, ProcessOptions
from penstock_contracts.commands import AttemptOutput, AttemptProgress, Measurements
from penstock_core.facts import ArtifactCommitted, AttemptFinished, AttemptRequested, AttemptStarted, Outcome
from penstock_core.pipeline.values import Fields, Inline, Items, ResultOf, Stored, Value
from penstock_core.queries.series import Point
from penstock_core.shipping.messages import Message

WAIT = 60.0
"""Seconds after which a test gives up on an attempt."""


class RecordedAttempts:
    """Implements `AttemptEvents` and `AttemptOutbox`: records the calls by step, and checks their order."""

    def __init__(self) -> None:
        self.began: dict[str, AttemptStarted] = {}
        self.ends: dict[str, AttemptFinished] = {}
        self.entries: dict[str, list[dict[str, Any]]] = {}
        self.points: dict[str, list[Point]] = {}
        self.commits: dict[str, list[ArtifactCommitted]] = {}
        self.progress: dict[str, list[AttemptProgress]] = {}
        self._changed = asyncio.Condition()
        self._wakers: set[asyncio.Task[None]] = set()

    def started(self, fact: AttemptStarted) -> None:
        """Record a start."""
        assert fact.key not in self.began, f"{fact.key} started twice"
        assert fact.key not in self.ends, f"{fact.key} started after its end"
        self.began[fact.key] = fact
        self._wake()

    def publish(self, message: Message) -> None:
        """Record the entries or points of a message."""
        run_id, key, attempt = message.attempt
        stream, _, name = message.subject.partition(".")
        assert key not in self.ends, f"{key} wrote after its end"
        assert len(message.body) < 1024 * 1024, "over the message limit"
        if message.latest:
            assert message.subject == f"logs.{run_id}.{key}.{attempt}.progress"
            self.progress.setdefault(key, []).append(AttemptProgress.model_validate_json(message.body))
            self._wake()
            return
        assert name == f"{run_id}.{key}.{attempt}"
        if stream == "logs":
            output = AttemptOutput.model_validate_json(message.body)
            kept, new, first = self.entries.setdefault(key, []), output.entries, output.first
        else:
            measured = Measurements.model_validate_json(message.body)
            kept, new, first = self.points.setdefault(key, []), measured.points(), measured.first
        assert new
        assert first == len(kept) and message.message_id == f"{name}.{first}"
        kept.extend(new)  # type: ignore[arg-type]
        self._wake()

    def commit(self, fact: ArtifactCommitted) -> None:
        """Record a commit."""
        assert fact.key not in self.ends, f"{fact.key} stored something after its end"
        self.commits.setdefault(fact.key, []).append(fact)
        self._wake()

    def finished(self, fact: AttemptFinished) -> None:
        """Record an end."""
        assert fact.key not in self.ends, f"{fact.key} ended twice"
        self.ends[fact.key] = fact
        self._wake()

    def text(self, key: str) -> str:
        """Return the output of an attempt."""
        return "".join(entry["text"] for entry in self.entries.get(key, []) if entry.get("stream") == "output")

    def metrics(self, key: str) -> list[dict[str, Any]]:
        """Return the metrics among the output entries of an attempt."""
        return [entry for entry in self.entries.get(key, []) if "metric" in entry]

    async def until(self, what: str, key: str) -> Any:
        """Wait until `began`, `ends`, `entries`, `points`, `commits` or `progress` has the key."""
        async with asyncio.timeout(WAIT), self._changed:
            kept: dict[str, Any] = getattr(self, what)
            await self._changed.wait_for(lambda: key in kept)
            return kept[key]

    def _wake(self) -> None:
        task = asyncio.get_running_loop().create_task(self._notify())
        self._wakers.add(task)
        task.add_done_callback(self._wakers.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class ExecutorHarness:
    """An executor with a source folder whose only module is `text`; use it as an asynchronous context manager."""

    def __init__(self, folder: Path, text: str = "", **options: Any) -> None:
        self.home = folder / "home"
        self.source = folder / "source"
        self.source.mkdir(parents=True)
        self.write("steps", text)
        self.events = RecordedAttempts()
        self.where = AttemptEnvironment(
            source=str(self.source), python=sys.executable, artifacts=str(self.home / "artifacts"), environment="e"
        )
        given: dict[str, Any] = {"grace": 0.5, **options}
        self._options = ProcessOptions(**given)

    def write(self, module: str, text: str) -> None:
        """Write a user module."""
        (self.source / f"{module}.py").write_text(dedent(text))

    async def __aenter__(self) -> Self:
        self.executor = ProcessExecutor("here", self.events, self.events, self._prepare, self.home, self._options)
        return self

    async def _prepare(self, attempt: AttemptRequested) -> AttemptEnvironment:
        return self.where

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.executor.close()

    def request(
        self, function: str, inputs: dict[str, Any] | None = None, *, key: str = "", **more: Any
    ) -> AttemptRequested:
        """Return a request for `steps:function`, or for the module given in `function`."""
        return AttemptRequested(
            run_id="run1",
            key=key or function.partition(":")[2] or function,
            attempt=1,
            pool="default",
            project="p",
            pipeline="line",
            version=1,
            entrypoint=function if ":" in function else f"steps:{function}",
            inputs={name: _value(value) for name, value in (inputs or {}).items()},
            **more,
        )

    async def start(self, function: str, inputs: dict[str, Any] | None = None, **more: Any) -> str:
        """Start an attempt and return its step's key."""
        request = self.request(function, inputs, **more)
        await self.executor.submit(request)
        return request.key

    async def run(self, function: str, inputs: dict[str, Any] | None = None, **more: Any) -> AttemptFinished:
        """Start an attempt and wait until it finishes."""
        return await self.events.until("ends", await self.start(function, inputs, **more))


OpenHarness = Callable[..., Coroutine[Any, Any, ExecutorHarness]]
"""`await executor_harness(text, **options)`: a harness that is closed at the end of the test."""


@pytest.fixture
async def executor_harness(tmp_path: Path) -> AsyncIterator[OpenHarness]:
    """Open harnesses for the test."""
    async with AsyncExitStack() as stack:

        async def opened(text: str, **options: Any) -> ExecutorHarness:
            return await stack.enter_async_context(ExecutorHarness(tmp_path, text, **options))

        yield opened


def failed(end: AttemptFinished, kind: str, *texts: str, outcome: Outcome = Outcome.FAILED) -> None:
    """Assert that an attempt failed with an error of type `kind` whose message contains `texts`."""
    assert end.outcome is outcome, end
    assert end.error is not None and end.error.type == kind, end
    for text in texts:
        assert text in end.error.message, end.error.message
    assert end.outputs == {} and end.executor == "here" and end.finished_at > 0


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(*pids: int) -> None:
    """Wait until all processes have exited."""
    async with asyncio.timeout(10):
        while any(alive(pid) for pid in pids):
            await asyncio.sleep(0.01)


async def pid_in(path: Path) -> int:
    """Wait for a file that contains a process id."""
    async with asyncio.timeout(20):
        while not (path.exists() and path.read_text()):
            await asyncio.sleep(0.01)
    return int(path.read_text())


def _value(value: Any) -> Value:
    return value if isinstance(value, Inline | Stored | Items | Fields | ResultOf) else Inline(value)
