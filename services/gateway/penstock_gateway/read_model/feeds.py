"""The streams that the read model follows, and how their messages become rows."""

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
    """A stream that the read model follows.

    Attributes:
        stream: its name.
        filter: subject filter of its messages.
        batch: most messages of a transaction.
        apply: writes the messages after sequence `after` up to `upto`; returns the new sequence of the tables.
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

    # Imported with the read model, in the thread that writes: see `database`.
    from penstock_adapters.sql.fact_copy import CopiedFact

    copied = [CopiedFact(item.subject, item.seq, item.data) for item in items]
    return model.apply(subjects.RUNS, after, upto, read, copied)


def _series(model: ReadModelStore, after: int, upto: int, items: Sequence[StreamMessage]) -> int:
    def read(last: int) -> list[PointBatch]:
        return [_part(item) for item in items if item.seq > last]

    return model.measure(subjects.METRICS, after, upto, read)


def _part(item: StreamMessage) -> PointBatch:
    # Imported with the read model, in the thread that writes: see `database`.
    from penstock_adapters.sql.series import PointBatch

    try:
        points = Measurements.model_validate_json(item.data)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UnwritableFactError(
            f"invalid measurements: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error
    if item.subject != subjects.metrics(points.run_id, points.key, points.attempt):
        raise UnwritableFactError(
            f"the subject of the measurements must be {subjects.metrics(points.run_id, points.key, points.attempt)}"
        )
    return PointBatch(item.seq, points.run_id, points.key, points.attempt, points.first, points.points())


FACTS = Feed(subjects.RUNS, "runs.>", 2000, _facts)
SERIES = Feed(subjects.METRICS, "metrics.>", 100, _series)
