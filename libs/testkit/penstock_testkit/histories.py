"""The history of a run as a fixture: replay what `penstock runs export` wrote, without a platform.

    from penstock_testkit import histories

    def test_the_run_of_last_tuesday() -> None:
        history = histories.load("run.jsonl")
        assert history.states() == {"load": "succeeded", "fit": "failed", "report": "skipped"}
        history.check()

Standard library, core and contracts only: no server, no clock, nothing of the user's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, cast

from penstock_contracts import run_history
from penstock_contracts.run_history import HistoryHeader, InvalidHistoryError
from penstock_core.facts import Fact
from penstock_core.pipeline.ir import Pipeline
from penstock_core.ports import Recorded
from penstock_core.run import machine
from penstock_core.run.machine import Plan, RunState
from penstock_testkit.checks import invariants
from penstock_testkit.checks.fact_origins import FactOrigins


@dataclass(frozen=True)
class History:
    """A run as it was recorded: its pipeline, and the facts of its log with their places and times."""

    header: HistoryHeader
    recorded: tuple[Recorded, ...]

    @property
    def run_id(self) -> str:
        """The run."""
        return self.header.run_id

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that ran."""
        return self.header.pipeline

    @cached_property
    def plan(self) -> Plan:
        """The pipeline, ready to be folded."""
        return Plan(self.pipeline)

    @property
    def facts(self) -> list[Fact]:
        """The facts, in log order."""
        return [record.fact for record in self.recorded]

    def fold(self, length: int | None = None) -> RunState:
        """The state of the run after all facts, or after the first `length`."""
        return machine.fold(self.run_id, self.plan, self.facts[:length])

    def states(self, length: int | None = None) -> dict[str, str]:
        """The status of each step, by its key, after all facts or after the first `length`."""
        return {key: step.status.value for key, step in self.fold(length).steps.items()}

    def prefixes(self) -> Iterator[RunState]:
        """The state before the first fact and after each. It is one object that goes on: look at it, do not keep it."""
        state = RunState(self.run_id, self.plan)
        yield state
        for fact in self.facts:
            state = machine.evolve(state, fact)
            yield state

    def unaccounted_facts(self) -> list[Fact]:
        """The facts in the log that would not have come about today, at any moment of the run.

        These are decisions that today's `decide` would not have made, slots and places that nobody would have asked
        for, ticks of the clock for which nothing would have been due, and ends of waits that would not have begun.
        Empty when this version of Penstock would have led the run just as the one that recorded it.
        """
        reasons = FactOrigins(self.facts)
        for state in self.prefixes():
            reasons.add_state(state)
        return reasons.missing()

    def check(self) -> None:
        """Check the invariants of the log, and that the run was led as today's version would lead it.

        Raises:
            Violation: an invariant does not hold, or a decision in the log is not what would be decided now.
        """
        invariants.check(self.pipeline, self.facts)
        if other := self.unaccounted_facts():
            raise invariants.InvariantError(f"{other[0].tail} would not be decided like this now: {other[0]}")


def without_later_defaults(data: Any) -> Any:
    """JSON of values without the fields that references got later, where these say nothing: to compare old with new."""
    if isinstance(data, list):
        return [without_later_defaults(entry) for entry in cast("list[Any]", data)]
    if not isinstance(data, dict):
        return data
    fields = cast("dict[str, Any]", data)
    later: dict[str, Any] = {}
    if "sha256" in fields:
        later = {"items": None, "total": 0, "project_types": False}
    elif {"key", "attempt", "output"} <= set(fields):
        later = {"run_id": ""}
    return {
        key: without_later_defaults(value) for key, value in fields.items() if key not in later or value != later[key]
    }


def load(path: str | PathLike[str]) -> History:
    """Read a history from a file.

    Raises:
        InvalidHistory: a line cannot be read; with the file and the line.
    """
    with Path(path).open("rb") as file:
        lines = enumerate(file, 1)
        number, line = next(lines, (1, b""))
        try:
            header = run_history.read_header(line)
            recorded: list[Recorded] = []
            for number, line in lines:  # noqa: B007, the error names it
                recorded.append(run_history.read_fact(line))
        except InvalidHistoryError as error:
            raise InvalidHistoryError(f"{path}:{number}: {error}") from error
    return History(header, tuple(recorded))
