"""The history of a run as a fixture: replay the output of `penstock runs export` without a platform.

    from penstock_testkit import histories

    def test_the_run_of_last_tuesday() -> None:
        history = histories.load("run.jsonl")
        assert history.states() == {"load": "succeeded", "fit": "failed", "report": "skipped"}
        history.check()

It needs only the standard library, core and contracts: no server, no clock, no user code.
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
    """A recorded run: its pipeline, and the facts of its log with their subjects and times."""

    header: HistoryHeader
    recorded: tuple[Recorded, ...]

    @property
    def run_id(self) -> str:
        """The id of the run."""
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
        """Return the state of the run after all facts, or after the first `length`."""
        return machine.fold(self.run_id, self.plan, self.facts[:length])

    def states(self, length: int | None = None) -> dict[str, str]:
        """Return the status of each step by key, after all facts or after the first `length`."""
        return {key: step.status.value for key, step in self.fold(length).steps.items()}

    def prefixes(self) -> Iterator[RunState]:
        """Yield the state before the first fact and after each. It is one object that is updated in place."""
        state = RunState(self.run_id, self.plan)
        yield state
        for fact in self.facts:
            state = machine.evolve(state, fact)
            yield state

    def unaccounted_facts(self) -> list[Fact]:
        """Return the facts in the log that today's version would not produce at any moment of the run.

        These are decisions that today's `decide` would not make, slots and admissions that would not be requested,
        ticks of the clock without a timer, and ends of waits that would not begin. The result is empty if this
        version of Penstock would drive the run like the version that recorded it.
        """
        reasons = FactOrigins(self.facts)
        for state in self.prefixes():
            reasons.add_state(state)
        return reasons.missing()

    def check(self) -> None:
        """Check the invariants of the log, and that today's version would drive the run in the same way.

        Raises:
            Violation: an invariant is violated, or a decision in the log differs from today's.
        """
        invariants.check(self.pipeline, self.facts)
        if other := self.unaccounted_facts():
            raise invariants.InvariantError(f"{other[0].tail} would not be decided like this now: {other[0]}")


def without_later_defaults(data: Any) -> Any:
    """Remove default values of fields that references gained later from JSON, to compare old with new recordings."""
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
        InvalidHistory: a line is invalid; the message names file and line.
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
