"""Snapshots of streams, taken while they are in use, and streams made from snapshots.

A snapshot has the messages of a stream with their sequences. Durable consumers are described beside it, as they were
before it was taken: a consumer that is created again delivers everything that was not acknowledged by then once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import nats.errors
import orjson

from penstock_adapters import threads
from penstock_adapters.nats.bus import Bus, BusError, check
from penstock_contracts import subjects
from penstock_core.errors import UnavailableError

_CHUNK = 256 * 1024
_SILENCE = 60.0
_WORKERS = ("scheduler-", "executor-")
"""Consumers that have to handle all facts of unfinished runs again."""


async def save(bus: Bus, stream: str, path: Path) -> dict[str, Any]:
    """Write a snapshot of a stream to a file.

    Returns:
        `config` and `state` of the stream, and its durable `consumers` with `config` and `ack_floor`.

    Raises:
        UnavailableError: the server does not answer.
        BusError: it refuses, or cannot read the stream.
    """
    consumers = await _consumers(bus, stream)
    inbox = bus.client.new_inbox()
    subscription = await bus.client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
    try:
        request = {"deliver_subject": inbox, "no_consumers": True, "chunk_size": _CHUNK}
        info = await bus.api(f"STREAM.SNAPSHOT.{stream}", request, timeout=30.0)
        with await asyncio.to_thread(path.open, "wb") as file:
            while True:
                async with asyncio.timeout(_SILENCE):
                    message = await subscription.next_msg(timeout=None)
                if not message.data:
                    status = (message.headers or {}).get("Status", "204")
                    if not status.startswith("2"):
                        description = (message.headers or {}).get("Description", "")
                        raise BusError(f"stream {stream} cannot be saved: {status} {description}")
                    return {"config": info["config"], "state": info["state"], "consumers": consumers}
                await threads.run(None, file.write, message.data)
                if message.reply:
                    await message.respond(b"")
    except (nats.errors.Error, TimeoutError, OSError) as error:
        raise UnavailableError(f"stream {stream} cannot be saved: {error or type(error).__name__}") from error
    finally:
        await subscription.unsubscribe()


async def restore(bus: Bus, saved: dict[str, Any], path: Path, replicas: int) -> None:
    """Create a stream from a snapshot, without consumers. There must be no stream of its name.

    Raises:
        UnavailableError: the server does not answer.
        BusError: it refuses.
    """
    config = saved["config"] | {"num_replicas": replicas}
    answer = await bus.api(
        f"STREAM.RESTORE.{config['name']}", {"config": config, "state": saved["state"]}, timeout=30.0
    )
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await threads.run(None, _read, file):
            await _send(bus, answer["deliver_subject"], chunk)
    await _send(bus, answer["deliver_subject"], b"")


async def restore_consumers(bus: Bus, stream: str, consumers: Sequence[dict[str, Any]], replicas: int) -> None:
    """Create the durable consumers of a restored stream.

    Those of schedulers and executors deliver all facts of unfinished runs again, so that these continue: timers, slots
    and messages in flight are not part of a snapshot.

    Raises:
        UnavailableError, BusError: as `restore` does.
    """
    resume = await _first_unfinished(bus) if stream == subjects.RUNS else None
    for consumer in consumers:
        start = int(consumer["ack_floor"]) + 1
        if resume is not None and consumer["config"]["durable_name"].startswith(_WORKERS):
            start = min(start, resume)
        config = consumer["config"] | {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
        if config.get("num_replicas"):
            config["num_replicas"] = replicas
        name = config["durable_name"]
        body = {"stream_name": stream, "config": config, "action": "create"}
        await bus.api(f"CONSUMER.CREATE.{stream}.{name}", body)


async def subjects_of(bus: Bus, stream: str, pattern: str) -> set[str]:
    """Return the subjects of a stream that match a filter. Raises UnavailableError."""
    found: set[str] = set()
    while True:
        query = {"subjects_filter": pattern, "offset": len(found)}
        answer = await bus.api(f"STREAM.INFO.{stream}", query, timeout=30.0)
        page = (answer["state"].get("subjects") or {}).keys() - found
        found |= page
        if not page or len(found) >= int(answer.get("total", 0)):
            return found


async def _first_unfinished(bus: Bus) -> int | None:
    """The sequence of the first fact of a run that has not finished; None if all have."""
    requested = await subjects_of(bus, subjects.RUNS, subjects.requested_runs())
    finished = await subjects_of(bus, subjects.RUNS, subjects.RUNS_FINISHED)
    runs = {one.removesuffix("requested") for one in requested} - {one.removesuffix("finished") for one in finished}
    first: int | None = None
    for run in runs:
        query = {"seq": 1, "next_by_subj": f"{run}>"}
        found = int((await bus.api(f"STREAM.MSG.GET.{subjects.RUNS}", query))["message"]["seq"])
        first = found if first is None else min(first, found)
    return first


async def _consumers(bus: Bus, stream: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    offset = 0
    while True:
        answer = await bus.api(f"CONSUMER.LIST.{stream}", {"offset": offset})
        page = answer.get("consumers") or []
        offset += len(page)
        for info in page:
            config = {name: value for name, value in info["config"].items() if name != "pause_until"}
            if config.get("durable_name"):
                found.append({"config": config, "ack_floor": info["ack_floor"]["stream_seq"]})
        if not page or offset >= int(answer.get("total", 0)):
            return found


async def _send(bus: Bus, subject: str, chunk: bytes) -> None:
    reply = await bus.request(subject, chunk, timeout=_SILENCE)
    if reply.data:
        check(orjson.loads(reply.data))


def _read(file: IO[bytes]) -> bytes:
    return file.read(_CHUNK)
