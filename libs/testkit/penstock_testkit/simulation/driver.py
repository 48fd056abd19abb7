"""Random histories of a `SimulatedPlatform` by seed: the actions, their weights, and one history."""

from __future__ import annotations

import random

from penstock_testkit import generators
from penstock_testkit.checks.state_machine import Machine
from penstock_testkit.simulation.platform import SimulatedPlatform
from penstock_testkit.simulation.replica import SchedulerBehavior

__all__ = ["ACTIONS", "simulate"]

ACTIONS: dict[str, tuple[int, tuple[int, ...]]] = {
    "deliver": (30, (3, 5, 2)),
    "schedule": (40, (3, 8)),
    "crash": (3, (3,)),
    "cut": (2, (3, 2)),
    "expire": (4, (20,)),
    "take": (25, (2, 2)),
    "start": (10, (20,)),
    "end": (25, (20, 11, 16, 4)),
    "die": (3, (2, 2)),
    "cancel": (2, (3,)),
    "cancel_step": (1, (3, 8, 4)),
    "grant": (12, (6,)),
    "admit": (6, (6,)),
    "fire_timer": (8, (3, 2)),
    "answer": (5, (6, 11, 16)),
    "stop_process": (2, (4,)),
    "write_unreadable": (1, (20,)),
    "wait": (2, (60,)),
}
"""The actions, with their weights and the ranges of their arguments."""


def simulate(
    seed: int, *, machine: Machine | None = None, behavior: SchedulerBehavior | None = None, steps: int = 120
) -> SimulatedPlatform:
    """Run a simulation for random steps, then settle it; a seed always gives the same history.

    Raises:
        Violation: an invariant is violated.
    """
    source = random.Random(seed)
    simulated = SimulatedPlatform(machine or Machine.of(), behavior or SchedulerBehavior())
    for _ in range(1 + source.randrange(2)):
        made = generators.pipeline(source.randrange, nodes=8, plain=source.randrange(4) == 0)
        simulated.submit(made, reused=(0, 0, 0, 2, 3)[source.randrange(5)])
    names = source.choices(list(ACTIONS), [weight for weight, _ in ACTIONS.values()], k=steps)
    for name in names:
        getattr(simulated, name)(*(source.randrange(bound) for bound in ACTIONS[name][1]))
        simulated.check()
    simulated.settle()
    return simulated
