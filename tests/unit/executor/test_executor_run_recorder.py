"""The recorder of warm workers: a run that the server refuses costs no other run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from penstock_adapters.nats import recorded_runs
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.recorded_runs import EncodedFact
from penstock_executor.endpoints import run_recorder
from penstock_executor.endpoints.run_recorder import RunRecorder


async def test_a_refused_run_costs_no_other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: set[str] = set()
    warned: list[dict[str, Any]] = []

    async def append(bus: Any, facts: Sequence[EncodedFact]) -> None:
        if any(b"bad" in fact.body for fact in facts):
            raise BusError("JetStream: refused", 1)
        stored.update(fact.subject.split(".")[2] for fact in facts)

    monkeypatch.setattr(recorded_runs, "append", append)
    recorder = RunRecorder(None, "test", lambda event, **about: warned.append(about))  # type: ignore[arg-type]
    for number in range(5):
        recorder.add({"run_id": f"call-{number}", "note": "bad" if number == 2 else ""}, {}, None)
    await recorder.close()
    assert stored == {"call-0", "call-1", "call-3", "call-4"}
    assert warned == [{"error": "JetStream: refused"}]


async def test_an_unexpected_error_does_not_end_the_recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[str] = []
    warned: list[dict[str, Any]] = []

    async def append(bus: Any, facts: Sequence[EncodedFact]) -> None:
        if any(b"bad" in fact.body for fact in facts):
            raise KeyError("bad")
        stored.extend({fact.subject.split(".")[2]: None for fact in facts})

    monkeypatch.setattr(recorded_runs, "append", append)
    recorder = RunRecorder(None, "test", lambda event, **about: warned.append(about))  # type: ignore[arg-type]
    recorder.add({"run_id": "call-1", "note": "bad"}, {}, None)
    while not warned:
        await asyncio.sleep(0.01)
    recorder.add({"run_id": "call-2"}, {}, None)
    await recorder.close()
    assert stored == ["call-2"]
    assert warned == [{"error": "KeyError('bad')"}]


async def test_the_backlog_is_limited_in_bytes_and_appended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    async def append(bus: Any, facts: Sequence[EncodedFact]) -> None:
        sizes.append(sum(len(fact.body) for fact in facts))

    monkeypatch.setattr(recorded_runs, "append", append)
    monkeypatch.setattr(run_recorder, "BACKLOG", 1_000_000)
    monkeypatch.setattr(run_recorder, "BATCH", 300_000)
    recorder = RunRecorder(None, "test", lambda *args, **about: None)  # type: ignore[arg-type]
    added = 0
    while not recorder.full:
        recorder.add({"run_id": f"call-{added}", "note": "x" * 100_000}, {}, None)
        added += 1
    assert added == 10
    await recorder.close()
    assert (len(sizes), max(sizes) < 500_000, recorder.full) == (4, True, False)
