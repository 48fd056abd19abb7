"""Streams of archived runs: facts and output as server-sent events, like those of live runs."""

from __future__ import annotations

import contextlib

import orjson

from penstock_adapters.nats.archived_log import Archives
from penstock_contracts import fact_codec, subjects
from penstock_core.facts import RunArchived
from penstock_core.ports import Recorded
from penstock_gateway.http import sse

_BATCH = 256


async def facts(archives: Archives, archived: RunArchived, after: int) -> sse.Frames:
    """Yield the facts of an archived run after a sequence."""
    found = [record for record in await archives.facts(archived) if record.seq > after]
    yield [sse.OPENING]
    for start in range(0, len(found), _BATCH):
        yield [frame for record in found[start : start + _BATCH] for frame in _fact(record)]


def _fact(record: Recorded) -> list[bytes]:
    subject = subjects.parse(fact_codec.subject(record.fact))
    if subject is None:
        return []
    data = fact_codec.encode(record.fact)[:-1] + b',"seq":%d,"at":%s}' % (record.seq, orjson.dumps(record.at))
    return [sse.frame(record.seq, subject.kind, data)]


async def output(archives: Archives, archived: RunArchived, step: str | None, after: int) -> sse.Frames:
    """Yield output and progress of the steps of an archived run, or of one of them."""
    yield [sse.OPENING]
    prefix = f"logs.{archived.run_id}.{step}." if step else ""
    async with contextlib.aclosing(archives.output(archived)) as parts:
        async for part in parts:
            yield [
                sse.frame(line.seq, "progress" if subjects.is_progress(line.subject) else "output", line.data)
                for line in part
                if line.seq > after and line.subject.startswith(prefix)
            ]
