"""Requests to warm workers, between gateways and executors on core NATS. JSON.

A call is `{"deployment": …, "revision": 3, "version": 2, "run": {…}}`, where `run` is a `RunRequested`. Its reply is
`{"end": {"outcome": …, "error": …, "outputs": {…}}}`, or `{"refused": …, "detail": …}` with a `Refusal`.

With `"stream": true`, replies `{"items": […], "first": 17, "sent": 4711}` come before it: items of the output from
number `first` on, and the bytes of all items so far. The gateway sends `{"received": [SUBJECT, 4711]}`, with the
subject of the replies, after the client has read these bytes, or `{"cancel": SUBJECT}` when it has disconnected. No
more than `penstock_core.fork_server_protocol.STREAM_WINDOW` bytes are sent before the gateway confirms some.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, Field

from penstock_core.facts import Outcome
from penstock_core.pipeline.values import Value


class Refusal(StrEnum):
    """Why a call has no end. The run of one that was `crashed` or `late` may have begun; others have not."""

    GONE = "gone"
    """The executor does not serve this revision and version: it is served by another one, or a newer one is."""
    BUSY = "busy"
    """The limit of unfinished requests is reached."""
    BROKEN = "broken"
    """The workers cannot start."""
    CRASHED = "crashed"
    """The worker ended while it ran the request."""
    LATE = "late"
    """The time limit of the endpoint has passed."""


class ServedEndpoint(BaseModel):
    """A revision of a deployment with a version of its pipeline, as an executor serves it."""

    project: str
    deployment: str
    revision: int
    version: int
    own: bool = Field(description="whether it is the version of the deployment itself, not only a canary or shadow")
    ready: int = Field(description="workers that have loaded the pipeline")
    load: int = Field(description="requests that run or wait")
    error: str = Field(default="", description="why the workers cannot start")


class ServedEndpoints(BaseModel):
    """What an executor announces each second, and whenever it changes."""

    executor: str
    endpoints: list[ServedEndpoint] = Field(default_factory=list[ServedEndpoint])


class CallEnd(BaseModel):
    """The end of a run."""

    outcome: Outcome
    error: str | None = None
    outputs: dict[str, Value] = Field(default_factory=dict[str, Value])


class CallReply(BaseModel):
    """The reply to a call."""

    end: CallEnd | None = None
    refused: Refusal | None = None
    detail: str = ""
