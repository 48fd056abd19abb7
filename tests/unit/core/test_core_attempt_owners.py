"""Owners of attempts: what an executor does with an attempt that may be another's, and processes with slots of limits.

The simulated executors crash, are presumed dead, are sent the same attempt while another one has it, and stop slowly.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from penstock_core import ownership
from penstock_core.facts import AttemptFinished, AttemptStarted, Outcome
from penstock_core.ownership import Action, OwnerStatus
from penstock_core.pipeline.ir import Retry
from penstock_testkit.checks.invariants import InvariantError
from penstock_testkit.run_driver import node, with_options
from penstock_testkit.run_driver import pipeline as plain
from penstock_testkit.simulation.environment import Environment
from penstock_testkit.simulation.platform import Execution, SimulatedPlatform

STARTED = AttemptStarted(run_id="r", key="a", attempt=1, executor="e1", fence=7)
BY_OTHERS = AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.CANCELLED)
BY_ITS_EXECUTOR = AttemptFinished(run_id="r", key="a", attempt=1, outcome=Outcome.SUCCEEDED, executor="e1")
SEEDS = 100
NAMES = tuple("abcdefghijkl")
ACTIONS = {
    "work": (40, ()),
    "crash": (2, (3,)),
    "take": (30, (2, 2)),
    "start": (25, (20,)),
    "end": (6, (20, 11, 16, 4)),
    "die": (8, (2, 3)),
    "cancel_step": (5, (1, 12, 1)),
    "stop_process": (1, (4,)),
}


def judge(
    *,
    limited: bool = True,
    started: AttemptStarted | None = STARTED,
    finished: AttemptFinished | None = None,
    stopped: bool = False,
    statuses: tuple[OwnerStatus, ...] = (OwnerStatus.GONE,),
) -> Action:
    return ownership.judge(limited=limited, started=started, finished=finished, stopped=stopped, statuses=statuses)


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("standing", [OwnerStatus.ACTIVE, OwnerStatus.SILENT])
@pytest.mark.parametrize("started", [STARTED, None])
def test_nothing_is_decided_while_another_executor_may_have_the_attempt(
    limited: bool, standing: OwnerStatus, started: AttemptStarted | None
) -> None:
    assert judge(limited=limited, started=started, statuses=(OwnerStatus.GONE, standing)) is Action.WAIT


def test_an_attempt_whose_owner_is_gone_is_lost_and_one_without_an_owner_runs() -> None:
    assert judge() is Action.LOST
    assert judge(started=None) is Action.RUN
    assert judge(started=None, statuses=()) is Action.RUN


def test_a_finished_attempt_is_done_unless_its_slots_wait_for_its_process() -> None:
    assert judge(finished=BY_ITS_EXECUTOR, statuses=(OwnerStatus.ACTIVE,)) is Action.DONE
    assert judge(finished=BY_OTHERS, limited=False, statuses=(OwnerStatus.ACTIVE,)) is Action.DONE
    assert judge(finished=BY_OTHERS, stopped=True, statuses=(OwnerStatus.ACTIVE,)) is Action.DONE
    assert judge(finished=BY_OTHERS, started=None) is Action.DONE
    assert judge(finished=BY_OTHERS, statuses=(OwnerStatus.ACTIVE,)) is Action.WAIT
    assert judge(finished=BY_OTHERS, statuses=(OwnerStatus.SILENT,)) is Action.WAIT
    assert judge(finished=BY_OTHERS) is Action.STOPPED


def test_no_end_is_decided_while_a_process_may_exist() -> None:
    for limited, finished, stopped, started in itertools.product(
        (True, False), (None, BY_OTHERS, BY_ITS_EXECUTOR), (True, False), (STARTED, None)
    ):
        verdict = judge(
            limited=limited, finished=finished, stopped=stopped, started=started, statuses=(OwnerStatus.SILENT,)
        )
        assert verdict in (Action.WAIT, Action.DONE)


def simulate(seed: int) -> None:
    """Run six steps that share one slot, with faults of their executors."""
    source = random.Random(seed)
    made = plain(*map(node, NAMES), retry=Retry(retries=2))
    for name in NAMES:
        made = with_options(made, name, concurrency="solo", concurrency_max=1)
    simulated = SimulatedPlatform()
    simulated.submit(made)
    names = source.choices(list(ACTIONS), [weight for weight, _ in ACTIONS.values()], k=150)
    for action in names:
        if action == "work":
            work(simulated)
            continue
        getattr(simulated, action)(*(source.randrange(bound) for bound in ACTIONS[action][1]))
        simulated.check()
    simulated.settle()


def work(simulated: SimulatedPlatform) -> None:
    """Let a scheduler do what it can, and the limits grant what is free."""
    for which in range(2):
        simulated.grant(which)
    simulated.deliver(0, 4)
    simulated.schedule(0, 7)
    simulated.schedule(0, 7)


def test_one_slot_has_one_process_and_is_granted_again() -> None:
    for seed in range(SEEDS):
        simulate(seed)


def release_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Environment, "process_left", lambda *_: False)


def ask_nobody(patch: pytest.MonkeyPatch) -> None:
    original = ownership.judge
    patch.setattr(ownership, "judge", lambda **known: original(**{**known, "statuses": ()}))


def start_without_reading_the_log(patch: pytest.MonkeyPatch) -> None:
    def start(self: SimulatedPlatform, execution: Execution) -> bool:
        run_id, key, attempt = execution.request.run_id, execution.request.key, execution.request.attempt
        self.broker.append([AttemptStarted(run_id=run_id, key=key, attempt=attempt, executor=execution.mark)])
        execution.started = True
        return True

    patch.setattr(SimulatedPlatform, "_start", start)


@pytest.mark.parametrize("mistake", [release_at_once, ask_nobody, start_without_reading_the_log])
def test_the_simulation_notices_a_second_process(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    with pytest.raises(InvariantError, match="processes have a slot of p/solo"):
        for seed in range(SEEDS):
            simulate(seed)
