"""Limits on a real server: several replicas, crashes between the two writes, lost or full ledgers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from nats.aio.msg import Msg

from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.limits import LimitSizes, LimitsStore, pack, unpack
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.run_log import NatsRunLog
from penstock_contracts import subjects
from penstock_contracts.commands import EnvironmentInfo, Version
from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.errors import UnavailableError
from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    CancelRequested,
    Fact,
    Limit,
    Outcome,
    RunAdmitted,
    RunFinished,
    RunRequested,
    SlotGranted,
)
from penstock_core.limits import slot_ledger
from penstock_core.limits.slot_ledger import LimitsLedger
from penstock_core.pipeline.ir import Overlap, Pipeline, StepSpec
from penstock_core.run.effects import AcquireSlots, AdmitRun, Effect, ReleaseRun, ReleaseSlots
from penstock_scheduler.limits import Limits
from penstock_scheduler.limits_reconciler import LimitsReconciler
from penstock_servicekit.nats_connection import connect, servers
from penstock_testkit.servers.nats import NatsServer

GPU = (Limit(name="gpu", most=2),)
_RUNS = itertools.count(1)


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    broker, bus = await connect(servers(nats_server.url), "test", asyncio.get_running_loop().create_future())
    await bootstrap(bus, pools=["default"])
    for stream in (subjects.RUNS, f"KV_{subjects.LIMITS_BUCKET}"):
        await bus.api(f"STREAM.PURGE.{stream}", {})
    await Replica(bus).compare()
    yield bus
    await broker.stop()


SPEC = StepSpec(name="train", entrypoint="m:train")


@dataclass
class Plan:
    pipeline: Pipeline
    specs: dict[str, StepSpec] = field(default_factory=lambda: {"train": SPEC})


@dataclass
class Step:
    limits: tuple[Limit, ...]
    since: float
    node: str = "train"
    attempt: int = 1
    queued_attempt: int = 1


@dataclass
class Run:
    """The part of a run's state that limits need."""

    run_id: str
    requested: RunRequested | None = None
    plan: Plan = field(default_factory=lambda: Plan(Pipeline(name="p")))
    steps: dict[str, Step] = field(default_factory=dict[str, Step])

    def find(self, key: str) -> Step | None:
        return self.steps.get(key)


class Versions:
    def __init__(self) -> None:
        self.pipelines: dict[str, Pipeline] = {}

    async def get(self, project: str, pipeline: str, version: int) -> Version | None:
        found = self.pipelines.get(pipeline)
        environment = EnvironmentInfo(version="3", digest="0" * 64)
        return found and Version(
            project=project,
            name=pipeline,
            version=version,
            digest="0" * 64,
            source="0" * 64,
            environment=environment,
            pipeline=found,
            registered_at=0.0,
        )


