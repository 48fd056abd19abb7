"""Positions of streams, and reading all messages: the broker skips those that it cannot read, without an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers, StreamMessage
from penstock_core.integrity import StreamPosition

OnPage = Callable[[int, int, Sequence[StreamMessage]], Awaitable[None]]
"""Called with the messages above one sequence up to another one."""


async def positions(bus: Bus, names: Sequence[str]) -> dict[str, StreamPosition]:
    """Return the positions of the streams of these names that exist, without `dropped`.

    Raises:
        UnavailableError: the server does not answer.
    """
    found: dict[str, StreamPosition] = {}
    offset = 0
    while True:
        answer = await bus.api("STREAM.LIST", {"offset": offset})
        streams = answer.get("streams") or []
        found |= {info["config"]["name"]: _position(bus, info) for info in streams}
        offset += len(streams)
        if not streams or offset >= int(answer.get("total", 0)):
            return {name: found[name] for name in names if name in found}


async def with_dropped(bus: Bus, found: Mapping[str, StreamPosition]) -> dict[str, StreamPosition]:
    """Complete positions with the losses that the server itself reports. Raises as `positions` does."""
    infos = await asyncio.gather(*(bus.api(f"STREAM.INFO.{name}") for name in found))
    dropped = [_position(bus, info).dropped for info in infos]
    return {name: replace(one, dropped=lost) for (name, one), lost in zip(found.items(), dropped, strict=True)}


async def unreadable(
    bus: Bus, followers: Followers, stream: str, on_page: OnPage | None = None, pause: float = 0.0
) -> list[int]:
    """Read a stream and return the sequences of stored messages that cannot be read.

    `pause` is the share of the reading time for which it pauses, so that others are not slowed down.

    Raises:
        UnavailableError: the server does not deliver the messages.
    """
    state = (await bus.api(f"STREAM.INFO.{stream}"))["state"]
    first, last = int(state["first_seq"]), int(state["last_seq"])
    gaps: list[range] = []
    at = first - 1
    async with followers.follow(stream, [">"], max(0, at), "integrity") as follower:
        pages = follower.read_to_end()
        begun = time.monotonic()
        async for page in pages:
            items = [item for item in page if item.seq <= last]
            upto = at
            for item in items:
                if item.seq > upto + 1:
                    gaps.append(range(upto + 1, item.seq))
                upto = item.seq
            if on_page is not None and items:
                await on_page(at, upto, items)
            at = max(at, upto)
            if len(items) < len(page) or at >= last:
                break
            if pause:
                await asyncio.sleep((time.monotonic() - begun) * pause)
                begun = time.monotonic()
        await pages.aclose()
    if at < last:
        gaps.append(range(at + 1, last + 1))
        if on_page is not None:
            await on_page(at, last, ())
    return await _not_deleted(bus, stream, gaps) if gaps else []


async def _not_deleted(bus: Bus, stream: str, gaps: Sequence[range]) -> list[int]:
    """The sequences in gaps that were not deleted."""
    state = (await bus.api(f"STREAM.INFO.{stream}", {"deleted_details": True}, timeout=30.0))["state"]
    deleted: set[int] = set(state.get("deleted") or ())
    first, last = int(state["first_seq"]), int(state["last_seq"])
    return [seq for gap in gaps for seq in gap if first <= seq <= last and seq not in deleted]


def _position(bus: Bus, info: dict[str, Any]) -> StreamPosition:
    state = info["state"]
    lost = state.get("lost") or {}
    dropped = ""
    if lost.get("bytes") or lost.get("msgs"):
        leader = (info.get("cluster") or {}).get("leader", "")
        dropped = f"{lost.get('bytes', 0)}:{leader}:{bus.server_id}"
    last, first = int(state["last_seq"]), int(state["first_seq"])
    return StreamPosition(str(info["created"]), last, int(state["messages"]), dropped, first)
