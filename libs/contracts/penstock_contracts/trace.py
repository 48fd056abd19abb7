"""What caused a run or an event, and what it caused, over HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class TraceNode(BaseModel):
    """An event or a run, with the events and runs that it caused.

    Attributes of an event: `type`, `source`, `event_id`. Attributes of a run: `pipeline`, `version`, `state`, and the
    trigger that started it.
    """

    kind: Literal["event", "run"]
    id: str = Field(description="the sequence of the event, or the ID of the run")
    at: float = Field(description="when it was stored or requested, in Unix seconds")
    requested: bool = Field(default=False, description="whether this is what the trace was requested for")
    type: str = ""
    source: str = ""
    event_id: str = ""
    subject: str = ""
    pipeline: str = ""
    version: int = 0
    state: str = ""
    trigger: str = Field(
        default="",
        description="`DEPLOYMENT / TRIGGER`, `DEPLOYMENT / backfill ID`, `rerun` or `step KEY`; empty: by hand",
    )
    caused: list[TraceNode] = Field(default_factory=list["TraceNode"])


class Trace(BaseModel):
    """The first cause that is known, with everything that followed. `truncated`: more followed than is shown."""

    root: TraceNode
    truncated: bool = False
