"""`context().send_event(…)`: events that a step sends, checked where the step sends them.

The part of `Context` that is about events. What is checked here goes to the sink; on the platform it travels with the
end of the attempt, so that the events of a step are published once, and only if it succeeds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

MAX_EVENTS = 20
"""Events that one attempt may send."""

DATA_LIMIT = 64 * 1024
"""Largest payload of an event as JSON, in bytes."""

_KEY_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that a step sends; `data` is plain JSON."""

    type: str
    data: Any = None
    key: str = ""


class EventSink(Protocol):
    """Receives events."""

    def event(self, sent: SentEvent) -> None:
        """Receive an event, to be published if the attempt succeeds."""
        ...


class SendEventMixin:
    """The part of `Context` that is about events."""

    sink: Any

    def send_event(self, type: str, data: Any = None, *, key: str = "") -> None:
        """Send an event once this step has succeeded: deployments start runs for it, waiting steps continue.

        The event is published once, however often the step is retried, and not if the step fails. A cached result
        sends nothing.

        Args:
            type: such as `com.acme.report.ready`.
            data: JSON of at most 64 KiB.
            key: distinguishes events of one type, such as the id of an order.

        Raises:
            TypeError: `data` is not JSON.
            ValueError: `type` is not valid, `data` or `key` is too large, or the step has sent 20 events.
        """
        # Imported only by steps that send events.
        from penstock_core.deployments.definition import is_event_type

        where = f"send_event({type!r:.60})"
        if not isinstance(type, str) or not is_event_type(type):  # pyright: ignore[reportUnnecessaryIsInstance] - users' code is not always checked
            raise ValueError(f"{where}: the type must be words of letters, digits, '_' and '-', separated by dots")
        if not isinstance(key, str) or len(key) > _KEY_LIMIT:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"{where}: the key must be a string of at most {_KEY_LIMIT:,} characters")
        try:
            text = json.dumps(data, allow_nan=False, ensure_ascii=False)
            size = len(text.encode())
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"{where}: the data must be JSON: {error}") from error
        if size > DATA_LIMIT:
            raise ValueError(
                f"{where}: the data has {size} bytes as JSON; the limit is {DATA_LIMIT}: return it as an output, and "
                "send the id of the run"
            )
        self.sink.event(SentEvent(type, json.loads(text), key))
