"""The run state machine.

In: a compiled pipeline (as a `Plan`) and the facts of a run's log, in log order. Out: the facts to append next.

- `evolve(state, fact) -> state` folds one fact; `fold` all of a log. See `penstock_core.run.evolve`.
- `decide(state) -> facts` says what must be appended. See `penstock_core.run.decide`.
- The table of the states of a step, and all that a state holds, is `penstock_core.run.state`.

Promise: whoever folds the same log decides the same facts, and every order of deliveries leads to the same end.
"""

from penstock_core.run.decide import decide
from penstock_core.run.evolve import evolve, fold
from penstock_core.run.plan import Plan
from penstock_core.run.state import (
    IN_FLIGHT,
    SUCCESSFUL_STATUSES,
    TERMINAL_STATUSES,
    TRANSITIONS,
    MappedState,
    RunState,
    Status,
    StepState,
)

__all__ = [
    "IN_FLIGHT",
    "SUCCESSFUL_STATUSES",
    "TERMINAL_STATUSES",
    "TRANSITIONS",
    "MappedState",
    "Plan",
    "RunState",
    "Status",
    "StepState",
    "decide",
    "evolve",
    "fold",
]
