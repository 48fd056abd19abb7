"""Records the runs of warm workers: their facts are appended in batches, after the answers.

Promise: `close` returns when all runs are recorded. A process that is killed loses those of its last moments, which
were answered and are not recorded yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from penstock_adapters.nats import recorded_runs
from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.recorded_runs import EncodedFact
from penstock_core.errors import UnavailableError
from penstock_core.facts import Outcome

DELAY = 0.2
"""Seconds that facts are collected before they are appended."""

BACKLOG = 64 * 1024 * 1024
"""Bytes of facts that wait to be recorded, at which requests are refused."""

BATCH = 4 * 1024 * 1024
"""Bytes of facts after which no further run joins a batch."""

_RETRY = (0.1, 0.5, 1.0, 2.0)
_LIMIT = 256 * 1024
_OVERHEAD = 500
"""Bytes that a fact takes beside its body."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Run:
    """The facts of a run, and their size in bytes."""

    facts: list[EncodedFact]
    size: int


class RunRecorder:
    """See the module. `source` names the writer in the CloudEvents envelope."""

    def __init__(self, bus: Bus, source: str, warn: Callable[..., None]) -> None:
        self._bus = bus
        self._source = source
        self._warn = warn
        self._runs: deque[_Run] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether so much waits to be recorded that no further runs should start."""
        return self._size >= BACKLOG

    def add(self, run: Json, end: Json, facts: list[tuple[str, Json]] | None) -> None:
        """Record a run: its request and its facts, or its request and its end."""
        run_id = str(run["run_id"])
        rest = facts if facts is not None else [("finished", _finished(run_id, end))]
        encoded = [recorded_runs.encoded(run_id, "requested", orjson.dumps(run), self._source)]
        for tail, body in rest:
            encoded.append(recorded_runs.encoded(run_id, tail, _body({**body, "run_id": run_id}), self._source))
        run_facts = [fact for fact in encoded if fact is not None]
        self._runs.append(_Run(run_facts, sum(len(fact.body) + _OVERHEAD for fact in run_facts)))
        self._size += self._runs[-1].size
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._append_all())

    async def close(self) -> None:
        """Record all runs. Idempotent."""
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _append_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), DELAY)
            while self._runs:
                batch: list[_Run] = []
                while self._runs and _fits(batch, self._runs[0]):
                    batch.append(self._runs.popleft())
                await self._append(batch)
                self._size -= sum(run.size for run in batch)
            if self._closing.is_set():
                return

    async def _append(self, runs: list[_Run]) -> None:
        """Append the facts of runs. One that cannot be appended costs no other."""
        facts = [fact for run in runs for fact in run.facts]
        failures = 0
        while True:
            try:
                await recorded_runs.append(self._bus, facts)
                return
            except UnavailableError as error:
                self._warn("runs of endpoints not recorded; retrying", error=str(error))
                await asyncio.sleep(_RETRY[min(failures, len(_RETRY) - 1)])
                failures += 1
            except Exception as error:  # refused by the server, or a defect: the recorder goes on
                if len(runs) > 1:
                    for run in runs:
                        await self._append([run])
                    return
                about = str(error) if isinstance(error, BusError) else repr(error)
                self._warn("a run of an endpoint cannot be recorded", error=about)
                return


def _fits(batch: list[_Run], run: _Run) -> bool:
    """Whether a run can join a batch."""
    return not batch or (
        sum(len(one.facts) for one in batch) < recorded_runs.BATCH_LIMIT and sum(one.size for one in batch) < BATCH
    )


def _finished(run_id: str, end: Json) -> Json:
    return {
        "run_id": run_id,
        "outcome": end.get("outcome", Outcome.FAILED),
        "outputs": end.get("outputs", {}),
        "error": end.get("error"),
        "finished_at": time.time(),
    }


def _body(fact: Json) -> bytes:
    """Encode a fact. Large inputs and outputs of steps are left out."""
    body = orjson.dumps(fact)
    if len(body) <= _LIMIT:
        return body
    return orjson.dumps({name: value for name, value in fact.items() if name not in ("inputs", "outputs")})
