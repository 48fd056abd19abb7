"""What the read model is made of: the streams that are followed, and how their messages become rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pydantic

from penstock_adapters.nats.follower import StreamMessage
from penstock_adapters.sql.errors import UnwritableFactError
from penstock_contracts import fact_codec, subjects
from penstock_contracts.commands import Measurements
from penstock_core.ports import Recorded

if TYPE_CHECKING:
    from penstock_adapters.sql.read_model import ReadModelStore
    from penstock_adapters.sql.series import PointBatch


@dataclass(frozen=True, slots=True)
class Feed:
    """A stream of the read model.

    Attributes:
        stream: its name.
        filter: of its messages.
        batch: messages of a transaction.
        apply: writes messages that follow `after`, of which the last is at `upto`; returns how far the tables are.
    """

    stream: str
    filter: str
    batch: int
    apply: Callable[[ReadModelStore, int, int, Sequence[StreamMessage]], int]


def _facts(model: ReadModelStore, after: int, upto: int, items: Sequence[StreamMessage]) -> int:
    def read(last: int) -> list[Recorded]:
        return [
            Recorded(item.seq, item.at, fact)
            for item in items
            if item.seq > last and (fact := fact_codec.read(item.subject, item.data)) is not None
        ]

    return model.apply(subjects.RUNS, after, upto, read)


def _measured(model: ReadModelStore, after: int, upto: int, items: Sequence[StreamMessage]) -> int:
    def read(last: int) -> list[PointBatch]:
        return [_part(item) for item in items if item.seq > last]

    return model.measure(subjects.METRICS, after, upto, read)


def _part(item: StreamMessage) -> PointBatch:
    # With the model, in the thread that writes: see `readmodel`.
    from penstock_adapters.sql.series import PointBatch

    try:
        told = Measurements.model_validate_json(item.data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UnwritableFactError(f"no measurements: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if item.subject != subjects.metrics(told.run_id, told.key, told.attempt):
        raise UnwritableFactError(f"the measurements belong at {subjects.metrics(told.run_id, told.key, told.attempt)}")
    return PointBatch(item.seq, told.run_id, told.key, told.attempt, told.first, told.points())


FACTS = Feed(subjects.RUNS, "runs.>", 2000, _facts)
SERIES = Feed(subjects.METRICS, "metrics.>", 100, _measured)
