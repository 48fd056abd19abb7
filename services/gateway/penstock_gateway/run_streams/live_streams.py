"""Runs as they happen: facts and output as batches of server-sent events; and the history of a run as it stands."""

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
from penstock_core.ports import UnavailableError
from penstock_gateway.http import sse

QUIET = 0.3
"""Seconds without output after the end of a run after which its logs count as delivered."""


async def facts(followers: Followers, run_id: str, after: int) -> sse.Frames:
    """The facts of a run above `after`, until the run is finished."""
    async with followers.follow(subjects.RUNS, [subjects.run_all(run_id)], after) as follower:
        over = False
        yield [sse.OPENING]
        while not over:
            batch: list[bytes] = []
            items = await follower.take(sse.HEARTBEAT)
            for item in items:
                place = subjects.parse(item.subject)
                over = over or (place is not None and place.kind == "run.finished")
                batch += _fact(item)
            if batch or not items:
                yield batch


def _fact(item: StreamMessage) -> list[bytes]:
    """One frame, or none for a message that is no fact. What is unreadable is shown as what it counts for."""
    place = subjects.parse(item.subject)
    fact = fact_codec.decode(item.subject, item.data)
    if isinstance(fact, UnreadableFact):
        fact = fact_codec.placeholder_fact(fact)
    if place is None or fact is None:
        return []
    data = fact_codec.encode(fact)[:-1] + b',"seq":%d,"at":%s}' % (item.seq, orjson.dumps(item.at))
    return [sse.frame(item.seq, place.kind, data)]


async def history(followers: Followers, header: HistoryHeader, patience: float) -> AsyncGenerator[bytes]:
    """The facts that a run has now, as JSON lines; one batch of messages is in memory at a time.

    Raises:
        Unavailable: the server gave nothing for `patience` seconds.
    """
    async with followers.follow(subjects.RUNS, [subjects.run_all(header.run_id)]) as follower:
        yield run_history.header_line(header)
        heard = time.monotonic()
        while follower.pending:
            items = await follower.take(1.0)
            if items:
                heard = time.monotonic()
                if any(item.subject.endswith(".archived") for item in items):
                    raise UnavailableError("the run moves to the archive right now: try again")
                yield b"".join(run_history.fact_line(item.seq, item.at, item.subject, item.data) for item in items)
            elif time.monotonic() - heard > patience:
                raise UnavailableError("the log of the run could not be read to its end")


async def output(followers: Followers, run_id: str, step: str | None, after: int, *, follow: bool) -> sse.Frames:
    """What the attempts of a run, or of one step, wrote: all of it so far, and with `follow` until the run's end."""
    subject = f"logs.{run_id}.{step}.*" if step else subjects.logs_all(run_id)
    async with contextlib.AsyncExitStack() as stack:
        follower = await stack.enter_async_context(followers.follow(subjects.LOGS, [subject], after))
        over = asyncio.Event()
        if follow:
            end = await stack.enter_async_context(followers.follow(subjects.RUNS, [subjects.run(run_id, "finished")]))
            watcher = asyncio.create_task(_watch_end(end, over, follower))
            stack.callback(watcher.cancel)
        else:
            over.set()
        yield [sse.OPENING]
        while True:
            ending = over.is_set()
            quiet = QUIET if follow else 0.0
            items = await follower.take(quiet if ending and not follower.pending else sse.HEARTBEAT)
            if items:
                yield [frame for item in items for frame in _output(item)]
            elif ending:
                return
            elif not over.is_set():
                yield []


async def _watch_end(end: Follower, over: asyncio.Event, follower: Follower) -> None:
    while not await end.take(60.0):
        pass
    over.set()
    follower.nudge()


def _output(item: StreamMessage) -> list[bytes]:
    try:
        data = orjson.dumps(orjson.loads(item.data))
    except orjson.JSONDecodeError:
        return []
    return [sse.frame(item.seq, "output", data)]
