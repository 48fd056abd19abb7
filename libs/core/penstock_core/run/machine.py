"""The public interface of the run state machine; see `penstock_core.run` for how it works."""

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
