"""A simulation of everything around the run state machine: broker, schedulers and executors with all known failures.

`SimulatedPlatform` has one method for each action: a message is delivered or redelivered; a scheduler does its next
step (fold, decide, append, acknowledge) or crashes between two of them; an executor takes, starts and ends attempts,
crashes, or sends a late report after it was presumed dead; a user cancels; a message is corrupted. Arguments are
integers, taken modulo the number of candidates, so that Hypothesis rules and a seeded generator can both drive it.
Facts come only from attempts that were really requested and taken.

`settle` establishes fairness: everything is delivered and healthy, so every run must finish in bounded steps.
`check` compares the log with `invariants` and raises `InvariantError`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from penstock_core import ownership
from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.facts import (
    AttemptFinished,
    AttemptQueued,
    AttemptRequested,
    AttemptStarted,
    AttemptStopped,
    CancelRequested,
    ClockReached,
    ErrorInfo,
    Fact,
    Outcome,
    RunAdmitted,
    RunRequested,
    SlotGranted,
    StepCancelRequested,
    StepReused,
)
from penstock_core.ownership import Action, OwnerStatus
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.values import Collected, CollectedRef, Inline, Value
from penstock_core.run.machine import Plan, RunState
from penstock_testkit import generators
from penstock_testkit.checks import invariants
from penstock_testkit.checks.invariants import InvariantError
from penstock_testkit.checks.state_machine import Machine, agreed, differences, dump
from penstock_testkit.simulation.broker import Broker, Consumer, Delivery
from penstock_testkit.simulation.environment import Environment
from penstock_testkit.simulation.replica import Replica, SchedulerBehavior, SharedState

SENT = (
    RunRequested
    | RunAdmitted
    | CancelRequested
    | ClockReached
    | StepCancelRequested
    | SlotGranted
    | AttemptFinished
    | AttemptStopped
)
"""Facts that are delivered to schedulers."""


@dataclass(slots=True)
class Execution:
    """An attempt that an executor runs. The executor of a zombie is presumed dead but still reports.

    An attempt with slots has a process once it has started; others have one from the beginning.
    """

    request: AttemptRequested
    delivery: Delivery
    executor: int
    mark: str
    started: bool = False


@dataclass(slots=True)
class SimulatedPlatform:
    """All runs and everything that acts on them. `machine` and `behavior` may be mutants."""

    machine: Machine = field(default_factory=Machine.of)
    behavior: SchedulerBehavior = field(default_factory=SchedulerBehavior)
    size: tuple[int, int] = (3, 2)
    broker: Broker = field(default_factory=Broker)
    pipelines: dict[str, Pipeline] = field(default_factory=dict[str, Pipeline])
    plans: dict[str, Plan] = field(default_factory=dict[str, Plan])
    replicas: list[Replica] = field(default_factory=list[Replica])
    executions: list[Execution] = field(default_factory=list[Execution])
    facts: Consumer = field(init=False)
    attempts: Consumer = field(init=False)
    shared: SharedState = field(init=False)
    environment: Environment = field(init=False)
    taken: int = 0
    checked: int = 0

    def __post_init__(self) -> None:
        self.facts = Consumer(lambda fact: isinstance(fact, SENT))
        self.attempts = Consumer(lambda fact: isinstance(fact, AttemptRequested))
        self.broker.consumers += [self.facts, self.attempts]
        self.environment = Environment(self.broker, self.pipelines, self.behavior.keep_earliest_timer)
        self.shared = SharedState(self.machine, self.behavior, self.broker, self.facts, self.plans, self.environment)
        self.replicas += [Replica(self.shared) for _ in range(self.size[0])]

    # ------------------------------------------------------------------------------------------------- clients

    def submit(self, pipeline: Pipeline, reused: int = 0) -> str:
        """Submit a run of a pipeline that reuses every `reused`-th result of another run."""
        run_id = f"run{len(self.pipelines)}"
        self.pipelines[run_id] = pipeline
        self.plans[run_id] = self.machine.plan(pipeline)
        facts: list[Fact] = []
        for number, node in enumerate(pipeline.nodes, 1):
            if reused and number % reused == 0:
                names = [port.name for port in pipeline.steps[node.step].outputs]
                outputs: dict[str, Value] = dict.fromkeys(names, Inline(f"{node.key} of another run"))
                if node.mapped is None:
                    facts += [StepReused(run_id=run_id, key=node.key, from_run="r0", outputs=outputs)]
                elif number % 2:
                    lists: dict[str, Value] = {
                        name: Collected(CollectedRef(key=node.key, count=2, output=name, run_id="r0")) for name in names
                    }
                    facts += [StepReused(run_id=run_id, key=node.key, from_run="r0", outputs=lists, count=2)]
                else:
                    facts += [
                        StepReused(run_id=run_id, key=f"{node.key}[{n}]", from_run="r0", outputs=outputs)
                        for n in (1, 2)
                    ]
        request = RunRequested(
            run_id=run_id,
            project="p",
            pipeline=pipeline.name,
            version=1,
            inputs={"p": Inline(run_id), "list": Inline([1, 2, 3])},
            requested_at=self.broker.at,
            reuses="r0" if facts else "",
            limited_pools=("default",) if zlib.crc32(run_id.encode()) % 4 == 0 else (),
            deadline=None if pipeline.deadline is None else self.broker.at + pipeline.deadline,
            deployment_limit=DeploymentLimit(deployment="d", most=1) if zlib.crc32(run_id.encode()) % 7 == 3 else None,
        )
        self.broker.append([*facts, request])
        return run_id

    def cancel(self, run: int) -> None:
        """Cancel a run."""
        if self.pipelines:
            self.broker.append([CancelRequested(run_id=f"run{run % len(self.pipelines)}", by="somebody")])

    def cancel_step(self, run: int, which: int, item: int) -> None:
        """Cancel one step, or one item of a mapped step, begun or not."""
        if self.pipelines:
            run_id = f"run{run % len(self.pipelines)}"
            nodes = self.pipelines[run_id].nodes
            node = nodes[which % len(nodes)]
            key = f"{node.key}[{item}]" if node.mapped is not None and item else node.key
            self.broker.append([StepCancelRequested(run_id=run_id, key=key, by="somebody")])

    def write_unreadable(self, which: int) -> None:
        """Write unreadable bytes on the subject of the next fact of a step."""
        facts: list[Fact] = []
        for run_id in self.pipelines:
            state = self.replay(run_id)
            facts += [fact for fact in self.machine.decide(state) if fact.tail != "finished"]
            facts += [
                AttemptFinished(run_id=run_id, key=step.key, attempt=step.attempt, outcome=Outcome.LOST)
                for owner in state.steps.values()
                for step in (owner, *(owner.mapped.items.values() if owner.mapped else ()))
                if step.status in ("queued_for_limit", "queued", "running", "suspended") and step.mapped is None
            ]
        if facts:
            self.broker.write_unreadable(facts[which % len(facts)])

    # ---------------------------------------------------------------------------------------------- schedulers

    def deliver(self, replica: int, count: int, redelivered_first: int = 1) -> None:
        """Deliver up to `count` + 1 messages to a scheduler."""
        for _ in range(count % 5 + 1):
            delivery = self.facts.take(redelivered_first=redelivered_first % 2 == 1)
            if delivery is None:
                return
            self.replicas[replica % len(self.replicas)].inbox.append(delivery)

    def schedule(self, replica: int, steps: int) -> None:
        """Advance a scheduler by some steps."""
        for _ in range(steps % 8 + 1):
            self.replicas[replica % len(self.replicas)].advance()

    def crash(self, replica: int) -> None:
        """Crash a scheduler; another one replaces it. Its messages in flight are redelivered eventually."""
        self.replicas[replica % len(self.replicas)] = Replica(self.shared)

    def cut(self, replica: int, how: int) -> None:
        """Fail the next append of a scheduler: it is not written, or it is and the answer is lost."""
        self.replicas[replica % len(self.replicas)].unreachable = "before" if how % 2 else "after"

    def expire(self, which: int) -> None:
        """Let the acknowledgement timeout of a fact expire: it will be redelivered."""
        if self.facts.ack_pending:
            self.facts.nack(list(self.facts.ack_pending)[which % len(self.facts.ack_pending)])

    # ----------------------------------------------------------------------------------------------- executors

    def take(self, executor: int, redelivered_first: int = 1) -> None:
        """Let an executor take an attempt. A redelivered attempt that had started is reported lost."""
        delivery = self.attempts.take(redelivered_first=redelivered_first % 2 == 1)
        if delivery is None or not isinstance(delivery.fact, AttemptRequested):
            return
        request, executor = delivery.fact, executor % self.size[1]
        if request.not_before is not None and request.not_before > self.broker.at:
            self.attempts.nack(delivery.seq)
            return
        attempt = (request.run_id, request.key, request.attempt)
        for execution in self.executions:
            if execution.executor == executor and execution.request == request:
                execution.delivery = delivery
                return
        if request.start_by is not None and request.start_by < self.broker.at:
            error = ErrorInfo(type="QueueTimeout", message="it is too late to start")
            run_id, key, number = attempt
            late = AttemptFinished(run_id=run_id, key=key, attempt=number, outcome=Outcome.TIMED_OUT, error=error)
            self.broker.append([late])
            self.attempts.ack(delivery.seq)
            return
        verdict = self._judge(request, executor) if delivery.delivered > 1 else Action.RUN
        if verdict is Action.WAIT:
            self.attempts.nack(delivery.seq)
            return
        if verdict in (Action.DONE, Action.STOPPED):
            if verdict is Action.STOPPED:
                self._record_stop(attempt)
            self.attempts.ack(delivery.seq)
            return
        if verdict is Action.LOST or invariants.unreadable(request):
            error = ErrorInfo(type="Lost", message="its executor is gone")
            run_id, key, number = attempt
            lost_end = AttemptFinished(
                run_id=run_id, key=key, attempt=number, outcome=Outcome.LOST, error=error, executor=f"e{executor}"
            )
            self.broker.append([lost_end])
            self.attempts.ack(delivery.seq)
            return
        self.taken += 1
        self.executions.append(Execution(request, delivery, executor, f"e{executor}.{self.taken}"))

    def start(self, which: int) -> None:
        """Start a taken attempt."""
        if self.executions:
            self._start(self.executions[which % len(self.executions)])

    def _start(self, execution: Execution) -> bool:
        """Own an attempt; return whether it goes on: it is another's, or it has ended."""
        if execution.started:
            return True
        run_id, key, number = attempt = _attempt(execution)
        fact = AttemptStarted(
            run_id=run_id, key=key, attempt=number, executor=execution.mark, started_at=self.broker.at
        )
        if not self.broker.append([fact])[0]:
            self.executions.remove(execution)
            self.attempts.nack(execution.delivery.seq)
            return False
        if execution.request.limited and self.broker.find(run_id, f"step.{key}.{number}.finished"):
            self.executions.remove(execution)
            self._record_stop(attempt)
            self.attempts.ack(execution.delivery.seq)
            return False
        execution.started = True
        return True

    def _judge(self, request: AttemptRequested, executor: int) -> Action:
        """Judge an attempt that is delivered again. The lease of a zombie ends: an attempt with slots is killed."""
        attempt = (request.run_id, request.key, request.attempt)
        if request.limited:
            self.executions = [one for one in self.executions if one.executor >= 0 or _attempt(one) != attempt]
        started, finished, stopped = (
            self.broker.find(request.run_id, f"step.{request.key}.{request.attempt}.{tail}")
            for tail in ("started", "finished", "stopped")
        )
        living = any(_attempt(one) == attempt and one.executor not in (-1, executor) for one in self.executions)
        return ownership.judge(
            limited=request.limited,
            started=started if isinstance(started, AttemptStarted) else None,
            finished=finished if isinstance(finished, AttemptFinished) else None,
            stopped=stopped is not None,
            statuses=[OwnerStatus.ACTIVE if living else OwnerStatus.GONE],
        )

    def _record_stop(self, attempt: tuple[str, str, int]) -> None:
        run_id, key, number = attempt
        self.broker.append([AttemptStopped(run_id=run_id, key=key, attempt=number)])

    def end(self, which: int, how: int, size: int = 0, acknowledged: int = 1) -> None:
        """End an attempt with any outcome. Its executor may crash between report and acknowledgement."""
        if not self.executions:
            return
        execution = self.executions[which % len(self.executions)]
        request = execution.request
        if request.limited and not self._start(execution):
            return
        self.executions.remove(execution)
        spec = self.plans[request.run_id].specs[invariants.node_of(self.plans[request.run_id].nodes, request.key)]
        attempt = (request.run_id, request.key, request.attempt)
        fact = generators.end(attempt, spec, generators.Ending(how, size), self.broker.at, execution.mark)
        if how % 11 == 10 and self.broker.find(request.run_id, "cancel"):
            fact = AttemptFinished(
                run_id=attempt[0],
                key=attempt[1],
                attempt=attempt[2],
                outcome=Outcome.CANCELLED,
                executor=execution.mark if request.limited else "",
            )
        if not self.broker.append([fact])[0] and request.limited:
            self._record_stop(attempt)
        if acknowledged % 4:
            self.attempts.ack(execution.delivery.seq)
        else:
            self.attempts.nack(execution.delivery.seq)

    def die(self, executor: int, zombie: int) -> None:
        """Crash an executor, or presume it dead, or only redeliver its messages in flight, which a crash also does."""
        executor %= self.size[1]
        for execution in [execution for execution in self.executions if execution.executor == executor]:
            self.attempts.nack(execution.delivery.seq)
            if zombie % 3 == 1:
                execution.executor = -1
            elif zombie % 3 == 0:
                self.executions.remove(execution)

    def stop_process(self, which: int) -> None:
        """Let an executor stop the process of an attempt whose end is written."""
        doomed = [one for one in self.executions if _attempt(one) in self.environment.killed]
        if doomed:
            execution = doomed[which % len(doomed)]
            self.executions.remove(execution)
            if execution.started and execution.request.limited:
                self._record_stop(_attempt(execution))
            self.attempts.ack(execution.delivery.seq)

    # --------------------------------------------------------------------------------------------- all others

    def grant(self, which: int) -> None:
        """Grant slots to a waiting attempt."""
        self.environment.grant(which)

    def admit(self, which: int) -> None:
        """Admit a run."""
        self.environment.admit(which)

    def fire_timer(self, which: int, again: int) -> None:
        """Fire a timer."""
        self.environment.fire_timer(which, again)

    def answer(self, which: int, how: int, size: int) -> None:
        """Answer a wait, possibly too late or a second time."""
        waits = self.environment.pending_waits()
        if waits:
            wait = waits[which % len(waits)]
            attempt = (wait.run_id, wait.key, wait.attempt)
            spec = self.plans[wait.run_id].specs[invariants.node_of(self.plans[wait.run_id].nodes, wait.key)]
            how = how if wait.kind == "run" else 0
            self.broker.append([generators.end(attempt, spec, generators.Ending(how, size), self.broker.at, "answer")])
            self.environment.forget(attempt)

    def wait(self, seconds: int) -> None:
        """Advance the clock."""
        self.broker.at += seconds % 60

    # -------------------------------------------------------------------------------------------------- checks

    def replay(self, run_id: str) -> RunState:
        """Return the state of a run as a new scheduler folds it."""
        facts = (record.fact for record in self.broker.read(run_id))
        return self.machine.fold(run_id, self.plans[run_id], facts)

    def check(self) -> None:
        """Check the invariants of runs whose log has grown, and that up-to-date schedulers agree with it."""
        grown = {record.fact.run_id for record in self.broker.records[self.checked :]}
        self.checked = len(self.broker.records)
        for run_id in sorted(grown):
            invariants.check(self.pipelines[run_id], [record.fact for record in self.broker.read(run_id)])
        self._check_slots()
        if self.facts.idle:
            for run_id in self.pipelines:
                late = any(node.phase != "main" for node in self.pipelines[run_id].nodes)
                if self.broker.find(run_id, "cancel") and not late and not self.broker.find(run_id, "finished"):
                    raise InvariantError(
                        f"{run_id}: the cancel is acknowledged, but the run goes on: {dump(self.replay(run_id))}"
                    )
            for replica in self.replicas:
                for run_id, cached in replica.cached.items():
                    if replica.current:
                        self._compare(run_id, cached.state)

    def _check_slots(self) -> None:
        """Check that no limit has more processes than slots."""
        taken: dict[str, list[int]] = {}
        for execution in self.executions:
            request = execution.request
            queued = self.broker.find(request.run_id, f"step.{request.key}.{request.attempt}.queued")
            if execution.started and request.limited and isinstance(queued, AttemptQueued):
                for limit in queued.limits:
                    taken.setdefault(limit.name, []).append(limit.most or 2)
        for name, sizes in taken.items():
            if len(sizes) > max(sizes):
                raise InvariantError(f"{len(sizes)} processes have a slot of {name}")

    def _compare(self, run_id: str, cached_state: RunState) -> None:
        replay = self.replay(run_id)
        if decided := self.machine.decide(replay):
            raise InvariantError(f"{run_id}: everything is acknowledged, but to do is {decided}")
        cancelled = replay.cancel is not None
        if difference := differences(agreed(cached_state, cancelled=cancelled), agreed(replay, cancelled=cancelled)):
            raise InvariantError(f"{run_id}: a scheduler remembers and the log says: {difference}")

    def settle(self) -> None:
        """Deliver everything without failures: every run must finish, and all replicas must agree on it."""
        for number in range(200 + 4 * len(self.broker.records)):
            for replica in self.replicas:
                replica.unreachable = ""
                while replica.busy:
                    replica.advance()
            self.check()
            for consumer in (self.facts, self.attempts):
                for seq in list(consumer.ack_pending):
                    if all(execution.delivery.seq != seq for execution in self.executions) or consumer is self.facts:
                        consumer.nack(seq)
            self.deliver(number, 4)
            for _ in range(len(self.attempts.again) + len(self.attempts.waiting)):
                self.broker.at += 10_000.0
                self.take(number)
            while self.executions:
                self.end(0, 0)
            for _ in range(4):
                self.grant(number + 1)
                self.grant(number)
            self.admit(number)
            for which in range(len(self.environment.pending_waits())):
                self.answer(which, 0, 0)
            self.broker.at += 1_000.0
            self.fire_timer(number, 0)
            if (
                self._quiet()
                and self.facts.idle
                and self.attempts.idle
                and not any(replica.busy for replica in self.replicas)
            ):
                break
        else:
            raise InvariantError("the world does not come to rest")
        self._check_quiescent()

    def _quiet(self) -> bool:
        """Whether no relevant external event can happen any more."""
        unfinished = [run_id for run_id in self.pipelines if not self.broker.find(run_id, "finished")]
        environment = self.environment
        busy = environment.waiting or environment.timers or environment.queue or environment.pending_waits()
        return self.facts.idle and (not busy or not unfinished)

    def _check_quiescent(self) -> None:
        self.check()
        if left := self.environment.leaked_resources():
            raise InvariantError(f"after all runs have finished, {left}")
        for run_id in self.pipelines:
            replay = self.replay(run_id)
            if replay.finished is None:
                raise InvariantError(f"{run_id} hangs: {dump(replay)}")
            self._compare(run_id, replay)
            for replica in self.replicas:
                if run_id in replica.ended:
                    self._compare(run_id, replica.ended[run_id])


def _attempt(execution: Execution) -> tuple[str, str, int]:
    request = execution.request
    return request.run_id, request.key, request.attempt
