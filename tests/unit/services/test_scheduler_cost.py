"""The scheduler's cost of an item does not grow with the number of items (in calls of functions, not in seconds)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from penstock_adapters.nats.consumer import Delivery
from penstock_contracts import fact_codec, subjects
from penstock_contracts.commands import EnvironmentInfo, Version
from penstock_core import ids
from penstock_core.facts import AttemptFinished, AttemptRequested, Fact, Outcome, RunFinished, RunRequested
from penstock_core.pipeline.ir import MapSpec, Node, Pipeline, Port, StepSpec
from penstock_core.pipeline.values import Inline
from penstock_core.ports import Recorded
from penstock_core.run.machine import RunState
from penstock_scheduler.service import Scheduler

ITEMS, WINDOW, BATCH = 4_000, 100, 50
REQUEST = RunRequested(run_id="r", project="p", pipeline="q", version=1)


class Log:
    """A log in memory, which is never read: the scheduler knows its run."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    async def append(self, facts: Sequence[Fact]) -> list[bool]:
        self.facts += facts
        return [True] * len(facts)

    async def append_unless(self, fact: Fact, kinds: tuple[type[Fact], ...]) -> bool:
        raise NotImplementedError

    async def read(self, run_id: str, after: int = 0) -> list[Recorded]:
        raise AssertionError("the log was read")

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        raise AssertionError("the log was read")


class Versions:
    async def get(self, project: str, pipeline: str, version: int) -> Version:
        step = StepSpec(name="s", entrypoint="m:s", inputs=(Port(name="x"),), outputs=(Port(name="result"),))
        each = Node(key="each", step="s", inputs={"x": Inline([1] * ITEMS)}, mapped=MapSpec(over=("x",), window=WINDOW))
        return Version(
            project="p",
            name="q",
            version=1,
            digest="0" * 64,
            source="0" * 64,
            environment=EnvironmentInfo(digest="0" * 64, version="3"),
            pipeline=Pipeline(name="q", steps={"s": step}, nodes=(each,)),
            registered_at=0.0,
        )


class Nothing:
    """Acknowledges deliveries; has no effects to carry out."""

    async def ack(self, delivery: Delivery) -> None:
        pass

    async def retry(self, delivery: Delivery, delay: float) -> None:
        raise AssertionError("a decision was postponed")

    async def park(self, delivery: Delivery, error: str) -> None:
        raise AssertionError(error)

    async def is_stored(self, delivery: Delivery) -> bool:
        raise AssertionError("the log was read")

    def warn(self, event: str, **details: object) -> None:
        raise AssertionError(event, details)

    async def register(self, state: RunState) -> None:
        pass

    async def carry_out(self, state: RunState) -> list[Fact]:
        return []

    async def set_alarm(self, state: RunState, armed: float | None) -> float | None:
        return None


class Deliveries:
    """Numbers deliveries as a consumer does."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, fact: Fact) -> Delivery:
        self._count += 1
        return Delivery(
            subject=fact_codec.subject(fact),
            data=fact_codec.encode(fact),
            stream_seq=self._count,
            consumer_seq=self._count,
            delivered=1,
            consumer=subjects.scheduler_consumer(int(ids.shard("r"))),
            reply="",
            at=0.0,
        )


def end(request: AttemptRequested) -> AttemptFinished:
    return AttemptFinished(
        run_id="r", key=request.key, attempt=1, outcome=Outcome.SUCCEEDED, outputs={"result": Inline(1)}
    )


async def test_the_cost_of_an_item_is_flat() -> None:
    log, deliveries = Log(), Deliveries()
    scheduler = Scheduler(log, Versions(), Nothing(), Nothing())
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    await scheduler.handle([deliveries.of(REQUEST)])
    costs: list[int] = []
    seen = 0
    while len(log.facts) > seen:
        requested = [fact for fact in log.facts[seen:] if isinstance(fact, AttemptRequested)]
        seen = len(log.facts)
        for start in range(0, len(requested), BATCH):
            batch = [deliveries.of(end(request)) for request in requested[start : start + BATCH]]
            before = sys.getprofile()
            sys.setprofile(count)
            try:
                await scheduler.handle(batch)
            finally:
                sys.setprofile(before)
            costs.append(calls)
    assert isinstance(log.facts[-1], RunFinished)
    assert log.facts[-1].outcome is Outcome.SUCCEEDED
    tenth = len(costs) // 10
    first, last = costs[tenth * 2 - 1] - costs[tenth - 1], costs[-tenth - 1] - costs[-2 * tenth - 1]
    assert last <= 1.1 * first, f"a tenth of the items took {first} calls at first, and {last} at last"
