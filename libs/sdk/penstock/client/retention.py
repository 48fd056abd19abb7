"""Retention policies, archiving and garbage collection: `Client.retention`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport
from penstock.errors import JobFailedError

_FIRST_POLL = 0.1
_LONGEST_POLL = 1.0
_SILENCE_TIMEOUT = 120.0
"""Seconds without progress after which a job counts as dead."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Which runs a policy matches, and how long to keep them; see `Retention.set`."""

    name: str
    project: str = "*"
    pipeline: str = "*"
    states: tuple[str, ...] = ()
    keep_for: float | None = None
    keep_last: int | None = None
    forever: bool = False


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """The retention policies by name, and the seconds after which finished runs are archived; None for never."""

    archive_after: float | None = None
    policies: tuple[RetentionPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class JanitorReport:
    """What a maintenance job did, or would do in a dry run.

    Attributes:
        state: `running`, `finished` or `failed`, then with `error`.
        deleted_count: number of deleted runs; `deleted_runs` are the first thousand.
        archived_count: number of archived runs.
        restored_count: number of restored runs.
        updated_at: time of this state of the report; Unix seconds.
        pipelines: deleted runs by pipeline: `runs`, and the `objects` and `bytes` that only these runs refer to.
        stored: `objects` and `bytes` of the whole store.
        unreferenced: objects that no run refers to and that were not removed yet.
        removed: removed objects; in a dry run those that could be removed now.
        grace: seconds for which an artifact must be unreferenced before it is removed.
        predates_log: unreferenced objects that are older than the log.
        deletes_all_finished: whether no finished run would be left.
        problems: what could not be done, and why.
    """

    id: str
    state: str
    job: str = "collect"
    dry_run: bool = False
    started_at: float = 0.0
    updated_at: float = 0.0
    error: str | None = None
    runs: int = 0
    deleted_count: int = 0
    archived_count: int = 0
    restored_count: int = 0
    grace: float = 0.0
    predates_log: int = 0
    deletes_all_finished: bool = False
    deleted_runs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    problems: list[str] = field(default_factory=list[str])
    pipelines: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    stored: dict[str, int] = field(default_factory=dict[str, int])
    unreferenced: dict[str, int] = field(default_factory=dict[str, int])
    removed: dict[str, int] = field(default_factory=dict[str, int])


class Retention:
    """`Client.retention`: manage retention policies, collect garbage, restore archived runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self) -> RetentionSettings:
        """Return the retention policies and the archiving delay."""
        return _settings(self._transport.json("GET", "/v1/retention"))

    def set(
        self,
        name: str,
        *,
        project: str = "*",
        pipeline: str = "*",
        states: Sequence[str] = (),
        keep_for: float | None = None,
        keep_last: int | None = None,
        forever: bool = False,
        confirm: bool = False,
    ) -> RetentionSettings:
        """Create or replace a policy. A run is deleted if a policy matches it and no matching policy retains it.

        Args:
            name: name of the policy.
            project: pattern of the project; `*` and `?` are wildcards.
            pipeline: pattern of the pipeline.
            states: terminal states, such as `failed`; empty for all.
            keep_for: seconds to retain a run after its end.
            keep_last: number of the latest runs of each pipeline to retain.
            forever: retain all matching runs, whatever other policies say.
            confirm: set the policy even if it would delete every finished run.

        Raises:
            NotFoundError: there is no such pipeline.
            RefusedError: the policy is not valid, or requires confirmation.
        """
        body = {
            "project": project,
            "pipeline": pipeline,
            "states": list(states),
            "keep_for": keep_for,
            "keep_last": keep_last,
            "forever": forever,
            "confirm": confirm,
        }
        return _settings(self._transport.json("PUT", f"/v1/retention/policies/{quote(name, safe='')}", body=body))

    def delete(self, name: str) -> None:
        """Delete a policy.

        Raises:
            NotFoundError: there is no policy of this name.
        """
        self._transport.json("DELETE", f"/v1/retention/policies/{quote(name, safe='')}")

    def archive_after(self, seconds: float | None) -> RetentionSettings:
        """Set after how many seconds finished runs move from the log to the archive; None for never."""
        return _settings(self._transport.json("PUT", "/v1/retention/archive", body={"after": seconds}))

    def collect_garbage(
        self,
        *,
        dry_run: bool = False,
        older_than_log: bool = False,
        progress: Callable[[JanitorReport], None] | None = None,
    ) -> JanitorReport:
        """Delete runs by the policies, archive those that are due, and remove unreferenced artifacts.

        Args:
            dry_run: change nothing; report what would be deleted.
            older_than_log: also remove unreferenced artifacts older than the log, which may be a replacement for a
                lost log that referred to them.
            progress: called with the intermediate report whenever it changes.

        Raises:
            JobFailedError: the job failed; repeating the call continues it.
        """
        body = {"dry_run": dry_run, "older_than_log": older_than_log}
        return wait_for_job(self._transport, self._transport.json("POST", "/v1/admin/gc", body=body), progress)

    def restore_runs(self, run_id: str | None = None) -> JanitorReport:
        """Restore an archived run, or all archived runs, into a log that has lost them.

        Raises:
            JobFailedError: there is no archive of the run, or the artifact store does not answer.
        """
        return wait_for_job(self._transport, self._transport.json("POST", "/v1/admin/restore", body={"run_id": run_id}))


def wait_for_job(
    transport: Transport, started: Mapping[str, Any], progress: Callable[[JanitorReport], None] | None = None
) -> JanitorReport:
    """Poll a maintenance job until it has finished; return its report.

    Raises:
        JobFailedError: it failed, or reported no progress for two minutes.
    """
    report, pause = views.build(JanitorReport, started), _FIRST_POLL
    changed, last = time.monotonic(), report.updated_at
    while report.state == "running":
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_POLL)
        report = views.build(JanitorReport, transport.json("GET", f"/v1/admin/jobs/{report.id}"))
        if report.updated_at != last:
            changed, last = time.monotonic(), report.updated_at
            if progress is not None:
                progress(report)
        elif time.monotonic() - changed > _SILENCE_TIMEOUT:
            raise JobFailedError(f"the job has reported no progress for {_SILENCE_TIMEOUT:.0f} s: start it again")
    if report.state == "failed":
        raise JobFailedError(f"the job failed: {report.error}")
    return report


def _settings(data: Mapping[str, Any]) -> RetentionSettings:
    policies = tuple(
        views.build(RetentionPolicy, row, states=tuple(row.get("states") or ())) for row in data["policies"]
    )
    return RetentionSettings(data.get("archive_after"), policies)
