"""Notifications of deployments: which ones are due for an event, and what is sent. Pure.

The events of a deployment are decided on in the order of the stream. `State` has what earlier events left: how many
runs have failed since the last good one, and when each notification was sent last. So a run that succeeds after a
failed one is a recovery, and the same notification is not repeated within the throttle of its rule.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, ClassVar, Literal, cast

from penstock_core import ids, run_events
from penstock_core.deployments.decisions import EventRef, event_ref
from penstock_core.deployments.events import Event, event_digest
from penstock_core.deployments.notify_rules import (
    SUBJECT_LIMIT,
    TEXT_LIMIT,
    NotifyOn,
    NotifyRule,
    render,
)
from penstock_core.facts import RunFinished
from penstock_core.frozen import frozen
from penstock_core.run_events import RUN_LATE

DRIFT_DETECTED = "penstock.drift.detected.v1"
"""Type of the event about data that drifted."""

EVENT_TYPES = (RunFinished.ce_type, RUN_LATE, DRIFT_DETECTED)
"""Types of the events for which notifications can be due."""

RETRY_FIRST = 1.0
RETRY_LONGEST = 3600.0
"""Seconds between the first two attempts to deliver a notification, and the longest time between two."""

Scope = Literal["deployment", "project"]
"""Whose rule it is."""

_FIELD_LIMIT = 1_000
_TEST = "penstock/test"
_SUBJECTS = {
    NotifyOn.FAILED: "{deployment}: run failed",
    NotifyOn.LATE: "{deployment}: run is late",
    NotifyOn.RECOVERED: "{deployment}: recovered",
    NotifyOn.SUCCEEDED: "{deployment}: run succeeded",
    NotifyOn.DRIFT: "{deployment}: data drifted",
}
_TEXTS = {
    NotifyOn.FAILED: "Run {run} of deployment {deployment} ({pipeline} v{version}) failed: {reason}",
    NotifyOn.LATE: "Run {run} of deployment {deployment} is late: {reason}",
    NotifyOn.RECOVERED: (
        "Run {run} of deployment {deployment} ({pipeline} v{version}) succeeded. Failed runs before: {failures}"
    ),
    NotifyOn.SUCCEEDED: "Run {run} of deployment {deployment} ({pipeline} v{version}) succeeded after {duration}",
    NotifyOn.DRIFT: "The data of deployment {deployment} drifted: {reason}",
}
_DROPPED = "\n{dropped} equal notifications were dropped since the last one."
_SPACE = re.compile(r"\s+")


@frozen(kw_only=True)
class Sent:
    """A notification that was due: when, in Unix seconds, and how many equal ones were dropped since."""

    at: float
    dropped: int = 0


@frozen(kw_only=True)
class State:
    """What the events of a deployment left for the next ones.

    Attributes:
        sequence: of the last event that was decided on.
        failures: runs that failed since the last one that succeeded.
        sent: the last notification, by `SCOPE/RULE/ON`.
    """

    sequence: int = 0
    failures: int = 0
    sent: dict[str, Sent] = field(default_factory=dict[str, Sent])


@frozen(kw_only=True)
class NotificationDue:
    """Somebody is to be notified. The rule says whom, as it is when the notification is sent.

    Attributes:
        scope: whose rule it is.
        fields: the values of the template.
        at: when the event was stored, in Unix seconds.
    """

    ce_type: ClassVar[str] = "penstock.notification.due.v1"
    append_once: ClassVar[bool] = True

    project: str
    deployment: str
    scope: Scope
    rule: str
    on: NotifyOn
    event: EventRef
    fields: dict[str, str]
    at: float

    def __post_init__(self) -> None:
        ids.check_name(self.project, "project")
        ids.check_name(self.deployment, "deployment")
        ids.check_name(self.rule, "rule")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity: an event is notified at most once by each rule."""
        return f"{self.project}.{self.deployment}.{self.scope}.{self.rule}.{self.event.digest}"

    @property
    def id(self) -> str:
        """Identifies the notification for its receiver, however often it is sent."""
        return f"msg_{hashlib.sha256(self.tail.encode()).hexdigest()[:32]}"


# --------------------------------------------------------------------------------------------------------------- decide


def deployment_of(event: Event) -> str:
    """Return the deployment that an event is about; empty if it is about none, or others than Penstock sent it."""
    found = _data(event).get("deployment")
    # Steps send events, too, but only the platform knows how a run ended.
    drift = event.type == DRIFT_DETECTED and event.source == run_events.STEPS_SOURCE
    known = drift or event.source == run_events.SOURCE
    return found if known and isinstance(found, str) and ids.is_name(found) else ""


