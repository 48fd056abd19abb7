"""The scheduler on a real log: a run that cannot be written or folded affects no other, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import fact_codec
from penstock_contracts.commands import EnvironmentInfo, Version
from penstock_core import ids
from penstock_core.facts import AttemptFinished, CancelRequested, Fact, Outcome, RunFinished, RunRequested
from penstock_core.pipeline.ir import Node, Pipeline, Port, StepSpec
from penstock_core.pipeline.values import BoundItems, Inline, Output, Param, Value
from penstock_core.ports import Recorded
from penstock_core.run.machine import RunState
from penstock_scheduler.service import Scheduler
from penstock_servicekit.nats_connection import connect, servers
from penstock_testkit.servers.nats import NatsServer


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    broker, bus = await connect(servers(nats_server.url), "test", asyncio.get_running_loop().create_future())
    await bootstrap(bus, pools=["default"])
    yield bus
    await broker.stop()


STEP = StepSpec(
    name="s", entrypoint="m:s", inputs=(Port(name="value", required=False),), outputs=(Port(name="result"),)
)
PLAIN = Pipeline(
    name="plain",
    steps={"s": STEP},
    nodes=(
        Node(key="a", step="s"),
        Node(key="b", step="s"),
        Node(key="c", step="s", inputs={"value": Output("a", "result")}, after=("b",)),
    ),
)
# One text of 60 KB, read a hundred times.
MANY = BoundItems((Param("text"),) * 100)
LARGE_INPUT = Pipeline(
    name="large_input",
    params=(Port(name="text"),),
    steps={"s": STEP},
    nodes=(Node(key="a", step="s", inputs={"value": MANY}),),
)
LARGE_OUTPUT = Pipeline(
    name="large_output",
    params=(Port(name="text"),),
    steps={"s": STEP},
    nodes=(Node(key="a", step="s"),),
    outputs={"all": MANY},
)
PIPELINES = {pipeline.name: pipeline for pipeline in (PLAIN, LARGE_INPUT, LARGE_OUTPUT)}


class NoEffects:
    """The runs of these tests have no effects outside their logs."""

    async def register(self, state: RunState) -> None: ...

    async def carry_out(self, state: RunState) -> list[Fact]:
        state.outbox.clear()
        return []

    async def set_alarm(self, state: RunState, armed: float | None) -> float | None:
        return armed


class RecordedEffects:
    """Scheduler ports that record their calls. `fails` is raised by the next call of `park`."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.later: list[int] = []
        self.fails: Exception | None = None

    async def ack(self, delivery: Delivery) -> None:
        self.acked.append(delivery.stream_seq)

    async def retry(self, delivery: Delivery, delay: float) -> None:
        self.later.append(delivery.stream_seq)

    async def park(self, delivery: Delivery, error: str) -> None:
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails

    async def is_stored(self, delivery: Delivery) -> bool:
        return True

    def warn(self, event: str, **details: object) -> None:
        pass

    async def get(self, project: str, pipeline: str, version: int) -> Version | None:
        return Version(
            project=project,
            name=pipeline,
            version=version,
            digest="0" * 64,
            source="0" * 64,
            environment=EnvironmentInfo(digest="0" * 64, version="3.11"),
            pipeline=PIPELINES[pipeline],
            registered_at=0.0,
        )


class LaggingLog(NatsRunLog):
    """A log whose reads come from a replica that lacks the last `lag` facts."""

    lag = 0

    async def read(self, run_id: str, after: int = 0) -> list[Recorded]:
        found = await super().read(run_id, after)
        return found[: len(found) - self.lag]


class SchedulerHarness:
    """A scheduler with its log, and the deliveries that a server would make to it."""

    def __init__(self, bus: Bus) -> None:
        self.log = LaggingLog(bus, "test")
        self.edges = RecordedEffects()
        self.scheduler = Scheduler(self.log, self.edges, self.edges, NoEffects())
        self._bus = bus
        self._count = 0

    async def write(self, fact: Fact, body: bytes | None = None) -> Delivery:
        """Append a fact, or other bytes on its subject, and return its delivery."""
        body = fact_codec.encode(fact) if body is None else body
        seq = int((await self._bus.publish(fact_codec.subject(fact), body))["seq"])
        # One consumer serves all shards.
        self._count += 1
        return Delivery(fact_codec.subject(fact), body, seq, self._count, 1, "scheduler-00", "", 0.0)

    def again(self, delivery: Delivery) -> Delivery:
        """Return a redelivery of the same message."""
        self._count += 1
        return replace(delivery, consumer_seq=self._count, delivered=delivery.delivered + 1)

    async def tails(self, run_id: str) -> list[str]:
        return [entry.fact.tail for entry in await self.log.read(run_id)]

    async def outcome(self, run_id: str) -> RunFinished:
        found = [entry.fact for entry in await self.log.read(run_id) if isinstance(entry.fact, RunFinished)]
        assert len(found) == 1
        return found[0]


