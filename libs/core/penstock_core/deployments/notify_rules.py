"""Rules of notifications: whom a deployment notifies of what, with which text. Pure."""

from __future__ import annotations

import enum
import re
import string
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from penstock_core import ids
from penstock_core.deployments.webhooks import secret_problems
from penstock_core.errors import InvalidIdError
from penstock_core.frozen import frozen

RULES_LIMIT = 20
"""Maximum number of rules of a deployment."""

RECIPIENTS_LIMIT = 50
"""Maximum number of addresses of an e-mail."""

TEMPLATE_LIMIT = 2_000
"""Maximum length of a template, in characters."""

TEXT_LIMIT = 8_000
"""Maximum length of a text that is sent, in characters."""

SUBJECT_LIMIT = 200
"""Maximum length of the subject of an e-mail, in characters."""

URL_LIMIT = 2_000

FIELDS = (
    "on",
    "project",
    "deployment",
    "pipeline",
    "version",
    "run",
    "state",
    "reason",
    "duration",
    "failures",
    "dropped",
    "time",
)
"""What templates can contain, as `{run}`."""

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}\Z")

_Problem = tuple[str, str]


class NotifyKind(enum.StrEnum):
    """How somebody is notified."""

    WEBHOOK = "webhook"
    """An HTTP request signed as Standard Webhooks says (https://www.standardwebhooks.com)."""
    SLACK = "slack"
    """An incoming webhook of Slack, or of a chat that takes the same."""
    EMAIL = "email"
    """An e-mail by the SMTP server of the platform."""


class NotifyOn(enum.StrEnum):
    """What somebody is notified of."""

    FAILED = "failed"
    """A run failed."""
    LATE = "late"
    """A run is late, as the deployment defines it."""
    RECOVERED = "recovered"
    """A run succeeded, and the one before failed."""
    SUCCEEDED = "succeeded"
    """A run succeeded."""
    DRIFT = "drift"
    """The data of the deployment drifted."""


DEFAULT_ON = (NotifyOn.FAILED, NotifyOn.LATE, NotifyOn.RECOVERED)


@frozen(kw_only=True)
class NotifyRule:
    """Whom a deployment notifies of what.

    Attributes:
        name: names the rule within its deployment.
        on: what is notified.
        url: of `webhook`: where it is sent.
        secret: reference to the secret, such as `secret:slack`. Of `webhook` it signs the requests; of `slack` it is
            the URL.
        to: of `email`: the addresses.
        subject: template of the subject of e-mails; empty: a default.
        text: template of the text; empty: a default.
        throttle: seconds in which the same notification is not repeated.
    """

    name: str
    kind: NotifyKind
    on: tuple[NotifyOn, ...] = DEFAULT_ON
    url: str = ""
    secret: str = ""
    to: tuple[str, ...] = ()
    subject: str = ""
    text: str = ""
    throttle: float = 300.0


def rules_problems(rules: tuple[NotifyRule, ...]) -> Iterator[_Problem]:
    """What is wrong in the rules of a deployment, each with its path from `notify` on."""
    if len(rules) > RULES_LIMIT:
        yield "notify", f"has {len(rules)} rules; the limit is {RULES_LIMIT}"
    names = [rule.name for rule in rules]
    for n, rule in enumerate(rules):
        if rule.name in names[:n]:
            yield f"notify[{n}].name", f"another rule is called {rule.name!r}"
        for field, message in _rule_problems(rule):
            yield f"notify[{n}].{field}", message


def _rule_problems(rule: NotifyRule) -> Iterator[_Problem]:
    try:
        ids.check_name(rule.name, "rule")
    except InvalidIdError as error:
        yield "name", str(error)
    if not rule.on:
        yield "on", f"is empty: use some of {', '.join(NotifyOn)}"
    if not 0 <= rule.throttle <= 30 * 86400:
        yield "throttle", "must be between 0 seconds (no limit) and 30 days"
    yield from _target_problems(rule)
    for field in ("subject", "text"):
        yield from _template_problems(field, getattr(rule, field))


def _target_problems(rule: NotifyRule) -> Iterator[_Problem]:
    taken = {
        NotifyKind.WEBHOOK: ("url", "secret"),
        NotifyKind.SLACK: ("secret",),
        NotifyKind.EMAIL: ("to", "subject"),
    }[rule.kind]
    for field in ("url", "secret", "to", "subject"):
        if getattr(rule, field) and field not in taken:
            advice = ": put the URL into the secret, because it lets anybody post" if field == "url" else ""
            yield field, f"does not apply to {rule.kind.value}{advice}"
    if rule.kind is NotifyKind.EMAIL:
        if not 1 <= len(rule.to) <= RECIPIENTS_LIMIT:
            yield "to", f"must have 1 to {RECIPIENTS_LIMIT} addresses"
        for address in rule.to:
            if not _ADDRESS.match(address):
                yield "to", f"{address[:100]!r} is not an e-mail address such as ada@example.com"
        return
    if rule.kind is NotifyKind.WEBHOOK:
        problem = url_problem(rule.url)
        if problem:
            yield "url", problem
    yield from secret_problems(rule.secret)


def url_problem(url: str) -> str:
    """Return why a URL cannot be posted to; empty if it can."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > URL_LIMIT:
        return f"must be a URL of at most {URL_LIMIT} ASCII characters"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be a URL such as https://example.com/hooks/penstock"
    if parts.username is not None or parts.password is not None:
        return "must not contain a user or a password: requests are signed"
    return ""


# ------------------------------------------------------------------------------------------------------------ templates


def _template_problems(field: str, template: str) -> Iterator[_Problem]:
    if len(template) > TEMPLATE_LIMIT:
        yield field, f"has {len(template)} characters; the limit is {TEMPLATE_LIMIT}"
        return
    try:
        parts = [*string.Formatter().parse(template)]
    except ValueError as error:
        yield field, f"is not a template: {error}; write {{{{ and }}}} for braces"
        return
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in FIELDS:
            yield field, f"has the unknown field {{{name[:50]}}} (fields: {', '.join(FIELDS)})"
        elif spec or conversion:
            yield field, f"write {{{name}}} without a format"


def render(template: str, fields: Mapping[str, str]) -> str:
    """Fill in the fields of a valid template; a field without a value is empty."""
    found = ""
    for text, name, _, _ in string.Formatter().parse(template):
        found += text
        if name is not None:
            found += fields.get(name, "")
    return found