class Replica:
    """A scheduler replica, reduced to limits."""

    def __init__(self, bus: Bus, versions: Versions | None = None) -> None:
        self.store, self.sizes, self.log = LimitsStore(bus), LimitSizes(bus), NatsRunLog(bus, "test")
        self.versions = versions or Versions()
        self.handler = Limits(self.store, self.sizes, self.log, time.time)
        self.check = LimitsReconciler(bus, self.handler, self.store, self.sizes, self.versions, 3600.0)

    async def compare(self) -> LimitsLedger:
        await self.check.compare(time.time())
        ledger, _ = await self.store.read()
        assert ledger is not None
        return ledger

    async def hold(self, key: str = "train", needs: tuple[Limit, ...] = GPU, *, run: Run | None = None) -> Run:
        """A run with a queued attempt of step `key` in its log, whose slots are not requested yet."""
        run = run or Run(f"run{next(_RUNS)}")
        held = AttemptQueued(run_id=run.run_id, key=key, attempt=1, limits=needs, since=time.time())
        run.steps[key] = Step(held.limits, held.since)
        await self.log.append([held])
        return run

    async def do(self, run: Run, *effects: Effect) -> list[Fact]:
        return await self.handler.carry_out(run, effects, time.time())

    async def acquire(self, run: Run, key: str = "train") -> list[Fact]:
        return await self.do(run, AcquireSlots(key, 1))

    async def finish(self, run: Run, key: str = "train") -> list[Fact]:
        end = AttemptFinished(run_id=run.run_id, key=key, attempt=1, outcome=Outcome.SUCCEEDED)
        await self.log.append([end])
        run.steps.pop(key, None)
        return await self.do(run, ReleaseSlots(key, 1))

    async def facts(self, run: Run, kind: type[Fact]) -> list[Fact]:
        return [entry.fact for entry in await self.log.read(run.run_id) if isinstance(entry.fact, kind)]

    async def granted(self, runs: Sequence[Run]) -> list[str]:
        return [run.run_id for run in runs if await self.facts(run, SlotGranted)]

    async def request(self, pipeline: Pipeline, limit: DeploymentLimit | None = None) -> Run:
        fact = RunRequested(
            run_id=f"run{next(_RUNS)}",
            project="default",
            pipeline=pipeline.name,
            version=1,
            requested_at=time.time(),
            deployment_limit=limit,
        )
        await self.log.append([fact])
        self.versions.pipelines[pipeline.name] = pipeline
        return Run(fact.run_id, fact, Plan(pipeline))


@pytest.fixture
async def one(bus: Bus) -> AsyncIterator[Replica]:
    replica = Replica(bus)
    yield replica
    await replica.handler.stop()


async def test_a_third_attempt_gets_a_slot_when_one_finishes(one: Replica) -> None:
    runs = [await one.hold() for _ in range(3)]
    for run in runs[:2]:
        assert await one.acquire(run) == [SlotGranted(run_id=run.run_id, key="train", attempt=1)]
    assert await one.acquire(runs[2]) == []
    assert await one.granted(runs) == [runs[0].run_id, runs[1].run_id]
    await one.finish(runs[0])
    assert await one.granted(runs) == [run.run_id for run in runs]


async def test_a_released_slot_is_reused_by_the_same_run_at_once(one: Replica) -> None:
    run = await one.hold("a", (Limit(name="gpu", most=1),))
    await one.hold("b", (Limit(name="gpu", most=1),), run=run)
    assert len(await one.do(run, AcquireSlots("a", 1), AcquireSlots("b", 1))) == 1
    assert await one.finish(run, "a") == [SlotGranted(run_id=run.run_id, key="b", attempt=1)]


async def test_a_thousand_concurrent_requests_are_batched_into_few_writes(one: Replica) -> None:
    run = Run("busy")
    for n in range(1000):
        run.steps[f"t[{n}]"] = Step((Limit(name="g", most=400),), 0.0)
    before = await last_change(one)
    facts = await asyncio.gather(*(one.do(run, AcquireSlots(f"t[{n}]", 1)) for n in range(1000)))
    assert len({fact.tail for each in facts for fact in each}) == 400
    _, revision = await one.store.read()
    assert revision - before <= 3
    assert len(await one.facts(run, SlotGranted)) == 400


async def test_many_replicas_grant_exactly_the_capacity(bus: Bus) -> None:
    replicas = [Replica(bus) for _ in range(4)]
    runs = [await replicas[0].hold() for _ in range(60)]
    active: set[str] = set()
    most = 0

    async def live(run: Run, n: int) -> None:
        nonlocal most
        replica, other = replicas[n % 4], replicas[(n + 1) % 4]  # acquired here, released there
        await replica.acquire(run)
        async with asyncio.timeout(60):
            while not await replica.facts(run, SlotGranted):
                await asyncio.sleep(0.02)
        active.add(run.run_id)
        most = max(most, len(active))
        await asyncio.sleep(0.01)
        active.discard(run.run_id)
        await other.finish(run)

    await asyncio.gather(*(live(run, n) for n, run in enumerate(runs)))
    assert most == 2
    ledger, _ = await replicas[0].store.read()
    assert ledger is not None and not ledger.holders and not ledger.waiters


