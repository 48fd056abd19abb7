"""Deployments over HTTP: their definitions as JSON, their revisions, and what they decided on events."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

import pydantic
from pydantic import BaseModel, Field

from penstock_contracts.bodies import INTEGER_LIMIT, RequestBody
from penstock_core import durations
from penstock_core.deployments.decisions import Outcome
from penstock_core.deployments.definition import (
    CronTrigger,
    Definition,
    EndpointTrigger,
    EventTrigger,
    Late,
    Trigger,
    WebhookTrigger,
    Window,
)
from penstock_core.deployments.notify_rules import NotifyKind, NotifyRule
from penstock_core.deployments.partitions import Partitions
from penstock_core.errors import InvalidInputsError
from penstock_core.json_schema import kind


class DeploymentBody(RequestBody):
    """Create or update a deployment."""

    definition: dict[str, Any] = Field(description="what runs, and what starts it; see deployment.schema.json")
    revision: int | None = Field(
        default=None,
        ge=0,
        lt=INTEGER_LIMIT,
        description="the revision that you have read, 0 for a new one; another is refused",
    )
    dry_run: bool = Field(default=False, description="check it, and change nothing")
    candidate: int | None = Field(
        default=None,
        ge=1,
        lt=INTEGER_LIMIT,
        description="with `dry_run`: a version of the pipeline to check it with, as if that was published now",
    )


class DeploymentChange(RequestBody):
    """Pause, resume or delete a deployment."""

    reason: str = Field(default="", max_length=4_000)
    revision: int | None = Field(
        default=None, ge=0, lt=INTEGER_LIMIT, description="the revision that you have read; another is refused"
    )


class RollbackBody(RequestBody):
    """Restore the definition of an earlier revision, as a new revision."""

    to: int = Field(ge=1, lt=INTEGER_LIMIT, description="the revision whose definition is restored")
    revision: int | None = Field(
        default=None, ge=0, lt=INTEGER_LIMIT, description="the revision that you have read; another is refused"
    )


class DeploymentRunBody(RequestBody):
    """Run a deployment now."""

    inputs: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="inputs by parameter, which override those of the deployment"
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str], max_length=64, description="labels in addition to those of the deployment"
    )
    partition: str = Field(default="", max_length=200, description="key of the partition that the run computes")


class DeploymentView(BaseModel):
    """A deployment as it is now."""

    name: str
    revision: int
    definition: Definition
    paused: bool = False
    by: str = Field(default="", description="the principal that changed it last")
    at: float = Field(default=0.0, description="when, in Unix seconds")
    next: dict[str, float] = Field(
        default_factory=dict[str, float], description="the next tick of each cron trigger, in Unix seconds"
    )
    changed: bool = Field(default=False, description="whether this request changed it")


class DeploymentList(BaseModel):
    """Deployments by name."""

    deployments: list[DeploymentView]


class RevisionView(BaseModel):
    """A revision of a deployment. `change` is `applied`, `paused`, `resumed` or `deleted`."""

    revision: int
    change: str
    by: str = ""
    at: float = 0.0
    reason: str = ""
    restores: int = Field(default=0, description="the revision that it was rolled back to; 0 if it was not")
    definition: Definition | None = None


class RevisionList(BaseModel):
    """All revisions of a deployment, oldest first."""

    name: str
    revisions: list[RevisionView]


class TicksView(BaseModel):
    """The next ticks of the cron triggers of a deployment, in Unix seconds, by name of the trigger."""

    ticks: dict[str, list[float]]


class ClauseView(BaseModel):
    """A part of a filter. `holds` is null if it could not be evaluated; `error` says why."""

    text: str
    holds: bool | None
    values: dict[str, Any] = Field(default_factory=dict[str, Any])
    error: str = ""


class DecisionView(BaseModel):
    """The decision of a trigger on an event."""

    deployment: str
    trigger: str
    revision: int
    outcome: Outcome
    run_id: str | None = None
    error: str = ""
    clauses: list[ClauseView] = Field(default_factory=list[ClauseView])
    key: str = ""
    window: int = Field(default=0, description="the window that the event is part of, counted from 1 for each key")
    start_at: float | None = Field(default=None, description="when the run starts, in Unix seconds")
    waits_for: str = Field(default="", description="what an open window, or the queued run, waits for")
    inputs: dict[str, Any] | None = Field(default=None, description="inputs of the run; only in tests of a trigger")
    event: str = Field(default="", description="digest of the event")
    at: float = 0.0


class EventView(BaseModel):
    """A stored event."""

    digest: str
    sequence: int
    type: str
    source: str
    id: str
    time: str = ""
    subject: str = ""
    extensions: dict[str, Any] = Field(default_factory=dict[str, Any])
    received_at: float
    data: Any = None


class EventList(BaseModel):
    """Events, newest first. `before` is the sequence to continue with; null at the end."""

    events: list[EventView]
    before: int | None = None


class ExplanationView(BaseModel):
    """An event, and what the deployments of the project decided on it."""

    event: EventView
    decisions: list[DecisionView]


class DecisionList(BaseModel):
    """Stored decisions, newest first."""

    decisions: list[DecisionView]


class RulesBody(RequestBody):
    """Replace the notification rules of the project."""

    rules: list[dict[str, Any]] = Field(description="as `notify` of a deployment; see deployment.schema.json")
    dry_run: bool = Field(default=False, description="check them, and change nothing")


class ProjectRules(BaseModel):
    """The notification rules of a project, which apply to runs of all of its deployments."""

    rules: list[NotifyRule]


class NotificationTest(BaseModel):
    """A test notification: whether its receiver accepted it. Otherwise `error` says why it did not."""

    rule: str
    kind: NotifyKind
    sent: bool
    error: str = ""


class NotificationTests(BaseModel):
    """Test notifications, in the order of the rules."""

    tests: list[NotificationTest]


class TestBody(RequestBody):
    """An event to try on a deployment: nothing is stored, no run starts."""

    __test__ = False

    event: dict[str, Any] = Field(description="a CloudEvent; id and source may be omitted")


class ReplayBody(RequestBody):
    """Drive past events through a revision of a deployment, or through another version of its pipeline."""

    revision: int | None = Field(
        default=None, ge=1, lt=INTEGER_LIMIT, description="of the deployment; default the latest"
    )
    version: int | None = Field(
        default=None, ge=1, lt=INTEGER_LIMIT, description="of the pipeline, also an experiment; default as the revision"
    )
    since: float | None = Field(default=None, ge=0, lt=1e11, description="events stored at this time or later")
    until: float | None = Field(default=None, ge=0, lt=1e11, description="events stored before this time")
    event: str = Field(default="", max_length=100, description="only this event: its sequence or digest")
    limit: int = Field(default=100, ge=1, le=1000, description="most events, oldest first")
    decisions_only: bool = Field(default=False, description="only compare the decisions, and run nothing")


class ReplayedDecision(BaseModel):
    """The decisions of a trigger on an event: `before` is what really happened, `after` what the revision decides."""

    event: int = Field(description="sequence of the event")
    type: str
    at: float = Field(description="when the event was stored, in Unix seconds")
    trigger: str
    before: DecisionView | None = Field(description="null: the deployment had no such trigger")
    after: DecisionView | None = Field(description="null: the revision has no such trigger")
    differs: bool


class ReplayedRun(BaseModel):
    """A run of a replay, beside the one that really ran."""

    event: int = Field(description="sequence of its event, the last one of a window")
    trigger: str
    run_id: str | None = Field(
        default=None, description="the run of the replay; null if it cannot run, or nothing runs"
    )
    error: str = Field(default="", description="why it cannot run")
    before: str | None = Field(default=None, description="the run that the deployment really started for the event")


class ReplayView(BaseModel):
    """A replay of events. `truncated`: more events match; continue at the time of the last one."""

    id: str
    deployment: str
    revision: int
    pipeline: str
    version: int
    events: int
    truncated: bool
    decisions: list[ReplayedDecision]
    runs: list[ReplayedRun]


# -------------------------------------------------------------------------------------------------------------- parsing

_KINDS: dict[str, type[Trigger]] = {
    "event": EventTrigger,
    "cron": CronTrigger,
    "endpoint": EndpointTrigger,
    "webhook": WebhookTrigger,
}
_DURATIONS = ("every", "jitter", "seconds", "deadline", "wait", "idle", "throttle", "after")
_TIMES = ("start", "end")
_ADAPTERS: dict[type[Any], pydantic.TypeAdapter[Any]] = {}


def parse_definition(found: Any) -> Definition:
    """Return a definition from JSON. Durations may be written as `10m`, times in RFC 3339.

    Raises:
        InvalidInputsError: with the path of everything that is unknown, missing or of the wrong type.
    """
    errors: list[tuple[str, str]] = []
    if not isinstance(found, dict):
        raise _invalid([("definition", f"must be an object, not {kind(found)}")])
    given = cast("dict[str, Any]", found)
    triggers = given.get("triggers", [])
    parsed: list[Any] = []
    if isinstance(triggers, list):
        for n, one in enumerate(cast("list[Any]", triggers)):
            parsed.append(_trigger(f"triggers[{n}]", one, errors))
    else:
        errors.append(("triggers", f"must be a list, not {kind(triggers)}"))
    notify = parse_rules(given.get("notify", []), errors)
    rest = {name: value for name, value in given.items() if name not in ("triggers", "notify")}
    for name, shape in (("partitions", Partitions), ("late", Late)):
        if isinstance(rest.get(name), dict):
            rest[name] = _parsed(shape, f"{name}.", rest[name], errors)
    definition = _parsed(Definition, "", rest, errors)
    if errors or definition is None:
        raise _invalid(errors)
    return dataclasses.replace(definition, triggers=tuple(parsed), notify=notify)


def parse_rules(found: Any, errors: list[tuple[str, str]]) -> tuple[NotifyRule, ...]:
    """Return the rules of notifications from JSON; adds to `errors` what is wrong, with its path."""
    if not isinstance(found, list):
        errors.append(("notify", f"must be a list, not {kind(found)}"))
        return ()
    parsed: list[NotifyRule] = []
    for n, one in enumerate(cast("list[Any]", found)):
        if isinstance(one, dict):
            parsed.append(_parsed(NotifyRule, f"notify[{n}].", cast("dict[str, Any]", one), errors))
        else:
            errors.append((f"notify[{n}]", f"must be an object, not {kind(one)}"))
    return tuple(parsed)


def _trigger(path: str, found: Any, errors: list[tuple[str, str]]) -> Any:
    if not isinstance(found, dict):
        errors.append((path, f"must be an object, not {kind(found)}"))
        return None
    given = cast("dict[str, Any]", found)
    shape = _KINDS.get(str(given.get("kind")))
    if shape is None:
        errors.append((f"{path}.kind", f"must be one of {', '.join(_KINDS)}"))
        return None
    window = given.get("window")
    if isinstance(window, dict):
        given = {**given, "window": _parsed(Window, f"{path}.window.", cast("dict[str, Any]", window), errors)}
        if given["window"] is None:
            return None
    return _parsed(shape, f"{path}.", given, errors)


def _parsed(shape: type[Any], path: str, given: Mapping[str, Any], errors: list[tuple[str, str]]) -> Any:
    known = [field.name for field in dataclasses.fields(shape)]
    unknown = [name for name in given if name not in known]
    errors += [(f"{path}{name[:100]}", f"is unknown (fields: {', '.join(known)})") for name in unknown]
    read = {name: value for name, value in given.items() if name in known}
    if shape is Late and isinstance(read.get("steps"), dict):
        read["steps"] = _step_times(path, cast("dict[str, Any]", read["steps"]), errors)
    for name, convert in _conversions(read) if shape is not Partitions else ():
        try:
            read[name] = convert(read[name])
        except ValueError as error:
            errors.append((f"{path}{name}", str(error)))
            del read[name]
    adapter = _ADAPTERS.setdefault(shape, pydantic.TypeAdapter(shape))
    try:
        return adapter.validate_python(read)
    except pydantic.ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in one["loc"])
            errors.append((f"{path}{where}", "is missing" if one["type"] == "missing" else one["msg"]))
        return None


def _step_times(path: str, given: dict[str, Any], errors: list[tuple[str, str]]) -> dict[str, Any]:
    found = dict(given)
    for key, value in given.items():
        if isinstance(value, str):
            try:
                found[key] = _duration(value)
            except ValueError as error:
                errors.append((f"{path}steps.{key[:100]}", str(error)))
                del found[key]
    return found


def _conversions(read: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[str], float]]]:
    for name, value in [*read.items()]:
        if isinstance(value, str) and name in _DURATIONS:
            yield name, _duration
        elif isinstance(value, str) and name in _TIMES:
            yield name, _time


def _duration(text: str) -> float:
    try:
        return durations.parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{text[:50]!r} is not a duration; use one such as '90s', '10m' or '1h30m'") from error


def _time(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text[:50]!r} is not a time; use one such as '2026-01-31T12:00:00Z'") from error
    if found.tzinfo is None:
        raise ValueError(f"{text[:50]!r} has no time zone; add 'Z' or '+01:00'")
    return found.timestamp()


def _invalid(errors: list[tuple[str, str]]) -> InvalidInputsError:
    return InvalidInputsError("Invalid deployment", errors)
