"""Streams of live runs: facts and output as batches of server-sent events, the history as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import orjson

from penstock_adapters.nats.follower import Follower, Followers, StreamMessage
from penstock_contracts import fact_codec, run_history, subjects
from penstock_contracts.fact_codec import UnreadableFact
from penstock_contracts.run_history import HistoryHeader
from penstock_core.errors import UnavailableError
from penstock_gateway.http import sse

QUIET = 0.3
"""Seconds without output after the end of a run until its logs count as complete."""


async def facts(followers: Followers, run_id: str, after: int) -> sse.Frames:
    """Yield the facts of a run after a sequence, until the run has finished."""
    async with followers.follow(subjects.RUNS, [subjects.run_all(run_id)], after) as follower:
        finished = False
        yield [sse.OPENING]
        while not finished:
            batch: list[bytes] = []
            items = await follower.take(sse.HEARTBEAT)
            for item in items:
                subject = subjects.parse(item.subject)
                finished = finished or (subject is not None and subject.kind == "run.finished")
                batch += _fact(item)
            if batch or not items:
                yield batch


def _fact(item: StreamMessage) -> list[bytes]:
    """Return one frame, or none for a message that is not a fact. An unreadable fact is shown as its placeholder."""
    subject = subjects.parse(item.subject)
    fact = fact_codec.decode(item.subject, item.data)
    if isinstance(fact, UnreadableFact):
        fact = fact_codec.placeholder_fact(fact)
    if subject is None or fact is None:
        return []
    data = fact_codec.encode(fact)[:-1] + b',"seq":%d,"at":%s}' % (item.seq, orjson.dumps(item.at))
    return [sse.frame(item.seq, subject.kind, data)]


async def history(followers: Followers, header: HistoryHeader, patience: float) -> AsyncGenerator[bytes]:
    """Yield the present facts of a run as JSON lines; one batch of messages is in memory at a time.

    Raises:
        UnavailableError: the server delivered nothing for `patience` seconds.
    """
    async with followers.follow(subjects.RUNS, [subjects.run_all(header.run_id)]) as follower:
        yield run_history.header_line(header)
        last_delivery = time.monotonic()
        while follower.pending:
            items = await follower.take(1.0)
            if items:
                last_delivery = time.monotonic()
                if any(item.subject.endswith(".archived") for item in items):
                    raise UnavailableError("the run is being archived")
                yield b"".join(run_history.fact_line(item.seq, item.at, item.subject, item.data) for item in items)
            elif time.monotonic() - last_delivery > patience:
                raise UnavailableError("the log of the run could not be read to its end")


async def output(followers: Followers, run_id: str, step: str | None, after: int, *, follow: bool) -> sse.Frames:
    """Yield output and progress of the attempts of a run, or of one step; with `follow`, until the end of the run."""
    filters = subjects.logs_of_step(run_id, step) if step else [subjects.logs_all(run_id)]
    async with contextlib.AsyncExitStack() as stack:
        follower = await stack.enter_async_context(followers.follow(subjects.LOGS, filters, after))
        finished = asyncio.Event()
        if follow:
            end = await stack.enter_async_context(followers.follow(subjects.RUNS, [subjects.run(run_id, "finished")]))
            watcher = asyncio.create_task(_watch_end(end, finished, follower))
            stack.callback(watcher.cancel)
        else:
            finished.set()
        yield [sse.OPENING]
        while True:
            ending = finished.is_set()
            quiet = QUIET if follow else 0.0
            items = await follower.take(quiet if ending and not follower.pending else sse.HEARTBEAT)
            if items:
                yield [frame for item in items for frame in _output(item)]
            elif ending:
                return
            elif not finished.is_set():
                yield []


async def _watch_end(end: Follower, finished: asyncio.Event, follower: Follower) -> None:
    while not await end.take(60.0):
        pass
    finished.set()
    follower.nudge()


def _output(item: StreamMessage) -> list[bytes]:
    try:
        data = orjson.dumps(orjson.loads(item.data))
    except orjson.JSONDecodeError:
        return []
    return [sse.frame(item.seq, "progress" if subjects.is_progress(item.subject) else "output", data)]
