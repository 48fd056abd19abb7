"""Parser of server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Message:
    """An event: its id (0 when it has none), its name and its data."""

    id: int
    event: str
    data: Any


def messages(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Parse chunks of bytes, split at any position; comments and an incomplete last message are ignored."""
    rest = b""
    name, ident, data = "message", 0, list[bytes]()
    for chunk in chunks:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        for raw in lines:
            line = raw.rstrip(b"\r")
            if not line:
                if data:
                    yield Message(ident, name, json.loads(b"\n".join(data)))
                name, ident, data = "message", 0, []
            elif line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"event:"):
                name = line[6:].strip().decode()
            elif line.startswith(b"id:"):
                ident = int(line[3:])
