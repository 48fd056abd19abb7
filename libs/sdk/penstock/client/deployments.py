"""Deployments: what starts runs by itself: `Client.deployments`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock.authoring import notify
from penstock.authoring.notify import Notify
from penstock.client import views
from penstock.client.http.transport import Transport
from penstock.client.tokens import Token
from penstock.client.views import Run

if TYPE_CHECKING:
    from penstock.authoring.deployments import Deployment as Declaration


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as the platform has it. Times are Unix seconds.

    Attributes:
        revision: its number of changes; each change is a revision.
        definition: pipeline, version, triggers, inputs, labels, priority, deadline, notify, as JSON.
        by: the principal that changed it last, at time `at`.
        next: the next tick of each cron trigger, by name of the trigger.
        changed: whether the request changed it.
    """

    name: str
    revision: int
    definition: dict[str, Any] = field(repr=False)
    paused: bool = False
    by: str = ""
    at: float = 0.0
    next: dict[str, float] = field(default_factory=dict[str, float])
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """A change of a deployment: `applied`, `paused`, `resumed` or `deleted`.

    Attributes:
        restores: the revision that it was rolled back to; 0 if it was not.
        definition: the new definition of an applied one.
    """

    revision: int
    change: str
    by: str = ""
    at: float = 0.0
    reason: str = ""
    restores: int = 0
    definition: dict[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of a filter: whether it is true (None: it failed with `error`), and the values that it saw."""

    text: str
    holds: bool | None
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    error: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision of a trigger of a deployment on an event.

    Attributes:
        revision: the revision of the deployment that was in force.
        outcome: `started`, `scheduled`, `collected`, `throttled`, `building`, `rejected`, `filtered`, `paused` or
            `limited`: its run was skipped, because too many runs were active.
        run_id: the run that it started or will start.
        error: why it was rejected or limited.
        clauses: the parts of a filter that is false.
        key, window: the window that the event is part of; windows of a key are counted from 1.
        start_at: when the run starts at the latest, if it has not.
        waits_for: what an open window, or the queued run, waits for.
        inputs: inputs of the run; only in tests of an event.
        event: digest of the event.
    """

    deployment: str
    trigger: str
    revision: int
    outcome: str
    run_id: str | None = None
    error: str = ""
    clauses: tuple[Clause, ...] = ()
    key: str = ""
    window: int = 0
    start_at: float | None = None
    waits_for: str = ""
    inputs: dict[str, Any] | None = None
    event: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class NotificationTest:
    """A test notification of a rule: whether its receiver accepted it. Otherwise `error` says why it did not."""

    rule: str
    kind: str
    sent: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class ReplayedDecision:
    """The decisions of a trigger on a past event.

    Attributes:
        event: sequence of the event, of type `type`, stored at `at`.
        before: what the deployment really decided; None: it had no such trigger.
        after: what the revision decides; None: it has no such trigger.
        differs: whether the outcomes differ.
    """

    event: int
    type: str
    at: float
    trigger: str
    before: Decision | None
    after: Decision | None
    differs: bool


@dataclass(frozen=True, slots=True)
class ReplayedRun:
    """A run of a replay.

    Attributes:
        event: sequence of its event, the last one of a window.
        run_id: the run; None if it cannot run for the reason `error`, or nothing runs.
        before: the run that the deployment really started for the event.
    """

    event: int
    trigger: str
    run_id: str | None = None
    error: str = ""
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """Past events through a revision of a deployment, or another version of its pipeline.

    Attributes:
        id: value of the label `shadow` of its runs; empty if only decisions were compared.
        events: the number of events.
        truncated: more events match: replay those since the last one.
        decisions: of each event and trigger, by event.
    """

    id: str
    deployment: str
    revision: int
    pipeline: str
    version: int
    events: int
    truncated: bool
    decisions: tuple[ReplayedDecision, ...] = ()
    runs: tuple[ReplayedRun, ...] = ()


class Deployments:
    """`Client.deployments`: manage deployments."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Deployment]:
        """Return all deployments by name."""
        rows = self._transport.json("GET", "/v1/deployments")["deployments"]
        return [views.build(Deployment, row) for row in rows]

    def get(self, name: str) -> Deployment:
        """Return a deployment.

        Raises:
            NotFoundError: there is no deployment of this name.
        """
        return views.build(Deployment, self._transport.json("GET", _path(name)))

    def apply(
        self,
        deployment: Declaration | str,
        definition: Mapping[str, Any] | None = None,
        *,
        revision: int | None = None,
        dry_run: bool = False,
        candidate: int | None = None,
    ) -> Deployment:
        """Create a deployment, or update the one of the same name. An equal definition changes nothing.

        Args:
            deployment: a declaration (`Pipeline.deploy`), or a name with a `definition` as JSON.
            definition: pipeline, triggers and so on; see docs/deployments.md.
            revision: the revision that you have read, 0 for a new deployment: refused if it has changed meanwhile.
            dry_run: check it, and change nothing.
            candidate: with `dry_run`: a version of the pipeline to check it with, as if that was published now.

        Raises:
            RefusedError: the definition is not valid, or the deployment is at another revision.
            NotFoundError: the pipeline or the version does not exist.
        """
        name = deployment if isinstance(deployment, str) else deployment.name
        if not isinstance(deployment, str):
            definition = deployment.definition()
        body = {"definition": dict(definition or {}), "revision": revision, "dry_run": dry_run, "candidate": candidate}
        return views.build(Deployment, self._transport.json("PUT", _path(name), body=body))

    def pause(self, name: str, reason: str = "") -> Deployment:
        """Pause a deployment: its triggers start no runs until it is resumed. Raises as `get`."""
        return views.build(Deployment, self._transport.json("POST", _path(name, "pause"), body={"reason": reason}))

    def resume(self, name: str, reason: str = "") -> Deployment:
        """Resume a deployment. Raises as `get`."""
        return views.build(Deployment, self._transport.json("POST", _path(name, "resume"), body={"reason": reason}))

    def run(
        self,
        name: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        partition: str = "",
        idempotency_key: str | None = None,
    ) -> Run:
        """Submit a run of a deployment now, also of a paused one; return it without waiting for it.

        Args:
            name: the deployment.
            inputs: values by parameter name as JSON data, which override those of the deployment.
            labels: labels in addition to those of the deployment.
            partition: key of the partition that it computes, if the deployment has partitions.
            idempotency_key: a repeated key returns the existing run; default a new key.

        Raises:
            NotFoundError: there is no deployment of this name.
            RefusedError: the inputs do not fit.
        """
        body = {"inputs": dict(inputs or {}), "labels": dict(labels or {}), "partition": partition}
        headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)}
        return views.parse_accepted(self._transport.json("POST", _path(name, "runs"), body=body, headers=headers))

    def roll_back(self, name: str, to: int) -> Deployment:
        """Restore the definition of an earlier revision, as a new revision. Raises as `get`."""
        return views.build(Deployment, self._transport.json("POST", _path(name, "rollback"), body={"to": to}))

    def delete(self, name: str, reason: str = "") -> None:
        """Delete a deployment; its history stays, and its runs continue. Raises as `get`."""
        self._transport.json("DELETE", _path(name), query={"reason": reason})

    def revisions(self, name: str) -> list[Revision]:
        """Return all changes of a deployment, oldest first; also of a deleted one. Raises as `get`."""
        rows = self._transport.json("GET", _path(name, "revisions"))["revisions"]
        return [views.build(Revision, row) for row in rows]

    def ticks(self, name: str, count: int = 10) -> dict[str, list[float]]:
        """Return the next ticks of the cron triggers, in Unix seconds by name of the trigger. Raises as `get`."""
        ticks: dict[str, list[float]] = self._transport.json("GET", _path(name, "ticks"), query={"count": count})[
            "ticks"
        ]
        return ticks

    def decisions(self, name: str, limit: int = 100) -> list[Decision]:
        """Return the decisions of a deployment, newest first, without those on events that its filters dropped."""
        rows = self._transport.json("GET", _path(name, "decisions"), query={"limit": limit})["decisions"]
        return [decision(row) for row in rows]

    def tokens(self, name: str) -> list[Token]:
        """Return the tokens of the endpoint of a deployment, by name. Raises as `get`."""
        return [views.build(Token, row) for row in self._transport.json("GET", _path(name, "tokens"))["tokens"]]

    def create_token(self, name: str, token: str, *, expires_in: float | None = None) -> Token:
        """Create a token that may only call the endpoint of a deployment. It cannot be read again: store it.

        Args:
            name: the deployment.
            token: name of the token, such as that of its user.
            expires_in: seconds until it is refused; None: never.

        Raises:
            NotFoundError: the deployment does not exist or has no endpoint.
            RefusedError: the name of the token is taken.
        """
        body = {"name": token, "expires_in": expires_in}
        return views.build(Token, self._transport.json("POST", _path(name, "tokens"), body=body))

    def revoke_token(self, name: str, token: str) -> None:
        """Revoke a token of the endpoint of a deployment: requests with it are refused from now on. Raises as `get`."""
        self._transport.json("DELETE", _path(name, f"tokens/{quote(token, safe='')}"))

    def test(self, name: str, event: Mapping[str, Any]) -> list[Decision]:
        """Return what the triggers of a deployment would decide on an event. Nothing is stored, no run starts.

        Args:
            name: the deployment.
            event: a CloudEvent as JSON; `id` and `source` may be omitted.
        """
        rows = self._transport.json("POST", _path(name, "test"), body={"event": dict(event)})["decisions"]
        return [decision(row) for row in rows]

    def test_notifications(self, name: str, rule: str | None = None) -> list[NotificationTest]:
        """Send a test notification for each rule of a deployment, or for one.

        Raises:
            NotFoundError: there is no deployment of this name, or no such rule.
        """
        rows = self._transport.json("POST", _path(name, "notifications/test"), query={"rule": rule})["tests"]
        return [views.build(NotificationTest, row) for row in rows]

    def notification_rules(self) -> list[dict[str, Any]]:
        """Return the rules by which runs of all deployments of the project notify, beside those of each deployment."""
        return self._transport.json("GET", "/v1/notifications/rules")["rules"]

    def set_notification_rules(self, rules: Sequence[Notify | Mapping[str, Any]], *, dry_run: bool = False) -> None:
        """Replace the rules of the project.

        Args:
            rules: `Notify` objects, or JSON as `notification_rules` returns it.
            dry_run: check them, and change nothing.

        Raises:
            RefusedError: a rule is not valid.
        """
        plain = [one for one in rules if not isinstance(one, Notify)]
        given = [*notify.definitions([one for one in rules if isinstance(one, Notify)]), *map(dict, plain)]
        self._transport.json("PUT", "/v1/notifications/rules", body={"rules": given, "dry_run": dry_run})

    def test_project_notifications(self, rule: str | None = None) -> list[NotificationTest]:
        """Send a test notification for each rule of the project, or for one.

        Raises:
            NotFoundError: there is no such rule.
        """
        rows = self._transport.json("POST", "/v1/notifications/test", query={"rule": rule})["tests"]
        return [views.build(NotificationTest, row) for row in rows]

    def replay(
        self,
        name: str,
        *,
        since: float | datetime | None = None,
        until: float | datetime | None = None,
        event: str | int = "",
        revision: int | None = None,
        version: int | None = None,
        limit: int = 100,
        decisions_only: bool = False,
        idempotency_key: str | None = None,
    ) -> Replay:
        """Drive past events through a revision of a deployment in isolated runs; return it beside what happened.

        Its runs have the label `shadow`, register no models and cause no events. This does not wait for them.

        Args:
            name: the deployment.
            since: replay events that were stored at this time or later; Unix seconds or a `datetime`.
            until: and before this time; default now.
            event: replay one event instead, by its sequence or digest.
            revision: of the deployment; default the latest.
            version: of the pipeline, also an experiment; default as the revision says.
            limit: most events, oldest first, at most 1000.
            decisions_only: only compare the decisions, and run nothing.
            idempotency_key: a repeated key starts no run twice; default a new key.

        Raises:
            NotFoundError: the deployment, the revision, the version or the event does not exist.
            RefusedError: neither `since` nor `event` is given, or the revision has no triggers.
        """
        body = {
            "revision": revision,
            "version": version,
            "since": _seconds(since),
            "until": _seconds(until),
            "event": str(event),
            "limit": limit,
            "decisions_only": decisions_only,
        }
        headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)}
        row = self._transport.json("POST", _path(name, "replay"), body=body, headers=headers)
        found = tuple(_replayed(one) for one in row["decisions"])
        return views.build(
            Replay, row, decisions=found, runs=tuple(views.build(ReplayedRun, one) for one in row["runs"])
        )


def _replayed(row: Mapping[str, Any]) -> ReplayedDecision:
    sides = {side: decision(row[side]) if row[side] else None for side in ("before", "after")}
    return views.build(ReplayedDecision, row, **sides)


def _seconds(at: float | datetime | None) -> float | None:
    return at.timestamp() if isinstance(at, datetime) else at


def decision(row: Mapping[str, Any]) -> Decision:
    """Return a decision from its JSON."""
    clauses = tuple(views.build(Clause, one) for one in row.get("clauses") or ())
    return views.build(Decision, row, clauses=clauses)


def _path(name: str, verb: str = "") -> str:
    return f"/v1/deployments/{quote(name, safe='')}" + (f"/{verb}" if verb else "")
