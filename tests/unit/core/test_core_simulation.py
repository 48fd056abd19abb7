"""The run state machine with late and duplicate messages, and crashes of every process.

Hypothesis chooses the next action; `penstock_testkit.simulation.platform.SimulatedPlatform` performs it and checks the
invariants after each step. At the end everything becomes healthy, and every run must finish.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock_core.facts import Fact, Outcome, RunFinished
from penstock_core.pipeline.ir import Overlap, Phase, Pipeline
from penstock_testkit import generators, strategies
from penstock_testkit.run_driver import node, pipeline
from penstock_testkit.simulation import driver
from penstock_testkit.simulation.platform import SimulatedPlatform

ANY = st.integers(0, 20)
REPLICA = st.integers(0, 2)
EXECUTOR = st.integers(0, 1)
FLAG = st.integers(0, 1)


def has_facts(simulated: SimulatedPlatform) -> bool:
    return bool(simulated.facts.waiting or simulated.facts.again)


def has_attempts(simulated: SimulatedPlatform) -> bool:
    return bool(simulated.attempts.waiting or simulated.attempts.again)


def busy(simulated: SimulatedPlatform) -> list[int]:
    return [number for number, replica in enumerate(simulated.replicas) if replica.busy]


class Cluster(RuleBasedStateMachine):
    """Three schedulers and two executors around one broker."""

    def __init__(self) -> None:
        super().__init__()
        self.simulated = SimulatedPlatform()

    @initialize(first=strategies.pipelines())
    def begin(self, first: Pipeline) -> None:
        self.simulated.submit(first)

    @precondition(lambda self: len(self.simulated.pipelines) < 2)
    @rule(pipeline=strategies.pipelines(nodes=3))
    def submit(self, pipeline: Pipeline) -> None:
        self.simulated.submit(pipeline)

    # Hypothesis disables some rules in each example; either of the next two alone makes progress.

    @rule(replica=REPLICA, executor=EXECUTOR, how=st.integers(0, 10), size=st.integers(0, generators.SIZES - 1))
    def all_is_well(self, replica: int, executor: int, how: int, size: int) -> None:
        self.simulated.deliver(replica, 4)
        self.simulated.schedule(replica, 7)
        self.simulated.wait(30)
        self.simulated.grant(0)
        self.simulated.admit(0)
        self.simulated.take(executor)
        self.simulated.end(len(self.simulated.executions) - 1, how, size)

    @rule(replica=REPLICA, executor=EXECUTOR, which=ANY, how=st.integers(0, 10), steps=st.integers(0, 7))
    def much_at_once(self, replica: int, executor: int, which: int, how: int, steps: int) -> None:
        self.simulated.take(executor)
        self.simulated.start(which)
        self.simulated.deliver(replica, 1)
        self.simulated.schedule(replica + 1, steps)
        self.simulated.take(executor + 1)
        self.simulated.end(which, how)

    # ---------------------------------------------------------------------------------------------- schedulers

    @precondition(lambda self: has_facts(self.simulated))
    @rule(replica=REPLICA, count=st.integers(0, 4), redelivered_first=FLAG)
    def deliver(self, replica: int, count: int, redelivered_first: int) -> None:
        self.simulated.deliver(replica, count, redelivered_first)

    @precondition(lambda self: has_facts(self.simulated))
    @rule(replica=REPLICA)
    def deliver_and_decide(self, replica: int) -> None:
        self.simulated.deliver(replica, 0)
        self.simulated.schedule(replica, 7)

    @precondition(lambda self: bool(busy(self.simulated)))
    @rule(which=st.integers(0, 2), steps=st.integers(0, 7))
    def advance(self, which: int, steps: int) -> None:
        self.simulated.schedule(busy(self.simulated)[which % len(busy(self.simulated))], steps)

    @precondition(lambda self: bool(busy(self.simulated)))
    @rule(which=st.integers(0, 2))
    def crash_scheduler(self, which: int) -> None:
        self.simulated.crash(busy(self.simulated)[which % len(busy(self.simulated))])

    @precondition(lambda self: bool(busy(self.simulated)))
    @rule(which=st.integers(0, 2), how=FLAG)
    def lose_an_answer(self, which: int, how: int) -> None:
        self.simulated.cut(busy(self.simulated)[which % len(busy(self.simulated))], how)

    @precondition(lambda self: bool(self.simulated.facts.ack_pending))
    @rule(which=ANY)
    def expire(self, which: int) -> None:
        self.simulated.expire(which)

    # ----------------------------------------------------------------------------------------------- executors

    @precondition(lambda self: has_attempts(self.simulated))
    @rule(executor=EXECUTOR, redelivered_first=FLAG)
    def take(self, executor: int, redelivered_first: int) -> None:
        self.simulated.take(executor, redelivered_first)

    @precondition(lambda self: has_attempts(self.simulated))
    @rule(executor=EXECUTOR, how=st.integers(0, 10), size=st.integers(0, generators.SIZES - 1))
    def take_and_end(self, executor: int, how: int, size: int) -> None:
        self.simulated.take(executor)
        self.simulated.end(len(self.simulated.executions) - 1, how, size)

    @precondition(lambda self: bool(self.simulated.executions))
    @rule(which=ANY)
    def start(self, which: int) -> None:
        self.simulated.start(which)

    @precondition(lambda self: bool(self.simulated.executions))
    @rule(which=ANY, how=st.integers(0, 10), size=st.integers(0, generators.SIZES - 1), acknowledged=st.integers(0, 3))
    def end(self, which: int, how: int, size: int, acknowledged: int) -> None:
        self.simulated.end(which, how, size, acknowledged)

    @precondition(lambda self: bool(self.simulated.executions))
    @rule(executor=EXECUTOR, zombie=FLAG)
    def kill_executor(self, executor: int, zombie: int) -> None:
        self.simulated.die(executor, zombie)

    # -------------------------------------------------------------------------------------------------- others

    @precondition(lambda self: len(self.simulated.broker.records) > 8)
    @rule(run=st.integers(0, 1))
    def cancel(self, run: int) -> None:
        self.simulated.cancel(run)

    @precondition(lambda self: len(self.simulated.broker.records) > 4)
    @rule(which=ANY)
    def spoil_a_message(self, which: int) -> None:
        self.simulated.write_unreadable(which)

    @precondition(lambda self: len(self.simulated.broker.records) > 4)
    @rule(run=st.integers(0, 1), which=ANY, item=st.integers(0, 3))
    def cancel_a_step(self, run: int, which: int, item: int) -> None:
        self.simulated.cancel_step(run, which, item)

    @precondition(lambda self: bool(self.simulated.environment.waiting or self.simulated.environment.holding))
    @rule(which=ANY)
    def grant(self, which: int) -> None:
        self.simulated.grant(which)

    @precondition(lambda self: bool(self.simulated.environment.queue))
    @rule(which=ANY)
    def admit(self, which: int) -> None:
        self.simulated.admit(which)

    @precondition(lambda self: bool(self.simulated.environment.pending_waits()))
    @rule(which=ANY, how=st.integers(0, 10))
    def answer(self, which: int, how: int) -> None:
        self.simulated.answer(which, how, 0)

    @precondition(lambda self: bool(self.simulated.environment.timers))
    @rule(which=ANY, again=FLAG)
    def fire_timer(self, which: int, again: int) -> None:
        self.simulated.wait(59)
        self.simulated.fire_timer(which, again)

    @precondition(lambda self: has_attempts(self.simulated))
    @rule()
    def wait(self) -> None:
        self.simulated.wait(30)

    @invariant()
    def promises_hold(self) -> None:
        self.simulated.check()

    def teardown(self) -> None:
        self.simulated.settle()


def overlapping_runs() -> SimulatedPlatform:
    """An active run, and one of a pipeline that skips a run while another is active; schedulers know neither yet."""
    simulated = SimulatedPlatform()
    simulated.submit(replace(pipeline(node("a")), max_active=1))
    at_exit = replace(node("b"), phase=Phase.ON_EXIT)
    simulated.submit(replace(pipeline(node("a"), at_exit), max_active=1, overlap=Overlap.SKIP))
    return simulated


def test_a_scheduler_that_skips_a_run_ignores_its_cancel() -> None:
    simulated = overlapping_runs()
    for _ in range(3):
        simulated.deliver(0, 0)
        simulated.schedule(0, 7)
        simulated.admit(0)
    simulated.cancel(1)
    simulated.settle()
    assert [fact.tail for fact in facts_of(simulated, "run1")] == ["requested", "finished", "cancel"]


def test_a_run_that_is_cancelled_before_it_is_skipped_is_cancelled() -> None:
    simulated = overlapping_runs()
    simulated.deliver(0, 0)
    simulated.schedule(0, 7)
    simulated.cancel(1)
    simulated.settle()
    assert "admitted" not in [fact.tail for fact in facts_of(simulated, "run1")]
    (end,) = [fact for fact in facts_of(simulated, "run1") if isinstance(fact, RunFinished)]
    assert end.outcome is Outcome.CANCELLED


def test_a_scheduler_that_is_behind_does_not_admit_a_finished_run() -> None:
    """It has folded the run and is about to request its admission when another one finishes the run."""
    simulated = overlapping_runs()
    simulated.deliver(0, 0)
    simulated.schedule(0, 1)
    simulated.expire(0)
    simulated.deliver(1, 0)
    simulated.schedule(1, 7)
    simulated.admit(0)
    while simulated.environment.active:
        simulated.deliver(1, 4)
        simulated.schedule(1, 7)
        simulated.take(0)
        simulated.end(0, 0)
    simulated.settle()


def test_a_requested_run_before_a_gap_in_the_same_batch_is_folded() -> None:
    """Its cancel went to another scheduler, and no later gap would show that the cached state lacks it."""
    simulated = SimulatedPlatform()
    simulated.submit(pipeline(node("a")))
    simulated.deliver(0, 0)
    simulated.cancel(0)
    simulated.deliver(1, 0)
    simulated.schedule(1, 7)
    simulated.deliver(1, 0)
    simulated.schedule(1, 7)
    simulated.submit(pipeline(node("a")))
    simulated.deliver(0, 0)
    simulated.schedule(0, 7)
    simulated.schedule(0, 7)
    simulated.check()
    assert "step.a.1.requested.default" not in [fact.tail for fact in facts_of(simulated, "run0")]
    simulated.settle()


def facts_of(simulated: SimulatedPlatform, run_id: str) -> list[Fact]:
    return [record.fact for record in simulated.broker.read(run_id)]


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=80)


def test_invariants_hold_for_many_seeded_histories() -> None:
    """The same simulation driven by seeds: faster, so it covers more and longer histories."""
    for seed in range(10_000, 10_300):
        driver.simulate(seed)
    for seed in [*range(20_000, 20_030), 400_117]:
        driver.simulate(seed, steps=600)
