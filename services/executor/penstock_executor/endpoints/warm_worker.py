"""A warm worker as the executor sees it: its channel, and the calls that it has.

Everything that it sends is checked: user code runs in that process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import orjson
import pydantic

from penstock_contracts.warm_calls import CallEnd
from penstock_core import fork_server_protocol as protocol
from penstock_core.facts import Outcome

Json = dict[str, Any]

_LINGER = 1.0


@dataclass(slots=True, eq=False)
class Call:
    """A request to an endpoint.

    Attributes:
        number: identifies it to its worker.
        run: its `RunRequested` as JSON.
        reply: gets its reply, once.
        record: whether its run is recorded if it succeeds.
        since: the loop's time of its arrival.
        timer: ends it at the time limit of the endpoint.
        alone: whether it is run without others: the worker that ran it with them has died.
        items: gets the items of its output as they come, each time a `CallReply`; None: they are part of its end.
        count: the items that were passed on.
    """

    number: int
    run: Json
    reply: Callable[[Json], None]
    record: bool
    since: float
    timer: asyncio.TimerHandle | None = None
    end: Json | None = None
    alone: bool = False
    items: Callable[[Json], None] | None = None
    count: int = 0
    _waiting: list[Any] = field(default_factory=list[Any])
    _sent: int = 0

    def add(self, items: list[Any], sent: int) -> None:
        """Take items from its worker, which has sent so many bytes of items."""
        self._waiting += items
        self._sent = sent

    def pass_on(self) -> None:
        """Pass on the items that have come, in one message."""
        if self._waiting and self.items is not None:
            self.items({"items": self._waiting, "first": self.count, "sent": self._sent})
            self.count += len(self._waiting)
            self._waiting = []

    def answer(self, reply: Json) -> None:
        """Reply."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.reply(reply)


class WorkerListener(Protocol):
    """Gets what happens to workers."""

    def on_ready(self, worker: WarmWorker) -> None:
        """Handle that it has loaded the pipeline."""
        ...

    def on_end(self, worker: WarmWorker, call: Call) -> None:
        """Handle the end of a call: `call.end` is set."""
        ...

    def on_facts(self, call: Call, facts: list[tuple[str, Json]] | None) -> None:
        """Handle the facts of the run of a call that has ended; None: they are not to be recorded."""
        ...


@dataclass(eq=False)
class WarmWorker:
    """A worker, from the start of its process to its end.

    Attributes:
        name: the attempt as which the process adapter runs it.
        ready: whether it has loaded the pipeline.
        calls: those that it has, by number, in order; with those whose facts are still to come.
        error: why it could not load the pipeline, or why its process was ended.
        idle_since: the loop's time since which it has no call.
    """

    name: str
    owner: WorkerListener
    ready: bool = False
    calls: dict[int, Call] = field(default_factory=dict[int, Call])
    error: str = ""
    killed: bool = False
    idle_since: float = 0.0
    _channel: _Channel | None = None

    async def open(self) -> socket.socket:
        """Open the channel; returns the worker's end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            channel = _Channel(self._received, self._pass_on)
            _, self._channel = await loop.create_unix_connection(lambda: channel, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return theirs

    @property
    def busy(self) -> bool:
        """Whether it has a call without an end."""
        return any(call.end is None for call in self.calls.values())

    def send(self, calls: list[Call]) -> None:
        """Have it run calls."""
        self.calls |= {call.number: call for call in calls}
        found = [
            {"id": call.number, "run": call.run, "record": call.record, "stream": call.items is not None}
            for call in calls
        ]
        self.control({"calls": found})

    def control(self, message: Json) -> None:
        """Send a message."""
        if self._channel is not None:
            self._channel.send(orjson.dumps(message))

    def _pass_on(self) -> None:
        for call in self.calls.values():
            call.pass_on()

    def close(self) -> None:
        """Stop sending: the worker exits after the calls that it has, and what it sends until then is received."""
        if self._channel is not None:
            self._channel.end()

    async def received_all(self) -> None:
        """Wait until everything is received that a worker has sent whose process has ended."""
        if self._channel is not None:
            with contextlib.suppress(TimeoutError):  # a process that it started may have its end of the channel
                await asyncio.wait_for(self._channel.closed.wait(), _LINGER)
            self._channel.close()

    def _received(self, body: bytes) -> None:
        try:
            message = orjson.loads(body)
            match message:
                case {"ready": True}:
                    self.ready = True
                    self.owner.on_ready(self)
                case {"refused": {"type": str(kind), "message": str(why)}}:
                    self.error = f"{kind}: {why}"[:2000]
                case {"id": int(number), "items": list() as items, "sent": int(sent)} if (
                    call := self.calls.get(number)
                ) and not call.end:
                    call.add(cast("list[Any]", items), sent)
                case {"id": int(number), "end": dict() as end} if (call := self.calls.get(number)) and not call.end:
                    call.pass_on()
                    call.end = _checked(cast("Json", end))
                    self.owner.on_end(self, call)
                case {"id": int(number), "facts": facts} if (call := self.calls.get(number)) and call.end:
                    del self.calls[number]
                    self.owner.on_facts(call, None if facts is None else _facts(facts))
                case _:
                    return
        except (ValueError, TypeError):
            return  # not a message of the runner


def _checked(end: Json) -> Json:
    try:
        CallEnd.model_validate(end)
    except pydantic.ValidationError as error:
        why = f"the worker sent an invalid end: {error.errors(include_url=False, include_input=False)[0]['msg']}"
        return {"outcome": Outcome.FAILED, "error": why, "outputs": {}}
    return end


def _facts(found: Any) -> list[tuple[str, Json]]:
    return [(str(tail), cast("Json", body)) for tail, body in found if isinstance(body, dict)]


class _Channel(asyncio.Protocol):
    """Frames in both directions. `received` gets each; `rest` is called after those that came together."""

    def __init__(self, received: Callable[[bytes], None], rest: Callable[[], None]) -> None:
        self.closed = asyncio.Event()
        self._received = received
        self._rest = rest
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = protocol.FRAME_HEAD
        while len(self._buffer) >= head:
            size = protocol.frame_size(bytes(self._buffer[:head]))
            if size > protocol.FRAME_LIMIT:
                self.close()
                return
            if len(self._buffer) < head + size:
                break
            body = bytes(self._buffer[head : head + size])
            del self._buffer[: head + size]
            self._received(body)
        self._rest()

    def send(self, body: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(protocol.frame(body))

    def end(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
