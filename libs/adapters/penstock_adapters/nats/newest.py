"""Reading a stream from its end, which the server can only read forwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nats.aio.msg import Msg

from penstock_adapters.nats.bus import Bus

_PAGE = 200
_SECTION = 20_000

T = TypeVar("T")


async def newest(
    bus: Bus, stream: str, pattern: str, read: Callable[[Msg], T | None], limit: int, before: int | None = None
) -> list[T]:
    """Return the newest messages of a stream on a subject pattern, below a sequence, newest first.

    Args:
        bus: the connection.
        stream: name of the stream.
        pattern: subject, which may have wildcards.
        read: returns what a message is, or None to leave it out.
        limit: maximum number of messages.
        before: only messages before this sequence.
    """
    state = (await bus.api(f"STREAM.INFO.{stream}"))["state"]
    end = int(state["last_seq"]) + 1
    if before is not None:
        end = min(end, before)
    first, step = int(state["first_seq"]), max(2 * limit, _PAGE)
    found: list[T] = []
    # Read sections from the end on, each twice as long as the one before.
    while end > first and len(found) < limit:
        start = max(first, end - step)
        messages = await _section(bus, stream, pattern, start, end)
        found += [one for message in reversed(messages) if (one := read(message)) is not None]
        end, step = start, min(step * 2, _SECTION)
    return found[:limit]


async def _section(bus: Bus, stream: str, pattern: str, start: int, end: int) -> list[Msg]:
    found: list[Msg] = []
    seq = start
    while seq < end:
        page = await bus.direct_get(stream, {"seq": seq, "batch": _PAGE, "next_by_subj": pattern})
        found += [message for message in page if sequence(message) < end]
        if len(page) < _PAGE:
            break
        seq = sequence(page[-1]) + 1
    return found


def sequence(message: Msg) -> int:
    """Return the sequence of a message from a direct read."""
    return int((message.headers or {})["Nats-Sequence"])
