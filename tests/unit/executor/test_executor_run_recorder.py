"""The recorder of warm workers: a run that the server refuses costs no other run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from penstock_adapters.nats import recorded_runs
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.recorded_runs import EncodedFact
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