async def test_a_release_is_seen_by_a_replica_with_a_stale_ledger(bus: Bus) -> None:
    old, new = Replica(bus), Replica(bus)
    first = await old.hold()
    await old.acquire(first)
    second = await new.hold()
    await new.acquire(second)
    await old.finish(second)  # its ledger does not have it
    ledger, _ = await old.store.read()
    assert ledger is not None and {slot_key[0] for slot_key in ledger.holders} == {first.run_id}


class CrashingRunLog(NatsRunLog):
    """A log that rejects appends: a crash after the ledger was changed."""

    async def append(self, facts: Sequence[Fact]) -> list[bool]:
        raise UnavailableError("killed")


async def test_a_grant_survives_a_crash_before_its_fact(bus: Bus) -> None:
    whole, dying = Replica(bus), Replica(bus)
    dying.handler = Limits(dying.store, dying.sizes, CrashingRunLog(bus, "test"), time.time)
    runs = [await whole.hold(needs=(Limit(name="gpu", most=1),)) for _ in range(3)]
    await whole.acquire(runs[0])
    await whole.acquire(runs[1])
    with pytest.raises(UnavailableError):
        await dying.finish(runs[0])
    assert await whole.granted(runs) == [runs[0].run_id]
    # The next request of any replica repairs it.
    await whole.acquire(runs[2])
    assert await whole.granted(runs) == [runs[0].run_id, runs[1].run_id]


async def test_a_grant_survives_a_crash_when_nothing_else_happens(bus: Bus) -> None:
    whole, dying = Replica(bus), Replica(bus)
    dying.handler = Limits(dying.store, dying.sizes, CrashingRunLog(bus, "test"), time.time)
    run = await whole.hold()
    with pytest.raises(UnavailableError):
        await dying.acquire(run)
    assert await whole.granted([run]) == []
    await whole.compare()
    assert await whole.granted([run]) == [run.run_id]


async def test_effects_are_idempotent(one: Replica) -> None:
    runs = [await one.hold() for _ in range(3)]
    for _ in range(2):
        for run in runs:
            await one.acquire(run)
    assert await one.granted(runs) == [runs[0].run_id, runs[1].run_id]
    for _ in range(2):
        await one.finish(runs[0])
    ledger, _ = await one.store.read()
    assert ledger is not None and len(ledger.holders) == 2 and not ledger.waiters


async def test_a_lost_ledger_is_rebuilt_from_the_log(bus: Bus, one: Replica) -> None:
    runs = [await one.hold() for _ in range(5)]
    for run in runs:
        await one.acquire(run)
    await one.finish(runs[0])  # runs 1 and 2 have slots, 3 and 4 wait
    pipeline = Pipeline(name="lost", max_active=1)
    admitted, waiting = await one.request(pipeline), await one.request(pipeline)
    assert await one.do(admitted, AdmitRun()) == [RunAdmitted(run_id=admitted.run_id)]
    assert await one.do(waiting, AdmitRun()) == []
    await bus.api(f"STREAM.PURGE.KV_{subjects.LIMITS_BUCKET}", {})
    new = Replica(bus, one.versions)
    late = await new.hold()
    assert await new.acquire(late) == []  # the other holders are unknown
    ledger = await new.compare()
    assert {slot_key[0] for slot_key in ledger.holders} == {runs[1].run_id, runs[2].run_id, admitted.run_id}
    assert {slot_key[0] for slot_key in ledger.waiters} == {runs[3].run_id, runs[4].run_id, late.run_id, waiting.run_id}
    await new.finish(runs[1])
    assert await new.granted(runs) == [run.run_id for run in runs[:4]]


