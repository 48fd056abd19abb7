"""Answers of the API that are put together by the gateway itself, as models for the API's description only."""

from __future__ import annotations

from pydantic import BaseModel, Field

from penstock_contracts import api
from penstock_contracts.commands import Schedule, StoreInfo


class FieldError(BaseModel):
    """What is wrong with one field: `inputs.depth`, `header.idempotency-key`, `query.limit`."""

    field: str
    message: str


class Problem(api.Problem):
    """RFC 9457 problem details: `title` says what happened, `detail` what to do, `errors` in which fields."""

    errors: list[FieldError] = Field(default_factory=list[FieldError])


class CancelAnswer(BaseModel):
    """The run; `state` says how it ended when it was over before, and is null when the cancel was asked for."""

    run_id: str
    state: str | None = None


class VersionList(BaseModel):
    """Versions, oldest first."""

    versions: list[api.VersionSummary]


class ScheduleList(BaseModel):
    """Schedules by name."""

    schedules: list[Schedule]


class StoredObject(BaseModel):
    """An object that is in the store, with its size in bytes."""

    sha256: str
    size: int


class Health(BaseModel):
    """The process lives."""

    status: str


class Readiness(BaseModel):
    """Whether everything that is needed is there, and what of it."""

    ready: bool
    parts: dict[str, bool]


class Limits(BaseModel):
    """Limits in bytes: of an inline value, a JSON body, an artifact."""

    inline: int
    json_body: int = Field(alias="json")
    blob: int


class SchedulerReplica(BaseModel):
    """A scheduler that lives, and the shards that it holds."""

    name: str
    shards: list[int]


class Platform(Readiness):
    """What a platform is."""

    version: str
    project: str
    store: StoreInfo
    started_at: float
    limits: Limits
    schedulers: list[SchedulerReplica] = Field(
        default_factory=list["SchedulerReplica"], description="those that answer; none: no run goes on"
    )


MODELS: tuple[type[BaseModel], ...] = (
    Problem,
    CancelAnswer,
    VersionList,
    ScheduleList,
    StoredObject,
    Health,
    Readiness,
    SchedulerReplica,
    Platform,
)
