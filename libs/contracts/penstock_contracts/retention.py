"""Retention over HTTP and NATS: policies, jobs of the janitor, and their reports."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import Number, RequestBody
from penstock_core import retention
from penstock_core.retention import Policy


class PolicyBody(RequestBody):
    """Which runs a policy matches, and how long to keep them. Any rule of a matching policy keeps a run."""

    project: str = Field(default="*", max_length=100, description="a pattern: `*` matches any characters, `?` one")
    pipeline: str = Field(default="*", max_length=100, description="a pattern: `*` matches any characters, `?` one")
    states: list[str] = Field(default_factory=list, max_length=10, description="terminal states; empty: all")
    keep_for: float | None = Field(default=None, description="seconds after its end that a run is kept")
    keep_last: int | None = Field(default=None, description="number of the latest runs of each pipeline that are kept")
    forever: bool = Field(default=False, description="whether all matching runs are kept")

    def policy(self, name: str) -> Policy:
        """Return the policy with this name.

        Raises:
            InvalidPolicyError: it is invalid.
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
    """Create or replace a policy. One that would delete all finished runs needs `confirm`."""

    confirm: bool = False


class PolicyView(PolicyBody):
    """A policy."""

    name: str


class RetentionSettings(BaseModel):
    """The policies, and when runs move from the log to the archive."""

    model_config = ConfigDict(frozen=True)

    archive_after: float | None = Field(
        default=retention.ARCHIVE_AFTER, description="seconds after the end of a run until it is archived; null: never"
    )
    policies: list[PolicyView] = Field(default_factory=list[PolicyView])


class ArchiveAfterBody(RequestBody):
    """Set when runs move from the log to the archive: seconds after their end; null: never."""

    after: Number | None = Field(ge=0, le=1e10)


class JanitorJob(BaseModel):
    """A job of the janitor. `id` is that of its report."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(min_length=1, max_length=100)
    job: Literal["collect", "restore", "archive", "decide"] = "collect"
    dry_run: bool = False
    older_than_log: bool = Field(
        default=False, description="whether to remove unreferenced objects that are older than the log itself"
    )
    run_id: str | None = Field(default=None, max_length=100, description="run to restore or archive; null: all")
    settings: RetentionSettings | None = Field(default=None, description="used instead of the stored settings")


class CollectBody(RequestBody):
    """Start a garbage collection."""

    dry_run: bool = False
    older_than_log: bool = False


class RestoreBody(RequestBody):
    """Restore one archived run into the log, or all of them (null)."""

    run_id: str | None = Field(default=None, max_length=100)


class DeletedRun(BaseModel):
    """A run that was deleted, or would be, and why."""

    run_id: str
    pipeline: str
    state: str
    finished_at: float
    reason: str


class Share(BaseModel):
    """What is deleted of one pipeline. `objects` and `bytes` are those that only deleted runs refer to."""

    runs: int = 0
    objects: int = 0
    bytes: int = 0


class Objects(BaseModel):
    """Objects in the artifact store."""

    objects: int = 0
    bytes: int = 0


class JanitorReport(BaseModel):
    """What a job of the janitor did, or would do. It is updated about once a second while the job runs."""

    id: str
    job: str = "collect"
    state: Literal["running", "finished", "failed"] = "running"
    dry_run: bool = False
    started_at: float = 0.0
    updated_at: float = 0.0
    error: str | None = None
    problems: list[str] = Field(default_factory=list, description="what could not be done, and why; it will be retried")
    runs: int = Field(default=0, description="runs in the index")
    deleted_count: int = Field(default=0, description="runs that were deleted, or would be")
    deleted_runs: list[DeletedRun] = Field(default_factory=list[DeletedRun], description="the first thousand of them")
    archived_count: int = Field(default=0, description="runs that were archived, or would be")
    restored_count: int = Field(default=0, description="runs that were restored into the log")
    pipelines: dict[str, Share] = Field(default_factory=dict[str, Share], description="what is deleted, by pipeline")
    stored: Objects = Field(default_factory=Objects, description="all objects in the store")
    unreferenced: Objects = Field(default_factory=Objects, description="unreferenced objects that were not removed yet")
    removed: Objects = Field(default_factory=Objects, description="objects that were removed, or would be")
    grace: float = Field(
        default=0.0, description="grace period: seconds that an object is unreferenced before it is removed"
    )
    predates_log: int = Field(
        default=0, description="unreferenced objects that are kept because they are older than the log itself"
    )
    deletes_all_finished: bool = Field(default=False, description="whether all finished runs would be deleted")


class JanitorReply(BaseModel):
    """Reply to a job: it was started, or why not."""

    id: str = ""
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether a retry may succeed")


class DeleteRun(BaseModel):
    """Delete a run: its log, its archive, its rows. The next garbage collections remove its artifacts."""

    run_id: str = Field(max_length=100)
    by: str = Field(default="", max_length=500, description="the principal that deletes it")


class DeleteReply(BaseModel):
    """Reply to `DeleteRun`."""

    deleted: bool = False
    refused: str | None = Field(default=None, description="why it is protected")
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether a retry may succeed")
