"""Notifications of deployments: `training.deploy("nightly", notify=[Notify("email", to="ml@acme.com")])`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.authoring import options
from penstock.authoring.options import Duration
from penstock_core.deployments.notify_rules import DEFAULT_ON
from penstock_core.errors import DefinitionError


@dataclass(frozen=True)
class Notify:
    """Notify somebody of the runs of a deployment.

    Attributes:
        kind: `webhook` (signed as Standard Webhooks says), `slack` (or a chat that takes the same) or `email`.
        on: what is notified: "failed", "late", "recovered", "succeeded", "drift"; default: the first three.
        url: of `webhook`: where it is sent.
        secret: reference to the secret, such as "secret:slack": of `webhook` the key that signs requests, of `slack`
            the URL.
        to: of `email`: one or several addresses.
        subject: of `email`: the subject, a template such as "{deployment} failed"; default: a sentence for each `on`.
        text: the text, a template such as "{run}: {reason}"; default: a sentence for each `on`.
        throttle: the same notification is not repeated within this duration; 0: it is always sent.
        name: of the rule.
    """

    kind: str
    on: str | Sequence[str] = tuple(one.value for one in DEFAULT_ON)
    url: str = ""
    secret: str = ""
    to: str | Sequence[str] = ()
    subject: str = ""
    text: str = ""
    throttle: Duration = "5m"
    name: str = ""

    def definition(self, name: str) -> dict[str, Any]:
        """Return the rule as JSON."""
        return {
            "name": self.name or name,
            "kind": self.kind,
            "on": _listed(self.on),
            "url": self.url,
            "secret": self.secret,
            "to": _listed(self.to),
            "subject": self.subject,
            "text": self.text,
            "throttle": options.duration(self.throttle, "throttle") if self.throttle else 0.0,
        }


def definitions(rules: Sequence[Notify]) -> list[dict[str, Any]]:
    """Return rules as JSON. A rule without a name has that of its kind, numbered from the second one on."""
    kinds: list[str] = []
    found: list[dict[str, Any]] = []
    for rule in rules:
        kinds.append(rule.kind)
        count = kinds.count(rule.kind)
        found.append(rule.definition(rule.kind if count == 1 else f"{rule.kind}-{count}"))
    return found


def from_yaml(where: str, listed: Any) -> list[dict[str, Any]]:
    """Return the rules of a `penstock.yaml` as JSON; each is an object with the options of `Notify`.

    Raises:
        DefinitionError: one is not; it begins with `where`.
    """
    if not isinstance(listed, list):
        raise DefinitionError(f"{where}: notify must be a list")
    known = [one.name for one in dataclasses.fields(Notify)]
    rules: list[Notify] = []
    for n, one in enumerate(listed, 1):
        if not isinstance(one, Mapping) or "kind" not in one:
            raise DefinitionError(
                f"{where}: rule {n} of notify must be an object such as {{kind: email, to: a@acme.com}}"
            )
        unknown = [key for key in one if key not in known]
        if unknown:
            raise DefinitionError(
                f"{where}: rule {n} of notify has the unknown option {unknown[0]!r} (options: {', '.join(known)})"
            )
        rules.append(Notify(**one))
    return definitions(rules)


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
