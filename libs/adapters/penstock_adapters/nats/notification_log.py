"""Notifications of deployments: the ones that are due, in a stream, and what earlier events left, in a bucket."""

from __future__ import annotations

import pydantic

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.revisions import Message, append_all
from penstock_contracts import deployment_codec, subjects
from penstock_core.deployments.notify_rules import NotifyRule
from penstock_core.notifications import NotificationDue, State

_STATE = pydantic.TypeAdapter(State)
_RULES = pydantic.TypeAdapter(tuple[NotifyRule, ...])


def _rules_key(project: str) -> str:
    return f"=rules.{project}"  # no name of a project has an equals sign, as in keys of states


class NotificationLog:
    """Appends notifications once. `source` names the writer in the CloudEvents envelope."""

    def __init__(self, bus: Bus, source: str) -> None:
        self._bus = bus
        self._source = source
        self._bucket = Bucket(bus, subjects.NOTIFICATIONS_BUCKET)

    async def state(self, project: str, deployment: str) -> tuple[State, int]:
        """Return the state of a deployment and its revision; an unreadable one counts as empty.

        Raises:
            UnavailableError: the bucket does not answer.
        """
        entry = await self._bucket.get_fresh(f"{project}.{deployment}")
        if entry is None:
            return State(), 0
        try:
            return _STATE.validate_json(entry.value), entry.revision
        except pydantic.ValidationError:
            return State(), entry.revision

    async def put_state(self, project: str, deployment: str, state: State, revision: int) -> bool:
        """Replace the state with a revision; returns False if it was replaced meanwhile.

        Raises:
            UnavailableError: no answer; replacing it again is safe.
        """
        body = _STATE.dump_json(state)
        return await self._bucket.put(f"{project}.{deployment}", body, revision) is not None

    async def rules(self, project: str) -> tuple[tuple[NotifyRule, ...], int]:
        """Return the rules of a project and their revision; unreadable ones count as none.

        Raises:
            UnavailableError: the bucket does not answer.
        """
        entry = await self._bucket.get_fresh(_rules_key(project))
        if entry is None:
            return (), 0
        try:
            return _RULES.validate_json(entry.value), entry.revision
        except pydantic.ValidationError:
            return (), entry.revision

    async def put_rules(self, project: str, rules: tuple[NotifyRule, ...]) -> None:
        """Replace the rules of a project.

        Raises:
            UnavailableError: no answer; replacing them again is safe.
        """
        await self._bucket.put(_rules_key(project), _RULES.dump_json(rules))

    async def append(self, due: NotificationDue) -> bool:
        """Append a notification; returns False if it is known.

        Raises:
            UnavailableError: no answer; appending it again is safe.
        """
        return await append_all(self._bus, [Message(deployment_codec.subject(due), *self._encoded(due))])

    async def repeat(self, due: NotificationDue) -> None:
        """Have a known notification sent again."""
        body, headers = self._encoded(due)
        await self._bus.publish(deployment_codec.subject(due), body, headers)

    def _encoded(self, due: NotificationDue) -> tuple[bytes, dict[str, str]]:
        return deployment_codec.encode(due), deployment_codec.headers(due, self._source)


def decode(delivery: Delivery) -> NotificationDue | None:
    """Return the notification of a delivery; None if it is unreadable."""
    found = deployment_codec.read(delivery.subject, delivery.ce_type, delivery.data)
    return found if isinstance(found, NotificationDue) else None
