"""Resolves references to results of earlier steps, and to lists of results of items, from the log.

References to artifacts stay references: the user's process loads them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from penstock_contracts import subjects
from penstock_core.errors import PenstockError
from penstock_core.facts import SUCCESSFUL, AttemptFinished, AttemptRequested, StepReused
from penstock_core.pipeline import tagged, values
from penstock_core.pipeline.values import CollectedRef, ResultRef, Value
from penstock_core.ports import Recorded
from penstock_core.run import value_resolution

Facts = Callable[[list[str]], Awaitable[dict[str, Recorded]]]
"""Reads facts by subject."""

_ATTEMPTS = 1_000
"""Largest number of attempts of an item that are read."""


async def resolve_inputs(request: AttemptRequested, facts: Facts) -> AttemptRequested:
    """Return the request with all references resolved.

    Raises:
        PenstockError: a result is no longer in the log, or lacks a part.
        UnavailableError: the log does not answer.
    """
    if not any(is_reference(value) for value in request.inputs.values()):
        return request
    reader = Results(request.run_id, facts)
    try:
        return replace(request, inputs={name: await reader.value(value) for name, value in request.inputs.items()})
    except tagged.NoSuchPartError as error:
        raise PenstockError(f"an input is missing: {error}") from error


def is_reference(value: Value) -> bool:
    """Whether a value, or a part of it, is to be read from the log."""
    match value:
        case values.ResultOf() | values.Collected():
            return True
        case _:
            return any(map(is_reference, values.components(value)))


class Results:
    """Resolves references of one request; repeated ones are read once."""

    def __init__(self, run_id: str, facts: Facts) -> None:
        self._run_id = run_id
        self._facts = facts
        self._results: dict[ResultRef, Value] = {}
        self._lists: dict[CollectedRef, Value] = {}

    async def value(self, value: Value) -> Value:
        """Resolve all references in a value."""
        match value:
            case values.ResultOf(ref):
                return await self._result(ref)
            case values.Collected(ref):
                if ref not in self._lists:
                    found = await self._items(ref, range(ref.count))
                    self._lists[ref] = values.Items(tuple(found[index] for index in range(ref.count)))
                return self._lists[ref]
            case values.Element(values.Collected(ref), (int() as index, *rest)):
                if not -ref.count <= index < ref.count:
                    raise tagged.NoSuchPartError(f"a list of {ref.count} has no element [{index}]")
                found = await self._items(ref, [index % ref.count])
                return value_resolution.pick(found[index % ref.count], tuple(rest))
            case values.Element(of, path):
                return value_resolution.pick(await self.value(of), path)
            case values.Items(items):
                return values.Items(tuple([await self.value(item) for item in items]))
            case values.Lists(lists):
                return value_resolution.joined([await self.value(one) for one in lists])
            case values.Fields(fields):
                return values.Fields({key: await self.value(item) for key, item in fields.items()})
            case _:
                return value

    async def _result(self, ref: ResultRef) -> Value:
        if ref not in self._results:
            place = subjects.finished(ref.run_id or self._run_id, ref.key, ref.attempt)
            recorded = (await self._facts([place])).get(place)
            if recorded is None or not isinstance(recorded.fact, AttemptFinished):
                raise PenstockError(f"the result {ref.output!r} of step {ref.key!r} is no longer in the log")
            found = recorded.fact.outputs.get(ref.output, values.Inline(None))
            self._results[ref] = await self.value(values.with_run_id(found, ref.run_id) if ref.run_id else found)
        return self._results[ref]

    async def _items(self, ref: CollectedRef, wanted: Iterable[int]) -> dict[int, Value]:
        """Results of items. At most one attempt of an item succeeded, and that one counts."""
        run_id = ref.run_id or self._run_id
        found: dict[int, Value] = dict.fromkeys(wanted, values.Inline(None))
        open_ones, attempt = list(found), 1
        while open_ones and attempt <= _ATTEMPTS:
            known = await self._ends(run_id, ref, open_ones, attempt)
            if attempt == 1:
                known |= await self._ends(run_id, ref, [index for index in open_ones if index not in known], 0)
            for index, fact in known.items():
                if isinstance(fact, StepReused) or fact.outcome in SUCCESSFUL:
                    result = fact.outputs.get(ref.output, values.Inline(None))
                    found[index] = await self.value(values.with_run_id(result, ref.run_id) if ref.run_id else result)
            open_ones = [
                index
                for index, fact in known.items()
                if isinstance(fact, AttemptFinished) and fact.outcome not in SUCCESSFUL
            ]
            attempt += 1
        return found

    async def _ends(
        self, run_id: str, ref: CollectedRef, indexes: list[int], attempt: int
    ) -> dict[int, AttemptFinished | StepReused]:
        """The ends of one attempt of items; attempt 0 means reused results."""
        places = {index: _place(run_id, f"{ref.key}[{index}]", attempt) for index in indexes}
        known = await self._facts(list(places.values())) if places else {}
        ends = {index: known[place].fact for index, place in places.items() if place in known}
        return {index: fact for index, fact in ends.items() if isinstance(fact, AttemptFinished | StepReused)}


def _place(run_id: str, key: str, attempt: int) -> str:
    """Subject of the result of an attempt; attempt 0 means a reused result."""
    return subjects.finished(run_id, key, attempt) if attempt else subjects.run(run_id, f"step.{key}.reused")
