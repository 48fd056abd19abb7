"""Random histories of a `World`, by a seed: what may happen, how often, and one history."""

from __future__ import annotations

import random

from penstock_testkit import generate
from penstock_testkit.replica import Habits
from penstock_testkit.states import Machine
from penstock_testkit.world import World

__all__ = ["ACTIONS", "World", "simulate"]

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
    "ring": (8, (3, 2)),
    "answer": (5, (6, 11, 16)),
    "obey": (2, (4,)),
    "spoil": (1, (20,)),
    "wait": (2, (60,)),
}
"""What may happen, with its weight and the ranges of its arguments."""


def simulate(seed: int, *, machine: Machine | None = None, habits: Habits | None = None, steps: int = 120) -> World:
    """Let a world run for some random steps, then settle it; the same seed is always the same history.

    Raises:
        Violation: an invariant does not hold.
    """
    source = random.Random(seed)
    world = World(machine or Machine.of(), habits or Habits())
    for _ in range(1 + source.randrange(2)):
        made = generate.pipeline(source.randrange, nodes=8, plain=source.randrange(4) == 0)
        world.submit(made, reused=(0, 0, 0, 2, 3)[source.randrange(5)])
    names = source.choices(list(ACTIONS), [weight for weight, _ in ACTIONS.values()], k=steps)
    for name in names:
        getattr(world, name)(*(source.randrange(bound) for bound in ACTIONS[name][1]))
        world.check()
    world.settle()
    return world
