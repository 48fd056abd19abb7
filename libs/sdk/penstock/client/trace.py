"""Causes and effects of runs and events: `Client.trace`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TraceNode:
    """An event or a run, with the events and runs that it caused.

    Attributes:
        kind: `event` or `run`.
        id: the sequence of the event, or the id of the run.
        at: when it was stored or requested, in Unix seconds.
        requested: whether this is what the trace was requested for.
        type, source, event_id, subject: of an event.
        pipeline, version, state: of a run.
        trigger: what started the run: `DEPLOYMENT / TRIGGER`, `rerun` or `step KEY`; empty: by hand.
        caused: what followed.
    """

    kind: str
    id: str
    at: float
    requested: bool = False
    type: str = ""
    source: str = ""
    event_id: str = ""
    subject: str = ""
    pipeline: str = ""
    version: int = 0
    state: str = ""
    trigger: str = ""
    caused: tuple[TraceNode, ...] = ()


def node(found: Mapping[str, Any]) -> TraceNode:
    """Return a node from the JSON of the API."""
    fields = {name: found[name] for name in TraceNode.__slots__ if name in found and name != "caused"}
    return TraceNode(**fields, caused=tuple(node(one) for one in found.get("caused", ())))
