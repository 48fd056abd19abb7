"""The run state machine in a world where messages are late, come twice, and everybody may die.

Hypothesis chooses what happens next; `penstock_testkit.simulation.World` makes it happen and checks the promises after
each step. In the end everything becomes healthy, and then every run must finish.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock_core.ir import Pipeline
from penstock_testkit import generate, simulation, strategies
from penstock_testkit.simulation import World

ANY = st.integers(0, 20)
REPLICA = st.integers(0, 2)
EXECUTOR = st.integers(0, 1)
FLAG = st.integers(0, 1)


def has_facts(world: World) -> bool:
    return bool(world.facts.waiting or world.facts.again)


def has_attempts(world: World) -> bool:
    return bool(world.attempts.waiting or world.attempts.again)


def busy(world: World) -> list[int]:
    return [number for number, replica in enumerate(world.replicas) if replica.busy]


class Cluster(RuleBasedStateMachine):
    """Three schedulers and two executors around one broker."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(first=strategies.pipelines())
    def begin(self, first: Pipeline) -> None:
        self.world.submit(first)

    @precondition(lambda self: len(self.world.pipelines) < 2)
    @rule(pipeline=strategies.pipelines(nodes=3))
    def submit(self, pipeline: Pipeline) -> None:
        self.world.submit(pipeline)

    # Hypothesis leaves out some rules in each example; either of the next two alone makes progress.

    @rule(replica=REPLICA, executor=EXECUTOR, how=st.integers(0, 10), size=st.integers(0, generate.SIZES - 1))
    def all_is_well(self, replica: int, executor: int, how: int, size: int) -> None:
        self.world.deliver(replica, 4)
        self.world.schedule(replica, 7)
        self.world.wait(30)
        self.world.grant(0)
        self.world.admit(0)
        self.world.take(executor)
        self.world.end(len(self.world.executions) - 1, how, size)

    @rule(replica=REPLICA, executor=EXECUTOR, which=ANY, how=st.integers(0, 10), steps=st.integers(0, 7))
    def much_at_once(self, replica: int, executor: int, which: int, how: int, steps: int) -> None:
        self.world.take(executor)
        self.world.start(which)
        self.world.deliver(replica, 1)
        self.world.schedule(replica + 1, steps)
        self.world.take(executor + 1)
        self.world.end(which, how)

    # ---------------------------------------------------------------------------------------------- schedulers

    @precondition(lambda self: has_facts(self.world))
    @rule(replica=REPLICA, count=st.integers(0, 4), again_first=FLAG)
    def deliver(self, replica: int, count: int, again_first: int) -> None:
        self.world.deliver(replica, count, again_first)

    @precondition(lambda self: has_facts(self.world))
    @rule(replica=REPLICA)
    def deliver_and_decide(self, replica: int) -> None:
        self.world.deliver(replica, 0)
        self.world.schedule(replica, 7)

    @precondition(lambda self: bool(busy(self.world)))
    @rule(which=st.integers(0, 2), steps=st.integers(0, 7))
    def go_on(self, which: int, steps: int) -> None:
        self.world.schedule(busy(self.world)[which % len(busy(self.world))], steps)

    @precondition(lambda self: bool(busy(self.world)))
    @rule(which=st.integers(0, 2))
    def crash_scheduler(self, which: int) -> None:
        self.world.crash(busy(self.world)[which % len(busy(self.world))])

    @precondition(lambda self: bool(busy(self.world)))
    @rule(which=st.integers(0, 2), how=FLAG)
    def lose_an_answer(self, which: int, how: int) -> None:
        self.world.cut(busy(self.world)[which % len(busy(self.world))], how)

    @precondition(lambda self: bool(self.world.facts.outstanding))
    @rule(which=ANY)
    def expire(self, which: int) -> None:
        self.world.expire(which)

    # ----------------------------------------------------------------------------------------------- executors

    @precondition(lambda self: has_attempts(self.world))
    @rule(executor=EXECUTOR, again_first=FLAG)
    def take(self, executor: int, again_first: int) -> None:
        self.world.take(executor, again_first)

    @precondition(lambda self: has_attempts(self.world))
    @rule(executor=EXECUTOR, how=st.integers(0, 10), size=st.integers(0, generate.SIZES - 1))
    def take_and_end(self, executor: int, how: int, size: int) -> None:
        self.world.take(executor)
        self.world.end(len(self.world.executions) - 1, how, size)

    @precondition(lambda self: bool(self.world.executions))
    @rule(which=ANY)
    def start(self, which: int) -> None:
        self.world.start(which)

    @precondition(lambda self: bool(self.world.executions))
    @rule(which=ANY, how=st.integers(0, 10), size=st.integers(0, generate.SIZES - 1), heard=st.integers(0, 3))
    def end(self, which: int, how: int, size: int, heard: int) -> None:
        self.world.end(which, how, size, heard)

    @precondition(lambda self: bool(self.world.executions))
    @rule(executor=EXECUTOR, zombie=FLAG)
    def kill_executor(self, executor: int, zombie: int) -> None:
        self.world.die(executor, zombie)

    # -------------------------------------------------------------------------------------------------- others

    @precondition(lambda self: len(self.world.broker.records) > 8)
    @rule(run=st.integers(0, 1))
    def cancel(self, run: int) -> None:
        self.world.cancel(run)

    @precondition(lambda self: len(self.world.broker.records) > 4)
    @rule(which=ANY)
    def spoil_a_message(self, which: int) -> None:
        self.world.spoil(which)

    @precondition(lambda self: len(self.world.broker.records) > 4)
    @rule(run=st.integers(0, 1), which=ANY, item=st.integers(0, 3))
    def cancel_a_step(self, run: int, which: int, item: int) -> None:
        self.world.cancel_step(run, which, item)

    @precondition(lambda self: bool(self.world.outside.waiting or self.world.outside.holding))
    @rule(which=ANY)
    def grant(self, which: int) -> None:
        self.world.grant(which)

    @precondition(lambda self: bool(self.world.outside.queue))
    @rule(which=ANY)
    def admit(self, which: int) -> None:
        self.world.admit(which)

    @precondition(lambda self: bool(self.world.outside.open_waits()))
    @rule(which=ANY, how=st.integers(0, 10))
    def answer(self, which: int, how: int) -> None:
        self.world.answer(which, how, 0)

    @precondition(lambda self: bool(self.world.outside.armed))
    @rule(which=ANY, again=FLAG)
    def ring(self, which: int, again: int) -> None:
        self.world.wait(59)
        self.world.ring(which, again)

    @precondition(lambda self: has_attempts(self.world))
    @rule()
    def wait(self) -> None:
        self.world.wait(30)

    @invariant()
    def promises_hold(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.settle()


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=2 * settings().max_examples, stateful_step_count=80)


def test_many_seeded_histories_keep_the_promises() -> None:
    """The same world driven by seeds: fast, so far more histories, and longer ones."""
    for seed in range(10_000, 10_300):
        simulation.simulate(seed)
    for seed in range(20_000, 20_030):
        simulation.simulate(seed, steps=600)
