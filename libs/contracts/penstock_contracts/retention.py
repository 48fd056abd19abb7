"""Retention over HTTP and NATS: policies, what the janitor is asked for, and what it reports."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_core import retention
from penstock_core.retention import Policy


class PolicyBody(BaseModel):
    """How long the runs are kept that it is about. A run is kept when any rule of any policy keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: str = Field(default="*", max_length=100, description="`*` and `?` stand for any letters")
    pipeline: str = Field(default="*", max_length=100, description="`*` and `?` stand for any letters")
    states: list[str] = Field(default_factory=list, max_length=10, description="how they ended; empty for all")
    keep_for: float | None = Field(default=None, description="seconds after the end of a run that it is kept")
    keep_last: int | None = Field(default=None, description="so many of the latest runs of each pipeline are kept")
    forever: bool = Field(default=False, description="whether all are kept")

    def policy(self, name: str) -> Policy:
        """The policy of this name.

        Raises:
            InvalidPolicy: it makes no sense.
        """
        return Policy(
            name=name,
            project=self.project,
            pipeline=self.pipeline,
            states=tuple(self.states),
            keep_for=self.keep_for,
            keep_last=self.keep_last,
            forever=self.forever,
        )


class SetPolicy(PolicyBody):
    """A policy to be set; `confirm` is needed for one that would leave no run at all."""

    confirm: bool = False


class PolicyView(PolicyBody):
    """A policy that is set."""

    name: str


class RetentionSettings(BaseModel):
    """What is kept, and when runs move from the log to the archive."""

    model_config = ConfigDict(frozen=True)

    archive_after: float | None = Field(
        default=retention.ARCHIVE_AFTER, description="seconds after the end of a run until it is archived; null: never"
    )
    policies: list[PolicyView] = Field(default_factory=list[PolicyView])


class ArchiveAfterBody(BaseModel):
    """When runs move from the log to the archive: seconds after their end; null: never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: float | None = Field(ge=0, le=1e10)


class JanitorJob(BaseModel):
    """What the janitor is asked for. `id` names its report."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(min_length=1, max_length=100)
    job: Literal["collect", "restore", "archive", "decide"] = "collect"
    dry_run: bool = False
    older_than_log: bool = Field(default=False, description="whether to collect what is older than the log itself")
    run_id: str | None = Field(default=None, max_length=100, description="of the run to restore or archive; null: all")
    settings: RetentionSettings | None = Field(default=None, description="instead of those that are set")


class CollectBody(BaseModel):
    """What is to be collected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dry_run: bool = False
    older_than_log: bool = False


class RestoreBody(BaseModel):
    """Which runs are to be put back into a log that has lost them; null: all that are archived."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str | None = Field(default=None, max_length=100)


class DeletedRun(BaseModel):
    """A run that goes, and why."""

    run_id: str
    pipeline: str
    state: str
    finished_at: float
    reason: str


class Share(BaseModel):
    """What goes of one pipeline. `objects` and `bytes` are those that only runs which go hold."""

    runs: int = 0
    objects: int = 0
    bytes: int = 0


class Objects(BaseModel):
    """What was found in the artifact store."""

    objects: int = 0
    bytes: int = 0


class JanitorReport(BaseModel):
    """What the janitor did, or would do. `at` is when it was written last, while it works about once a second."""

    id: str
    job: str = "collect"
    state: Literal["running", "finished", "failed"] = "running"
    dry_run: bool = False
    started_at: float = 0.0
    updated_at: float = 0.0
    error: str | None = None
    problems: list[str] = Field(default_factory=list, description="what could not be done, and why; it is tried again")
    runs: int = Field(default=0, description="runs that are known")
    deleted_count: int = Field(default=0, description="runs that were deleted, or would be")
    deleted_runs: list[DeletedRun] = Field(default_factory=list[DeletedRun], description="the first thousand of them")
    archived_count: int = Field(default=0, description="runs that were archived, or would be")
    restored_count: int = Field(default=0, description="runs that were restored")
    pipelines: dict[str, Share] = Field(default_factory=dict[str, Share], description="what goes, by pipeline")
    stored: Objects = Field(default_factory=Objects, description="all of the store")
    unreferenced: Objects = Field(default_factory=Objects, description="what nothing names, and was not swept yet")
    removed: Objects = Field(default_factory=Objects, description="what was removed, or could be removed now")
    grace: float = Field(default=0.0, description="seconds that something is named by nothing before it is removed")
    predates_log: int = Field(
        default=0, description="objects that nothing names, but that are older than the log itself"
    )
    deletes_all_finished: bool = Field(default=False, description="whether no run that is over would be left")


class JanitorReply(BaseModel):
    """Reply to a job: it was begun, or why not."""

    id: str = ""
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether trying again later may help")


class DeleteRun(BaseModel):
    """Delete a run: its log, its archive, its rows; what only it holds goes with the next collections."""

    run_id: str = Field(max_length=100)
    by: str = Field(default="", max_length=200)


class DeleteReply(BaseModel):
    """Reply to `DeleteRun`: what became of it."""

    deleted: bool = False
    refused: str | None = Field(default=None, description="why it may not be deleted")
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether trying again later may help")
