"""Lists dead letters, sends them again, and discards them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.dead_letters import DeadLetter, DeadLetters
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.notification_log import NotificationLog
from penstock_contracts import deployment_codec, event_codec
from penstock_contracts.dead_letters import DeadLetterList, DeadLetterSummary, DeadLetterView, Replayed
from penstock_core.deployments import events
from penstock_core.deployments.definition import event_subject
from penstock_core.notifications import NotificationDue
from penstock_gateway.errors import ConflictError, NotFoundError

_EVENTS = "events."
_NOTIFICATIONS = "notifications."


class DeadLetterService:
    """Dead letters. Without a project: all; else those of the project alone, whose subject names it."""

    def __init__(self, bus: Bus, letters: DeadLetters, stream: EventStream, notifications: NotificationLog) -> None:
        self._bus = bus
        self._letters = letters
        self._stream = stream
        self._notifications = notifications

    async def list(self, project: str | None, limit: int, before: int | None) -> DeadLetterList:
        """Return dead letters before a number, newest first."""
        found = await self._letters.newest(limit + 1, before, lambda one: _is_of(one, project))
        more = found[limit - 1].number if len(found) > limit else None
        return DeadLetterList(dead_letters=[DeadLetterSummary(**_fields(one)) for one in found[:limit]], before=more)

    async def get(self, project: str | None, number: int) -> DeadLetterView:
        """Return a dead letter with its message.

        Raises:
            NotFoundError: it does not exist.
        """
        found = await self._find(project, number)
        shown = DeadLetterView(**_fields(found), headers=found.parked.headers)
        try:
            return shown.model_copy(update={"data": orjson.loads(found.body)})
        except orjson.JSONDecodeError:
            return shown.model_copy(update={"text": found.body.decode(errors="replace")})

    async def replay(self, project: str | None, number: int) -> Replayed:
        """Send an event or a notification again: a rejected event to its trigger, as the deployment is now.

        Doing it again after a lost answer starts no second run: the event has an id of its own, and the same one.

        Raises:
            NotFoundError: it does not exist.
            ConflictError: it is neither.
        """
        found = await self._find(project, number)
        parked = found.parked
        if parked.subject.startswith(_NOTIFICATIONS):
            due = deployment_codec.read(parked.subject, NotificationDue.ce_type, found.body)
            if isinstance(due, NotificationDue):
                await self._notifications.repeat(due)
                await self._letters.delete(number)
                return Replayed(event=0)
        if not parked.subject.startswith(_EVENTS):
            raise ConflictError(
                "Only events and notifications can be replayed", f"{parked.subject} is neither; discard it"
            )
        if parked.deployment or parked.invalid:
            event = event_codec.read(parked.subject, parked.headers, found.body, found.at, parked.seq)
            target = {events.TARGET: event_subject(parked.deployment, parked.trigger)} if parked.deployment else {}
            # Several triggers may have rejected the event: each replay is an event of its own.
            id = f"{event.id}/replay-{number}"
            again = replace(event, id=id, extensions={**event.extensions, **target})
            sequence, _ = await self._stream.publish(again)
        else:
            headers = {**parked.headers, "Nats-Msg-Id": f"replay.{number}"}
            sequence = int((await self._bus.publish(parked.subject, found.body, headers))["seq"])
        await self._letters.delete(number)
        return Replayed(event=sequence)

    async def discard(self, project: str | None, number: int) -> None:
        """Remove a dead letter.

        Raises:
            NotFoundError: it does not exist.
        """
        await self._find(project, number)
        await self._letters.delete(number)

    async def _find(self, project: str | None, number: int) -> DeadLetter:
        found = await self._letters.get(number)
        if found is None or not _is_of(found, project):
            raise NotFoundError(
                f"Dead letter {number} does not exist", "it was replayed or discarded, or the id is wrong: list them"
            )
        return found


def _is_of(found: DeadLetter, project: str | None) -> bool:
    """Return whether a dead letter belongs to a project. Unreadable facts of runs belong to none."""
    return project is None or found.parked.subject.startswith((f"{_EVENTS}{project}.", f"{_NOTIFICATIONS}{project}."))


def _fields(found: DeadLetter) -> dict[str, Any]:
    parked = found.parked
    is_event = parked.subject.startswith(_EVENTS)
    rejected = "rejected" if is_event else "undelivered"
    return {
        "id": found.number,
        "kind": rejected if parked.deployment or parked.invalid else "unreadable",
        "at": found.at,
        "service": parked.service,
        "subject": parked.subject,
        "error": parked.error,
        "deployment": parked.deployment,
        "trigger": parked.trigger,
        "event": parked.seq if is_event and parked.seq else None,
        "type": parked.subject.split(".", 2)[-1] if is_event else "",
    }
