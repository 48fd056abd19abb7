"""Which runs the gateway folds while they run."""

from __future__ import annotations

import time
from typing import cast

from penstock_adapters.nats.follower import StreamMessage
from penstock_gateway.runs.large_runs import EVERY, LargeRuns
from penstock_gateway.runs.run_states import RunStates
from penstock_servicekit.service_context import ServiceContext


class States:
    """The cache: `cached` has the sequence of each run, `read` lists which runs were updated."""

    def __init__(self) -> None:
        self.cached: dict[str, int] = {}
        self.read: list[str] = []

    def last_seq(self, run_id: str) -> int:
        return self.cached.get(run_id, 0)

    async def get(self, run_id: str) -> None:
        self.read.append(run_id)
        self.cached[run_id] = 1_000_000


class Facts:
    """Facts of runs as the read model gets them."""

    def __init__(self, runs: LargeRuns) -> None:
        self._runs = runs
        self._seq = 0

    def arrive(self, run_id: str, count: int, age: float = 0.0) -> None:
        for _ in range(count):
            self._seq += 1
            subject = f"runs.00.{run_id}.step.x.1.finished"
            self._runs.observe([StreamMessage(self._seq, time.time() - age, subject, b"", 0)])


def large_runs() -> tuple[LargeRuns, States, Facts]:
    states = States()
    runs = LargeRuns(cast("ServiceContext", None), cast("RunStates", states))
    return runs, states, Facts(runs)


async def updated(runs: LargeRuns, states: States) -> list[str]:
    """Do what is due; return the runs that were updated."""
    states.read.clear()
    await runs.update()
    return sorted(states.read)


async def test_runs_with_many_facts_are_folded_and_small_ones_are_not() -> None:
    runs, states, facts = large_runs()
    facts.arrive("small", EVERY - 1)
    facts.arrive("large", EVERY)
    assert await updated(runs, states) == ["large"]
    states.cached["large"] = EVERY
    facts.arrive("large", EVERY)
    assert await updated(runs, states) == ["large"]


async def test_a_run_that_a_reader_has_folded_is_not_folded_again() -> None:
    runs, states, facts = large_runs()
    states.cached["large"] = 10 * EVERY
    facts.arrive("large", EVERY)
    assert await updated(runs, states) == []


async def test_an_evicted_run_is_left_to_its_readers() -> None:
    runs, states, facts = large_runs()
    facts.arrive("large", EVERY)
    assert await updated(runs, states) == ["large"]
    states.cached.clear()
    facts.arrive("large", 3 * EVERY)
    assert await updated(runs, states) == []


async def test_facts_of_a_rebuild_are_not_counted() -> None:
    runs, states, facts = large_runs()
    facts.arrive("old", 2 * EVERY, age=3600.0)
    assert await updated(runs, states) == []
