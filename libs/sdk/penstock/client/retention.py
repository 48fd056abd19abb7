"""What is kept and for how long, from Python: `Client.retention`, and runs that are archived or deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.errors import ClientError
from penstock.client.transport import Transport
from penstock.client.waits import user

_FIRST_POLL = 0.1
_LONGEST_POLL = 1.0
_SILENCE_TIMEOUT = 120.0
"""Seconds without a sign after which a job counts as dead."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long the runs are kept that it is about; see `Retention.set`."""

    name: str
    project: str = "*"
    pipeline: str = "*"
    states: tuple[str, ...] = ()
    keep_for: float | None = None
    keep_last: int | None = None
    forever: bool = False


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """The policies by name, and the seconds after the end of a run until it is archived; None: never."""

    archive_after: float | None = None
    policies: tuple[RetentionPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class JanitorReport:
    """What the janitor did, or would do.

    Attributes:
        state: `running`, `finished` or `failed`, then with `error`.
        going: how many runs were deleted, or would be; `deleted_runs` are the first thousand.
        archived: how many were archived, or would be.
        pipelines: what goes, by pipeline: `runs`, and `objects` and `bytes` that only runs which go hold.
        stored: `objects` and `bytes` of the whole store.
        unnamed: of those, what nothing names, but was not removed yet.
        swept: what was removed, or could be now.
        grace: seconds for which nothing must name an artifact before it is removed.
        older: objects that nothing names, but that are older than the log itself.
        problems: what could not be done, and why.
    """

    id: str
    state: str
    job: str = "collect"
    dry_run: bool = False
    started_at: float = 0.0
    at: float = 0.0
    error: str | None = None
    runs: int = 0
    deleted_count: int = 0
    archived: int = 0
    restored: int = 0
    grace: float = 0.0
    predates_log: int = 0
    deletes_all_finished: bool = False
    deleted_runs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    problems: list[str] = field(default_factory=list[str])
    pipelines: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    stored: dict[str, int] = field(default_factory=dict[str, int])
    unreferenced: dict[str, int] = field(default_factory=dict[str, int])
    removed: dict[str, int] = field(default_factory=dict[str, int])


class JobFailedError(ClientError):
    """A job of the janitor ended before it was done."""


class Retention:
    """`Client.retention`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def show(self) -> RetentionSettings:
        """What is set."""
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
        """Set a policy. A run is deleted when a policy is about it, and none of those keeps it.

        Args:
            name: tells it from others; an earlier one of this name is replaced.
            project: of the runs it is about; `*` and `?` stand for any letters.
            pipeline: the same of their pipeline.
            states: how they ended, such as `failed`; empty for all.
            keep_for: seconds after its end that a run is kept.
            keep_last: so many of the latest runs of each pipeline are kept.
            forever: all are kept, whatever other policies say.
            confirm: set it even if no run at all would be left.

        Raises:
            NotFound: there is no such pipeline.
            Refused: it makes no sense, or has to be confirmed.
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
        """Remove a policy.

        Raises:
            NotFound: there is none of this name.
        """
        self._transport.json("DELETE", f"/v1/retention/policies/{quote(name, safe='')}")

    def archive_after(self, seconds: float | None) -> RetentionSettings:
        """Set when runs move from the log to the archive: seconds after their end; None: never."""
        return _settings(self._transport.json("PUT", "/v1/retention/archive", body={"after": seconds}))

    def collect(
        self,
        *,
        dry_run: bool = False,
        older_than_log: bool = False,
        progress: Callable[[JanitorReport], None] | None = None,
    ) -> JanitorReport:
        """Delete runs by the policies, archive what is due, remove artifacts that nothing names; returns when done.

        Args:
            dry_run: only tell what would go.
            older_than_log: remove what is older than the log, too: the log that named it may have been lost.
            progress: is called with what was done so far, now and then.

        Raises:
            JobFailed: it ended before it was done; beginning again goes on with it.
        """
        body = {"dry_run": dry_run, "older_than_log": older_than_log}
        return self._wait(self._transport.json("POST", "/v1/admin/gc", body=body), progress)

    def restore(self, run_id: str | None = None) -> JanitorReport:
        """Put a run, or all that are archived, back into a log that has lost them.

        Raises:
            JobFailed: there is no archive of the run, or the store does not answer.
        """
        return self._wait(self._transport.json("POST", "/v1/admin/restore", body={"run_id": run_id}), None)

    def archive(self, run_id: str) -> JanitorReport:
        """Move the facts of a run that is over from the log to the archive now.

        Raises:
            NotFound: there is no such run.
            JobFailed: the store does not answer.
        """
        return self._wait(self._transport.json("POST", f"/v1/runs/{quote(run_id)}/archive"), None)

    def delete_run(self, run_id: str) -> None:
        """Delete a run that is over. What only it holds is removed by the collections that follow.

        Raises:
            NotFound: there is no such run.
            Refused: it is under way, or something needs it.
        """
        self._transport.json("DELETE", f"/v1/runs/{quote(run_id)}", query={"by": user()})

    def _wait(self, begun: Mapping[str, Any], progress: Callable[[JanitorReport], None] | None) -> JanitorReport:
        report, pause = views.build(JanitorReport, begun), _FIRST_POLL
        heard, sign = time.monotonic(), report.at
        while report.state == "running":
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)
            report = views.build(JanitorReport, self._transport.json("GET", f"/v1/admin/jobs/{report.id}"))
            if report.at != sign:
                heard, sign = time.monotonic(), report.at
                if progress is not None:
                    progress(report)
            elif time.monotonic() - heard > _SILENCE_TIMEOUT:
                raise JobFailedError(f"the janitor has not said anything for {_SILENCE_TIMEOUT:.0f} s: begin it again")
        if report.state == "failed":
            raise JobFailedError(f"the janitor could not finish: {report.error}")
        return report


class RetentionMixin:
    """The part of `Client` that is about what is kept."""

    transport: Transport

    @property
    def retention(self) -> Retention:
        """What is kept and for how long."""
        return Retention(self.transport)


def _settings(data: Mapping[str, Any]) -> RetentionSettings:
    policies = tuple(
        views.build(RetentionPolicy, row, states=tuple(row.get("states") or ())) for row in data["policies"]
    )
    return RetentionSettings(data.get("archive_after"), policies)
