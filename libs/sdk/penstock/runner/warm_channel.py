"""The channel of a warm worker to its executor, and the items of streams on it, whose pace the client sets.

The messages are those of `penstock_core.fork_server_protocol`.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from penstock_core import fork_server_protocol as protocol
from penstock_core import plain_data

Json = dict[str, Any]

ITEM_LIMIT = 256 * 1024
"""Most characters of JSON of an item of a stream."""


class StreamCancelledError(BaseException):
    """The items of a stream are no longer needed."""


class Channel:
    """Sends and receives messages."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._received: dict[int, int] = {}
        self._cancelled: set[int] = set()

    def send(self, message: Json) -> None:
        """Send a message."""
        self.send_text(plain_data.write(message))

    def send_text(self, message: str) -> None:
        """Send a message that is JSON already."""
        self._socket.sendall(protocol.frame(message.encode()))

    def calls(self) -> list[Json] | None:
        """Wait for the next calls; None when the channel is closed."""
        self._received.clear()
        self._cancelled.clear()
        while (message := self._next(wait=True)) is not None:
            if "calls" in message:
                return message["calls"]
        return None

    def read_controls(self, *, wait: bool) -> None:
        """Read what the executor says about the calls that run; with `wait`, at least one message.

        Raises:
            StreamCancelledError: the executor has ended.
        """
        while (message := self._next(wait=wait)) is not None:
            wait = False
            match message:
                case {"received": [int(number), int(size)]}:
                    self._received[number] = size
                case {"cancel": int(number)}:
                    self._cancelled.add(number)
                case _:
                    pass

    def received(self, number: int) -> int:
        """Return how many bytes of the items of a call have arrived at its client."""
        return self._received.get(number, 0)

    def check(self, number: int) -> None:
        """Raise `StreamCancelledError` if the items of a call are no longer needed."""
        if number in self._cancelled:
            raise StreamCancelledError("the client has disconnected")

    def _next(self, *, wait: bool) -> Json | None:
        """Return the next message; None at the end of the channel, or if there is none and `wait` is false."""
        head = protocol.FRAME_HEAD
        while True:
            if len(self._buffer) >= head:
                size = protocol.frame_size(bytes(self._buffer[:head]))
                if len(self._buffer) >= head + size:
                    body = bytes(self._buffer[head : head + size])
                    del self._buffer[: head + size]
                    return json.loads(body)
            try:
                # The rest of a message that has begun to arrive follows at once.
                chunk = self._socket.recv(65536, 0 if wait or self._buffer else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not chunk:
                return None
            self._buffer += chunk


class Items:
    """Sends the items of the stream of one call.

    Attributes:
        count: how many were sent.
        sent: their bytes.
    """

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number
        self.count = 0
        self.sent = 0

    def send(self, item: Any) -> None:
        """Send an item, which is JSON data; wait while the client is slower than the function.

        Raises:
            ValueError: the item is too large.
            StreamCancelledError: the client has disconnected.
        """
        text = plain_data.write(item)
        if len(text) > ITEM_LIMIT:
            raise ValueError(f"item {self.count} of the stream has {len(text)} characters; the limit is {ITEM_LIMIT}")
        channel, number = self._channel, self._number
        channel.read_controls(wait=False)
        channel.check(number)
        self.count += 1
        self.sent += len(text)
        channel.send_text(f'{{"id":{number},"items":[{text}],"sent":{self.sent}}}')
        while self.sent - channel.received(number) > protocol.STREAM_WINDOW:
            channel.read_controls(wait=True)
            channel.check(number)
