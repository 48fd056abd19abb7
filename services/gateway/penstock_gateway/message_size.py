"""The largest message that the bus accepts."""

from __future__ import annotations

from penstock_adapters.nats.bus import Bus
from penstock_gateway.errors import ContentTooLargeError

_HEADERS = 4096
"""Bytes reserved for the headers of a message."""


def check_message_size(bus: Bus, size: int, advice: str) -> None:
    """Raise ContentTooLargeError when a body of `size` bytes does not fit into a message."""
    limit = bus.client.max_payload - _HEADERS
    if size > limit:
        raise ContentTooLargeError(f"The request has {size} bytes; the message bus accepts {limit}", advice)
