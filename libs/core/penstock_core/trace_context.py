"""The trace of a run: W3C Trace Context. Pure.

The request of a run holds the `traceparent` of what caused it in its trigger: a header of the client, the attribute of
an event (CloudEvents, Distributed Tracing), the attempt that started a child run. Its trace continues that one, or
begins here. All other ids are digests of names, so every service and every repetition computes the same.

    cause ── run ──┬── attempt, whose step gets it as TRACEPARENT ── child run, events that it sends
                   └── attempt
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from penstock_core.frozen import frozen

TRACEPARENT = "traceparent"
"""Header, attribute of events, and key of triggers."""

_FORM = re.compile(r"00-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}\Z")


@frozen(kw_only=True)
class SpanId:
    """A span: ids of the trace and the span in hexadecimal."""

    trace: str
    span: str

    def traceparent(self) -> str:
        """Return the value of the header."""
        return f"00-{self.trace}-{self.span}-01"


def parse(text: str) -> SpanId | None:
    """Read a `traceparent`; None if it is not valid, which the standard says to ignore."""
    found = _FORM.match(text)
    if found is None or set(found["trace"]) == {"0"} or set(found["span"]) == {"0"}:
        return None
    return SpanId(trace=found["trace"], span=found["span"])


def given(text: str | None) -> dict[str, str]:
    """Return the entry of a trigger for a `traceparent` that a client or an event has; none if it is not valid."""
    return {TRACEPARENT: text} if text and parse(text) is not None else {}


def cause(trigger: Mapping[str, str]) -> SpanId | None:
    """Return the span that caused a run, by its trigger; None if its trace begins with it."""
    return parse(trigger.get(TRACEPARENT, ""))


def continued(trigger: Mapping[str, str]) -> str:
    """Return the trace that a run continues, by its trigger; empty if its trace begins with it."""
    found = cause(trigger)
    return found.trace if found else ""


def of_run(run_id: str, trace: str = "") -> SpanId:
    """Return the span of a run; `trace` is the one that it continues."""
    return SpanId(trace=trace or _digest(32, "trace", run_id), span=_digest(16, run_id))


def of_attempt(run_id: str, key: str, attempt: int, trace: str = "") -> SpanId:
    """Return the span of an attempt; `trace` is the one that its run continues."""
    return SpanId(trace=of_run(run_id, trace).trace, span=_digest(16, run_id, key, str(attempt)))


def _digest(length: int, *parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]