def decide(
    state: State, event: Event, rules: Mapping[tuple[Scope, str], NotifyRule]
) -> tuple[State, list[NotificationDue]]:
    """Return the notifications that are due for an event, and the state after it.

    Args:
        state: of the deployment that the event is about.
        event: it was stored after those that are in the state; one that is in the state is known and changes nothing.
        rules: those of the deployment and of the project, by scope and name.
    """
    if event.sequence <= state.sequence:
        return state, []
    kinds = _kinds(event, state.failures)
    failed = kinds == (NotifyOn.FAILED,)
    succeeded = NotifyOn.SUCCEEDED in kinds
    failures = state.failures + 1 if failed else state.failures
    sent = dict(state.sent)
    due: list[NotificationDue] = []
    for (scope, name), rule in rules.items():
        on = next((kind for kind in kinds if kind in rule.on), None)
        if on is None:
            continue
        key = f"{scope}/{name}/{on}"
        last = sent.get(key)
        if last is not None and event.received_at < last.at + rule.throttle:
            sent[key] = replace(last, dropped=last.dropped + 1)
            continue
        fields = _fields(event, on, failures, last.dropped if last else 0)
        sent[key] = Sent(at=event.received_at)
        due.append(
            NotificationDue(
                project=event.project,
                deployment=deployment_of(event),
                scope=scope,
                rule=name,
                on=on,
                event=event_ref(event),
                fields=fields,
                at=event.received_at,
            )
        )
    if succeeded or failed:
        # What is no longer so is no repetition when it is so again.
        ended = (NotifyOn.FAILED, NotifyOn.LATE) if succeeded else (NotifyOn.SUCCEEDED, NotifyOn.RECOVERED)
        sent = {key: one for key, one in sent.items() if key.rpartition("/")[2] not in ended}
    return State(sequence=event.sequence, failures=0 if succeeded else failures, sent=sent), due


def _kinds(event: Event, failures: int) -> tuple[NotifyOn, ...]:
    """What an event is a notification of; the first one that a rule has counts."""
    match event.type, _data(event).get("state"):
        case RunFinished.ce_type, "failed":
            return (NotifyOn.FAILED,)
        case RunFinished.ce_type, "succeeded":
            return (NotifyOn.RECOVERED, NotifyOn.SUCCEEDED) if failures else (NotifyOn.SUCCEEDED,)
        case type, _ if type == RUN_LATE:
            return (NotifyOn.LATE,)
        case type, _ if type == DRIFT_DETECTED:
            return (NotifyOn.DRIFT,)
        case _:
            return ()


def _fields(event: Event, on: NotifyOn, failures: int, dropped: int) -> dict[str, str]:
    data = _data(event)
    duration = data.get("duration")
    found = {
        "on": on.value,
        "project": event.project,
        "deployment": deployment_of(event),
        "pipeline": data.get("pipeline"),
        "version": data.get("version"),
        "run": data.get("run_id"),
        "state": data.get("state"),
        "reason": data.get("error") or data.get("reason"),
        "duration": f"{duration:.1f} s" if isinstance(duration, int | float) else "",
        "failures": failures,
        "dropped": dropped,
        "time": event.time,
    }
    return {name: _shortened("" if value is None else str(value), _FIELD_LIMIT) for name, value in found.items()}


def _data(event: Event) -> dict[str, Any]:
    return cast("dict[str, Any]", event.data) if isinstance(event.data, dict) else {}


# ----------------------------------------------------------------------------------------------------------------- send


def example(project: str, deployment: str, pipeline: str, scope: Scope, rule: NotifyRule, at: float) -> NotificationDue:
    """Return a notification that tests a rule."""
    on = rule.on[0]
    id = f"{scope}/{rule.name}/{at:.6f}"
    digest = event_digest(project, _TEST, id)
    reference = EventRef(digest=digest, sequence=0, type=_TEST, source=_TEST, id=id, received_at=at)
    fields = {
        "on": on.value,
        "project": project,
        "deployment": deployment,
        "pipeline": pipeline,
        "version": "1",
        "run": "test",
        "reason": "this is a test",
        "duration": "1.0 s",
        "failures": "1",
        "dropped": "0",
    }
    return NotificationDue(
        project=project,
        deployment=deployment,
        scope=scope,
        rule=rule.name,
        on=on,
        event=reference,
        fields=fields,
        at=at,
    )


def subject(due: NotificationDue, rule: NotifyRule) -> str:
    """Return the subject of an e-mail, as one line."""
    found = render(rule.subject or _SUBJECTS[due.on], due.fields)
    return _shortened(
        _SPACE.sub(" ", "".join(letter if letter.isprintable() else " " for letter in found)), SUBJECT_LIMIT
    )


def text(due: NotificationDue, rule: NotifyRule) -> str:
    """Return the text of a notification."""
    return _text(due, rule, due.fields)


def slack_body(due: NotificationDue, rule: NotifyRule) -> dict[str, Any]:
    """Return the body of a message to Slack. Values are escaped: `<!channel>` in an error does not call everybody."""
    escaped = {
        name: value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        for name, value in due.fields.items()
    }
    return {"text": _text(due, rule, escaped)}


def webhook_body(due: NotificationDue, rule: NotifyRule, time: str) -> dict[str, Any]:
    """Return the body of a webhook, as Standard Webhooks recommends. `time` is in RFC 3339."""
    numbers = ("version", "failures", "dropped")
    data = {
        name: int(value) if name in numbers and value.isdecimal() else value
        for name, value in due.fields.items()
        if name != "time"
    }
    return {
        "type": f"penstock.notification.{due.on.value}.v1",
        "timestamp": time,
        "data": {**data, "event": due.event.digest, "text": text(due, rule)},
    }


def retry_delay(age: float) -> float:
    """Return the seconds until a failed delivery is tried again: as long as it has been tried already, within bounds.

    It depends on the age of the notification only, so restarts of the platform use up no attempts.
    """
    return min(max(age, RETRY_FIRST), RETRY_LONGEST)


def _text(due: NotificationDue, rule: NotifyRule, fields: Mapping[str, str]) -> str:
    template = rule.text or _TEXTS[due.on] + (_DROPPED if fields.get("dropped", "0") != "0" else "")
    return _shortened(render(template, fields), TEXT_LIMIT)


def _shortened(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 1] + "…"
