"""Inputs and outputs of listed runs, read from the log: the read model has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.results import Results
from penstock_contracts import subjects
from penstock_core.facts import RunFinished, RunRequested
from penstock_core.pipeline import values
from penstock_core.pipeline.tagged import NoSuchPartError
from penstock_core.pipeline.values import Value
from penstock_gateway.http.responses import to_json

SIZE_LIMIT = 8 * 1024 * 1024
"""Most bytes of inputs and outputs in a page, as JSON; a page has at least one run."""

LONG_LIST = 10_000
"""Lists with more items are left as references."""

_BATCH = 50


class RunValueReader:
    """Reads the inputs and outputs of runs."""

    def __init__(self, log: ArchivedLog) -> None:
        self._log = log

    async def read(self, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return `inputs`, `input_models` and `outputs` of as many of the first of these runs as fit into a page.

        Runs that were deleted in the meantime have none.

        Raises:
            UnavailableError: the log does not answer.
        """
        found: list[dict[str, Any]] = []
        size = 0
        for start in range(0, len(run_ids), _BATCH):
            batch = run_ids[start : start + _BATCH]
            facts = await self._log.last(
                [subjects.run(one, tail) for one in batch for tail in ("requested", "finished")]
            )
            for run_id in batch:
                requested, finished = (
                    facts[name].fact if (name := subjects.run(run_id, tail)) in facts else None
                    for tail in ("requested", "finished")
                )
                fields = await self._fields(requested, finished)
                size += sum(len(part) for part in fields.values())
                if found and size > SIZE_LIMIT:
                    return found
                found.append({name: orjson.Fragment(part) for name, part in fields.items()})
        return found

    async def _fields(self, requested: object, finished: object) -> dict[str, bytes]:
        request = requested if isinstance(requested, RunRequested) else None
        outputs: dict[str, Value] = {}
        if isinstance(finished, RunFinished):
            results = Results(finished.run_id, self._log.last)
            outputs = {name: await _short(results, value) for name, value in finished.outputs.items()}
        return {
            "inputs": to_json(request.inputs if request else {}),
            "input_models": to_json(request.models if request else {}),
            "outputs": to_json(outputs),
        }


async def _short(results: Results, value: Value) -> Value:
    """Resolve a value unless it is a long list, or no longer complete."""
    if isinstance(value, values.Collected) and value.collected.count > LONG_LIST:
        return value
    try:
        return await results.value(value)
    except NoSuchPartError:
        return value
