"""Notifications: what is due for an event, repetitions, templates, texts."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import notifications
from penstock_core.deployments import webhooks
from penstock_core.deployments.events import Event
from penstock_core.deployments.notify_rules import (
    FIELDS,
    SUBJECT_LIMIT,
    TEXT_LIMIT,
    NotifyKind,
    NotifyOn,
    NotifyRule,
    render,
    rules_problems,
)
from penstock_core.facts import RunFinished
from penstock_core.notifications import DRIFT_DETECTED, NotificationDue, State, decide
from penstock_core.run_events import RUN_LATE

ALL = tuple(NotifyOn)
MAIL = NotifyRule(name="mail", kind=NotifyKind.EMAIL, to=("ada@example.com",))


def end(n: int, state: str = "failed", at: float = 0.0, **data: Any) -> Event:
    given = {"run_id": f"r{n}", "pipeline": "training", "version": 3, "deployment": "nightly", "state": state} | data
    return event(n, RunFinished.ce_type, given, at)


def event(n: int, type: str, data: Any, at: float = 0.0, source: str = "penstock/runs") -> Event:
    return Event(
        project="default",
        type=type,
        source=source,
        id=f"{type}-{n}",
        data=data,
        sequence=n,
        received_at=at or 1000.0 * n,
    )


def play(rule: NotifyRule, *events: Event, state: State | None = None) -> tuple[State, list[NotificationDue]]:
    state, found = state or State(), []
    for one in events:
        state, due = decide(state, one, {("deployment", rule.name): rule})
        found += due
    return state, found


def notified(rule: NotifyRule, *events: Event) -> list[tuple[str, str]]:
    return [(due.on.value, due.fields["run"]) for due in play(rule, *events)[1]]


def test_failed_runs_and_the_first_good_one_after_them_are_notified() -> None:
    rule = replace(MAIL, throttle=0.0)
    events = [
        end(1, "succeeded"),
        end(2),
        end(3),
        end(4, "succeeded"),
        end(5, "succeeded"),
        end(6, "cancelled"),
        end(7),
    ]
    assert notified(rule, *events) == [("failed", "r2"), ("failed", "r3"), ("recovered", "r4"), ("failed", "r7")]
    [recovered] = [due for due in play(rule, *events)[1] if due.on is NotifyOn.RECOVERED]
    assert recovered.fields["failures"] == "2"


def test_a_rule_gets_one_notification_of_an_event() -> None:
    both = replace(MAIL, on=ALL)
    assert notified(both, end(1), end(2, "succeeded"), end(3, "succeeded")) == [
        ("failed", "r1"),
        ("recovered", "r2"),
        ("succeeded", "r3"),
    ]
    assert notified(replace(MAIL, on=(NotifyOn.SUCCEEDED,)), end(1), end(2, "succeeded")) == [("succeeded", "r2")]


def test_repetitions_within_the_throttle_are_dropped_and_counted() -> None:
    rule = replace(MAIL, throttle=300.0)
    found = play(rule, end(1, at=100.0), end(2, at=200.0), end(3, at=399.9), end(4, at=400.0))[1]
    assert [(due.fields["run"], due.fields["dropped"]) for due in found] == [("r1", "0"), ("r4", "2")]
    assert notifications.text(found[1], rule).endswith("2 equal notifications were dropped since the last one.")


def test_a_failure_after_a_recovery_is_no_repetition() -> None:
    rule = replace(MAIL, throttle=300.0)
    events = [end(1, at=100.0), end(2, "succeeded", at=110.0), end(3, at=120.0), end(4, "succeeded", at=130.0)]
    assert notified(rule, *events) == [("failed", "r1"), ("recovered", "r2"), ("failed", "r3"), ("recovered", "r4")]
    only = replace(rule, on=(NotifyOn.FAILED,))
    assert notified(only, *events) == [("failed", "r1"), ("failed", "r3")]


def test_an_event_that_is_delivered_again_changes_nothing() -> None:
    state, _ = play(MAIL, end(1), end(2))
    assert decide(state, end(2), {("deployment", "mail"): MAIL}) == (state, [])
    assert decide(state, end(1), {("deployment", "mail"): MAIL})[0] is state


@given(st.lists(st.sampled_from(["failed", "succeeded", "cancelled", "skipped"]), max_size=30), st.data())
def test_deciding_again_after_a_crash_gives_the_same_notifications(states: list[str], data: st.DataObject) -> None:
    rule = replace(MAIL, on=ALL, throttle=2500.0)
    events = [end(n, state) for n, state in enumerate(states, 1)]
    state, found = State(), {}
    for one in events:
        after, due = decide(state, one, {("deployment", "mail"): rule})
        again, repeated = decide(state, one, {("deployment", "mail"): rule})
        assert (again, [x.tail for x in repeated]) == (after, [x.tail for x in due])
        found |= {x.tail: x for x in due}
        state = after
    kinds = [due.on for due in found.values()]
    # Whatever happened, a recovery follows a failure that was notified.
    for before, after in zip([None, *kinds], kinds, strict=False):
        if after is NotifyOn.RECOVERED:
            assert before is NotifyOn.FAILED


def test_late_runs_and_drift_are_notified() -> None:
    late = event(1, RUN_LATE, {"deployment": "nightly", "run_id": "r1", "reason": "not finished"})
    drift = event(2, DRIFT_DETECTED, {"deployment": "nightly", "reason": "psi 0.4"}, source="penstock/steps")
    found = play(replace(MAIL, on=ALL), late, drift)[1]
    assert [(due.on.value, due.fields["reason"]) for due in found] == [("late", "not finished"), ("drift", "psi 0.4")]


@pytest.mark.parametrize(
    "wrong",
    [
        event(1, RunFinished.ce_type, {"deployment": "nightly", "state": "failed"}, source="acme"),
        event(1, RunFinished.ce_type, {"deployment": "nightly", "state": "failed"}, source="penstock/steps"),
        event(1, DRIFT_DETECTED, {"deployment": "nightly"}, source="acme"),
        event(1, DRIFT_DETECTED, {"deployment": "nightly"}, source="penstock/cli"),
        event(1, RunFinished.ce_type, {"deployment": "a b", "state": "failed"}),
        event(1, RunFinished.ce_type, {"deployment": 7, "state": "failed"}),
        event(1, RunFinished.ce_type, ["failed"]),
        event(1, RunFinished.ce_type, None),
    ],
)
def test_events_that_are_about_no_deployment(wrong: Event) -> None:
    assert notifications.deployment_of(wrong) == ""


def test_rules_of_a_deployment_and_of_the_project_do_not_meet() -> None:
    rules: Any = {("deployment", "mail"): MAIL, ("project", "mail"): MAIL}
    _, due = decide(State(), end(1), rules)
    assert len({one.tail for one in due}) == 2
    assert len({one.id for one in due}) == 2


# ----------------------------------------------------------------------------------------------------------------- text


def due(**fields: str) -> NotificationDue:
    [found] = play(MAIL, end(1))[1]
    return replace(found, fields=found.fields | fields)


def test_values_of_a_message_to_slack_are_escaped_and_those_of_the_template_are_not() -> None:
    rule = NotifyRule(name="chat", kind=NotifyKind.SLACK, secret="secret:url", text="<!here> {reason}")
    found = notifications.slack_body(due(reason="<!channel> a & b"), rule)
    assert found == {"text": "<!here> &lt;!channel&gt; a &amp; b"}


def test_a_subject_is_one_short_line() -> None:
    found = notifications.subject(
        due(reason="a\r\nBcc: eve@example.com\x1b[2J" + "x" * 900), replace(MAIL, subject="{reason}")
    )
    assert "\n" not in found
    assert "\r" not in found
    assert "\x1b" not in found
    assert len(found) == SUBJECT_LIMIT


def test_texts_are_bounded() -> None:
    rule = replace(MAIL, text="{reason}" * 100)
    [found] = play(rule, end(1, error="x" * 60_000))[1]
    assert len(found.fields["reason"]) == 1000
    assert len(notifications.text(found, rule)) == TEXT_LIMIT


def test_the_body_of_a_webhook() -> None:
    rule = NotifyRule(name="hook", kind=NotifyKind.WEBHOOK, url="https://example.com", secret="secret:key")
    body = notifications.webhook_body(due(reason="it broke"), rule, "2026-01-01T00:00:00.000Z")
    assert body["type"] == "penstock.notification.failed.v1"
    assert body["data"]["version"] == 3
    assert body["data"]["run"] == "r1"
    assert body["data"]["text"] == "Run r1 of deployment nightly (training v3) failed: it broke"


def test_a_signature_is_what_standard_webhooks_says() -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    body = b'{"a":1}'
    now = int(datetime.now(UTC).timestamp())
    headers = webhooks.sign(secret.encode(), "msg_1", now, body)
    assert standardwebhooks.Webhook(secret).verify(body, headers) == {"a": 1}


# ------------------------------------------------------------------------------------------------------------ templates


def test_templates_have_named_fields_only() -> None:
    assert render("{{{run}}} {deployment}", {"run": "r1"}) == "{r1} "
    for wrong, expected in {
        "{run.__class__}": "unknown field",
        "{run[0]}": "unknown field",
        "{}": "unknown field",
        "{0}": "unknown field",
        "{run!r}": "without a format",
        "{run:>1000000000}": "without a format",
        "{run:{reason}}": "without a format",
        "{run": "is not a template",
        "x" * 2001: "the limit is 2000",
    }.items():
        [(path, message)] = rules_problems((replace(MAIL, text=wrong),))
        assert path == "notify[0].text"
        assert expected in message, wrong


@given(st.text(max_size=200))
def test_whatever_the_template_it_is_refused_or_rendered(template: str) -> None:
    if not [*rules_problems((replace(MAIL, text=template),))]:
        render(template, dict.fromkeys(FIELDS, "x"))


HOOK = NotifyRule(name="hook", kind=NotifyKind.WEBHOOK, url="https://example.com/x", secret="secret:key")
SLACK = NotifyRule(name="chat", kind=NotifyKind.SLACK, secret="secret:slack")


def test_valid_rules() -> None:
    assert [*rules_problems((MAIL, HOOK, SLACK))] == []


@pytest.mark.parametrize(
    ("rule", "path", "message"),
    [
        (replace(MAIL, name="a b"), "name", "use 1 to 100"),
        (replace(MAIL, on=()), "on", "is empty"),
        (replace(MAIL, to=()), "to", "1 to 50 addresses"),
        (replace(MAIL, to=("ada",)), "to", "is not an e-mail address"),
        (replace(MAIL, to=("ada@example.com\nBcc: eve@example.com",)), "to", "is not an e-mail address"),
        (replace(MAIL, url="https://example.com"), "url", "does not apply to email"),
        (replace(MAIL, throttle=-1.0), "throttle", "between 0 seconds"),
        (replace(HOOK, url="ftp://example.com"), "url", "must be a URL such as"),
        (replace(HOOK, url="https://a:b@example.com"), "url", "must not contain a user"),
        (replace(HOOK, url="https://example.com/\r\nx"), "url", "ASCII"),
        (replace(HOOK, url="https://example.com:99999"), "url", "is not a URL"),
        (replace(HOOK, secret=""), "secret", "must be a reference"),
        (replace(HOOK, secret="whsec_abc="), "secret", "not the secret itself"),
        (replace(HOOK, to=("ada@example.com",)), "to", "does not apply to webhook"),
        (replace(SLACK, url="https://hooks.slack.com/x"), "url", "put the URL into the secret"),
    ],
)
def test_invalid_rules(rule: NotifyRule, path: str, message: str) -> None:
    found = [*rules_problems((rule,))]
    assert [(at, text) for at, text in found if at == f"notify[0].{path}" and message in text], found


def test_names_are_unique_and_rules_are_bounded() -> None:
    assert ("notify[1].name", "another rule is called 'mail'") in [*rules_problems((MAIL, MAIL))]
    many = tuple(replace(MAIL, name=f"m{n}") for n in range(21))
    assert ("notify", "has 21 rules; the limit is 20") in [*rules_problems(many)]


def test_a_failed_delivery_is_tried_again_later_and_later() -> None:
    assert [notifications.retry_delay(age) for age in (0.0, 0.5, 60.0, 7200.0)] == [1.0, 1.0, 60.0, 3600.0]