def requested(run_id: str, pipeline: Pipeline) -> RunRequested:
    inputs: dict[str, Value] = {"text": Inline("x" * 60_000)} if pipeline.params else {}
    return RunRequested(run_id=run_id, project="p", pipeline=pipeline.name, version=1, inputs=inputs)


def end(run_id: str, key: str) -> AttemptFinished:
    return AttemptFinished(run_id=run_id, key=key, attempt=1, outcome=Outcome.SUCCEEDED, outputs={"result": Inline(1)})


async def test_an_oversized_attempt_request_fails_only_its_run(bus: Bus) -> None:
    harness = SchedulerHarness(bus)
    asked = [requested("large", LARGE_INPUT), *(requested(f"plain-{n}", PLAIN) for n in range(8))]
    deliveries = [await harness.write(fact) for fact in asked]
    await harness.scheduler.handle(deliveries)
    end_of_large = await harness.outcome("large")
    assert end_of_large.outcome is Outcome.FAILED
    assert "'a' was skipped: it cannot be requested" in str(end_of_large.error)
    assert "pass large values as files or artifacts" in str(end_of_large.error)
    for n in range(8):
        assert "step.a.1.requested.default" in await harness.tails(f"plain-{n}")
    assert harness.edges.later == []
    assert set(harness.edges.acked) == {delivery.stream_seq for delivery in deliveries}


async def test_oversized_run_outputs_fail_the_run(bus: Bus) -> None:
    harness = SchedulerHarness(bus)
    await harness.scheduler.handle([await harness.write(requested("outputs", LARGE_OUTPUT))])
    await harness.scheduler.handle([await harness.write(end("outputs", "a"))])
    finished = await harness.outcome("outputs")
    assert finished.outcome is Outcome.FAILED
    assert "its outputs cannot be recorded" in str(finished.error)
    assert len(harness.edges.acked) == 2


async def test_facts_of_a_failed_round_are_folded_on_redelivery(bus: Bus) -> None:
    harness = SchedulerHarness(bus)
    await harness.scheduler.handle([await harness.write(requested("left", PLAIN))])
    corrupt = await harness.write(end("other", "a"), b"no json")
    first = await harness.write(end("left", "a"))
    harness.edges.fails = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError):
        await harness.scheduler.handle([corrupt, first])
    await harness.scheduler.handle([await harness.write(end("left", "b"))])
    await harness.scheduler.handle([harness.again(corrupt), harness.again(first)])
    assert "step.c.1.requested.default" in await harness.tails("left")


async def test_an_evicted_run_is_refolded_without_a_sequence_gap(bus: Bus) -> None:
    """A killed server may have lost track of deliveries to another replica."""
    harness = SchedulerHarness(bus)
    await harness.scheduler.handle([await harness.write(requested("counted", PLAIN))])
    unseen = await harness.write(end("counted", "a"))
    harness.scheduler.forget([0, int(ids.shard("counted"))])
    last = await harness.write(end("counted", "b"))
    await harness.scheduler.handle([replace(last, consumer_seq=unseen.consumer_seq)])
    assert "step.c.1.requested.default" in await harness.tails("counted")


async def test_a_fold_of_a_lagging_replica_is_not_acknowledged(bus: Bus) -> None:
    harness = SchedulerHarness(bus)
    await harness.scheduler.handle([await harness.write(requested("lag", PLAIN))])
    await harness.scheduler.handle([await harness.write(end("lag", "b"))])
    harness.scheduler.forget([0, int(ids.shard("lag"))])
    last = await harness.write(end("lag", "a"))
    harness.log.lag = 1
    await harness.scheduler.handle([last])
    assert harness.edges.later == [last.stream_seq]
    assert last.stream_seq not in harness.edges.acked
    harness.log.lag = 0
    await harness.scheduler.handle([harness.again(last)])
    assert last.stream_seq in harness.edges.acked
    assert "step.c.1.requested.default" in await harness.tails("lag")


async def test_a_requested_run_before_a_gap_in_the_same_batch_is_folded(bus: Bus) -> None:
    """Another replica was sent the run's cancel in between, and no later gap would show that."""
    harness = SchedulerHarness(bus)
    first = await harness.write(requested("gap", PLAIN))
    await harness.write(CancelRequested(run_id="gap"))
    last = await harness.write(requested("after", PLAIN))
    await harness.scheduler.handle([first, last])
    assert (await harness.outcome("gap")).outcome is Outcome.CANCELLED
    assert "step.a.1.requested.default" not in await harness.tails("gap")
    assert "step.a.1.requested.default" in await harness.tails("after")


async def test_a_run_that_cannot_be_folded_blocks_no_other(bus: Bus) -> None:
    harness = SchedulerHarness(bus)
    bad = await harness.write(RunRequested(run_id="bad", project="p", pipeline="unknown", version=1))
    good = await harness.write(requested("good", PLAIN))
    await harness.scheduler.handle([bad, good])
    assert "step.a.1.requested.default" in await harness.tails("good")
    assert (harness.edges.later, harness.edges.acked) == ([bad.stream_seq], [good.stream_seq])
