"""Projects over HTTP."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import RequestBody


class QuotaView(RequestBody):
    """What a project may use; null: no quota."""

    artifact_bytes: int | None = Field(default=None, ge=1, lt=2**53, description="largest artifact")
    events_per_second: float | None = Field(
        default=None, gt=0, le=1e6, description="events that each gateway accepts, also of webhooks"
    )


class ProjectBody(RequestBody):
    """Create a project, or replace its quotas."""

    quotas: QuotaView = QuotaView()


class ArchiveProjectBody(RequestBody):
    """Archive a project, which can then be read only, or unarchive it."""

    archived: bool = True


class ProjectView(BaseModel):
    """A project. Times are in Unix seconds; `archived_at` is null for one that is not archived."""

    model_config = ConfigDict(frozen=True)

    name: str
    created_at: float
    created_by: str
    archived_at: float | None
    quotas: QuotaView


class ProjectList(BaseModel):
    """Projects by name."""

    model_config = ConfigDict(frozen=True)

    projects: list[ProjectView]