async def test_queued_runs_of_a_deployment_survive_the_loss_of_the_ledger(
    bus: Bus, one: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those for which the ledger had no room."""
    monkeypatch.setattr(slot_ledger, "MAX_WAITERS", 10)
    pipeline = Pipeline(name="lost-queue")
    limit = DeploymentLimit(deployment="lost", most=1)
    runs = [await one.request(pipeline, limit) for _ in range(25)]
    for run in runs:
        await one.do(run, AdmitRun())
    ledger, _ = await one.store.read()
    assert ledger is not None and len(ledger.waiters) == 10 and "deployment:default/lost" in ledger.outside
    await bus.api(f"STREAM.PURGE.KV_{subjects.LIMITS_BUCKET}", {})
    new = Replica(bus, one.versions)
    await new.compare()
    for run in runs:
        assert await new.facts(run, RunAdmitted), f"{run.run_id} was lost"
        await new.log.append([RunFinished(run_id=run.run_id, outcome=Outcome.SUCCEEDED)])
        await new.do(run, ReleaseRun())
        await new.compare()
    ledger, _ = await new.store.read()
    assert ledger is not None and not ledger.holders and not ledger.waiters and not ledger.outside


async def test_an_unreadable_ledger_is_rebuilt(bus: Bus, one: Replica) -> None:
    run = await one.hold()
    await one.acquire(run)
    await Bucket(bus, subjects.LIMITS_BUCKET).put(subjects.LIMITS_STATE, b'{"form": 99}')
    ledger = await Replica(bus).compare()
    assert {slot_key[0] for slot_key in ledger.holders} == {run.run_id}


async def test_reconciliation_removes_finished_and_adds_missing_attempts(one: Replica) -> None:
    over, forgotten = await one.hold(), await one.hold()
    await one.acquire(over)
    await one.log.append([AttemptFinished(run_id=over.run_id, key="train", attempt=1, outcome=Outcome.LOST)])
    ledger = await one.compare()
    assert {slot_key[0] for slot_key in ledger.holders} == {forgotten.run_id}
    assert await one.granted([forgotten]) == [forgotten.run_id]


async def test_a_run_with_a_deleted_log_is_removed_at_the_second_reconciliation(bus: Bus, one: Replica) -> None:
    run = await one.hold()
    await one.acquire(run)
    await bus.api(f"STREAM.PURGE.{subjects.RUNS}", {"filter": subjects.run_all(run.run_id)})
    assert (await one.compare()).holders
    assert not (await one.compare()).holders


async def test_waiters_beyond_the_ledger_are_all_served(
    bus: Bus, one: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_ledger, "MAX_WAITERS", 10)
    runs = [await one.hold(needs=(Limit(name="g", most=1),)) for _ in range(40)]
    for run in runs:
        await one.acquire(run)
    ledger, _ = await one.store.read()
    assert ledger is not None and len(ledger.waiters) == 10
    wanted = 0

    def wants() -> None:
        nonlocal wanted
        wanted += 1

    one.handler.needs_comparison = wants
    for n, run in enumerate(runs):
        assert len(await one.granted(runs)) == n + 1
        before = wanted
        await one.finish(run)
        if wanted > before:
            await one.compare()
    ledger, _ = await one.store.read()
    assert ledger is not None and not ledger.holders and not ledger.waiters and not ledger.outside
    assert 0 < wanted < 15


async def test_an_unknown_limit_fails_the_attempt(one: Replica) -> None:
    run = await one.hold(needs=(Limit(name="licence"),))
    [end] = await one.acquire(run)
    assert isinstance(end, AttemptFinished) and end.outcome is Outcome.FAILED and end.error is not None
    assert end.error.type == "UnknownLimit"
    assert "penstock limits set licence SLOTS" in end.error.message


async def test_removing_a_limit_fails_waiters_and_removing_a_pool_size_releases_them(bus: Bus, one: Replica) -> None:
    await one.sizes.change("licence", 1)
    await one.sizes.change("pool:big", 1)
    await one.sizes.read()
    assert one.handler.pools == {"big"}
    step = [await one.hold(needs=(Limit(name="licence"),)) for _ in range(2)]
    pool = [await one.hold(needs=(Limit(name="pool:big"),)) for _ in range(2)]
    for run in step + pool:
        await one.acquire(run)
    assert len(await one.granted(step + pool)) == 2
    await one.sizes.change("licence", None)
    await one.sizes.change("pool:big", None)
    await one.sizes.read()
    await one.handler.change(lambda ledger: None)
    assert await one.granted(pool) == [run.run_id for run in pool]
    [end] = await one.facts(step[1], AttemptFinished)
    assert isinstance(end, AttemptFinished) and end.error is not None and end.error.type == "UnknownLimit"


async def test_a_changed_size_applies_at_once_on_every_replica(bus: Bus) -> None:
    replicas = [Replica(bus) for _ in range(2)]
    tasks = [asyncio.create_task(r.check.run(lambda *_, **__: None, time.time)) for r in replicas]
    for replica in replicas:
        await replica.check.start()
    runs = [await replicas[0].hold() for _ in range(5)]
    for run in runs:
        await replicas[0].acquire(run)
    assert len(await replicas[0].granted(runs)) == 2
    await LimitSizes(bus).change("gpu", 4)
    await until(lambda: all(r.sizes.now == {"gpu": 4} for r in replicas))
    async with asyncio.timeout(30):
        while len(await replicas[0].granted(runs)) < 4:
            await asyncio.sleep(0.02)
    await LimitSizes(bus).change("gpu", 1)
    await until(lambda: all(r.sizes.now == {"gpu": 1} for r in replicas))
    for n in range(3):
        await replicas[n % 2].finish(runs[n])
    assert len(await replicas[0].granted(runs)) == 4
    await replicas[1].finish(runs[3])
    assert len(await replicas[0].granted(runs)) == 5
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for replica in replicas:
        await replica.check.close()


async def test_a_replica_with_a_stale_size_does_not_use_it(bus: Bus) -> None:
    old, new = Replica(bus), Replica(bus)
    await new.sizes.change("gpu", 3)
    await old.sizes.read()
    runs = [await old.hold() for _ in range(4)]
    await old.acquire(runs[0])
    await new.sizes.change("gpu", 1)
    await new.sizes.read()
    await new.handler.change(lambda ledger: None)
    assert await old.acquire(runs[1]) == []


@pytest.mark.parametrize("policy", Overlap)
@pytest.mark.parametrize("owner", ["pipeline", "deployment"])
async def test_max_active_runs_of_a_pipeline_and_of_a_deployment(one: Replica, owner: str, policy: Overlap) -> None:
    limit = DeploymentLimit(deployment=f"d-{policy}", most=1, overlap=policy) if owner == "deployment" else None
    limited = {} if limit else {"max_active": 1, "overlap": policy}
    pipeline = Pipeline(name=f"p-{policy}-{owner}", **limited)
    runs = [await one.request(pipeline, limit) for _ in range(3)]
    answers = [await one.do(run, AdmitRun()) for run in runs]
    assert answers[0] == [RunAdmitted(run_id=runs[0].run_id)]
    match policy:
        case Overlap.QUEUE:
            assert answers[1:] == [[], []]
        case Overlap.SKIP | Overlap.BUFFER_ONE:
            assert answers[1] == [] or policy is Overlap.SKIP
            [end] = answers[2]
            assert isinstance(end, RunFinished) and end.outcome is Outcome.SKIPPED and str(policy) in (end.error or "")
            assert owner in (end.error or "")
            assert await one.facts(runs[2], RunFinished) == [end]
        case Overlap.CANCEL_PREVIOUS:
            for run in runs[:2]:
                [cancel] = await one.facts(run, CancelRequested)
                assert isinstance(cancel, CancelRequested) and "cancel_previous" in cancel.reason
            assert not await one.facts(runs[2], CancelRequested)
    await one.do(runs[0], ReleaseRun())
    nxt = {Overlap.QUEUE: 1, Overlap.BUFFER_ONE: 1, Overlap.CANCEL_PREVIOUS: 2}.get(policy)
    for n, run in enumerate(runs[1:], 1):
        assert bool(await one.facts(run, RunAdmitted)) == (n == nxt)


async def test_a_run_is_not_skipped_when_its_log_has_more_than_the_replica_knows(bus: Bus, one: Replica) -> None:
    """A replica that does not know of the skip would run the steps of a finished run, or skip one that is under way."""
    pipeline = Pipeline(name="stale", max_active=1, overlap=Overlap.SKIP)
    active, cancelled, skipped = [await one.request(pipeline) for _ in range(3)]
    await one.do(active, AdmitRun())
    await one.log.append([CancelRequested(run_id=cancelled.run_id)])
    with pytest.raises(UnavailableError):
        await one.do(cancelled, AdmitRun())
    assert not await one.facts(cancelled, RunFinished)
    assert len(await one.do(skipped, AdmitRun())) == 1
    other = Replica(bus)
    with pytest.raises(UnavailableError):
        await other.do(skipped, AdmitRun())
    await one.do(active, ReleaseRun())
    with pytest.raises(UnavailableError):
        await other.do(skipped, AdmitRun())


async def test_a_run_that_another_replica_admits_meanwhile_is_not_skipped(bus: Bus, one: Replica) -> None:
    pipeline = Pipeline(name="raced", max_active=1, overlap=Overlap.SKIP)
    active, raced = [await one.request(pipeline) for _ in range(2)]
    await one.do(active, AdmitRun())

    class RacedBus(Bus):
        async def read(self, stream: str, subject: str, after: int = 0) -> list[Msg]:
            found = await super().read(stream, subject, after)
            await one.do(active, ReleaseRun())
            await one.do(raced, AdmitRun())
            return found

    slow = Replica(bus)
    slow.handler = Limits(slow.store, slow.sizes, NatsRunLog(RacedBus(bus.client), "test"), time.time)
    with pytest.raises(UnavailableError):
        await slow.do(raced, AdmitRun())
    assert await one.facts(raced, RunAdmitted)
    assert not await one.facts(raced, RunFinished)


@pytest.mark.parametrize("policy", [Overlap.QUEUE, Overlap.SKIP, Overlap.CANCEL_PREVIOUS])
async def test_a_new_ledger_keeps_the_overlap_policy_of_new_runs(bus: Bus, one: Replica, policy: Overlap) -> None:
    """The comparison of a new ledger reads runs from the log whose requests are being delivered at the same time."""
    pipeline = Pipeline(name=f"early-{policy}", max_active=1, overlap=policy)
    runs = [await one.request(pipeline) for _ in range(3)]
    await bus.api(f"STREAM.PURGE.KV_{subjects.LIMITS_BUCKET}", {})
    new = Replica(bus, one.versions)
    await new.compare()
    for run in runs:
        await new.do(run, AdmitRun())
    admitted = [bool(await one.facts(run, RunAdmitted)) for run in runs]
    assert admitted == ([False, False, True] if policy is Overlap.CANCEL_PREVIOUS else [True, False, False])
    cancelled = [bool(await one.facts(run, CancelRequested)) for run in runs]
    assert cancelled == [policy is Overlap.CANCEL_PREVIOUS] * 2 + [False]
    finished = [bool(await one.facts(run, RunFinished)) for run in runs]
    assert finished == [False, policy is Overlap.SKIP, policy is Overlap.SKIP]


def test_a_full_ledger_stays_below_half_a_mebibyte() -> None:
    ledger = LimitsLedger()
    for n in range(20_000):
        name = f"limit-{n % 40}-{'x' * 80}"
        slot_key = (f"01hq{n:022d}", f"features/{'k' * (n % 190)}[{n}]", 1)
        slot_ledger.enqueue(
            ledger, slot_ledger.Waiter(slot_key, (Limit(name=name, most=300), Limit(name="pool:gpu")), 0, float(n))
        )
    slot_ledger.serve(ledger, {"pool:gpu": 10_000}, 1e9 / 7)
    slot_ledger.trim(ledger)
    assert len(ledger.holders) > 500 and len(ledger.waiters) > 500
    packed = pack(ledger)
    assert len(packed) < 512 * 1024
    assert unpack(packed) == ledger


async def last_change(replica: Replica) -> int:
    await replica.compare()
    _, revision = await replica.store.read()
    return revision


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)
