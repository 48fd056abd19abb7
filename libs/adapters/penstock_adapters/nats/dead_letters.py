"""The stream `PARKED`: unreadable messages, events that triggers rejected, and notifications that nobody accepted."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pydantic
from nats.aio.msg import Msg

from penstock_adapters.nats.bus import Bus, BusError
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.newest import newest, sequence
from penstock_contracts import event_codec, subjects
from penstock_contracts.commands import Parked
from penstock_core.deployments.events import Event
from penstock_core.notifications import NotificationDue

_ERROR_LIMIT = 2_000
_NO_MESSAGE = 10037
_NONE = "$schema"
"""Instead of a deployment and a trigger, whose names have no dollar sign."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the stream. `at` is when it was stored, in Unix seconds."""

    number: int
    at: float
    parked: Parked

    @property
    def body(self) -> bytes:
        """The message that could not be processed, or its first 64 KiB."""
        try:
            return base64.b64decode(self.parked.body)
        except binascii.Error:
            return b""


class DeadLetters:
    """Stores, lists and removes dead letters."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def add_invalid(self, event: Event, error: str) -> None:
        """Store an event that does not fit the schema of its type. See `add`."""
        await self._add(event, "", "", error, subjects.letter(event.project, _NONE, event.digest, _NONE))

    async def add(self, event: Event, deployment: str, trigger: str, error: str) -> None:
        """Store an event that a trigger rejected, unless it was stored before: it may have been discarded since.

        Raises:
            UnavailableError: no answer; storing it again is safe.
        """
        mark = subjects.letter(event.project, deployment, event.digest, trigger)
        await self._add(event, deployment, trigger, error, mark)

    async def _add(self, event: Event, deployment: str, trigger: str, error: str, mark: str) -> None:
        if await self._bus.last(subjects.DECISIONS, mark) is not None:
            return
        headers = event_codec.headers(event)
        identity = headers.pop("Nats-Msg-Id")
        parked = Parked(
            service="triggers",
            subject=event_codec.subject(event),
            seq=event.sequence,
            error=error[:_ERROR_LIMIT],
            body=base64.b64encode(event_codec.encode(event)).decode(),
            headers=headers,
            deployment=deployment,
            trigger=trigger,
            invalid=not deployment,
        )
        await self._bus.publish(
            "parked.triggers",
            parked.model_dump_json().encode(),
            {"Nats-Msg-Id": f"rejected.{identity}.{deployment}.{trigger}"},
        )
        await self._bus.publish(mark, b"")

    async def add_notification(self, delivery: Delivery, due: NotificationDue, error: str) -> None:
        """Store a notification that was not accepted.

        Raises:
            UnavailableError: no answer; storing it again is safe.
        """
        parked = Parked(
            service="gateway",
            subject=delivery.subject,
            seq=delivery.stream_seq,
            error=error[:_ERROR_LIMIT],
            body=base64.b64encode(delivery.data).decode(),
            headers={"ce-type": due.ce_type},
            deployment=due.deployment,
            trigger=due.rule,
        )
        identity = {"Nats-Msg-Id": f"undelivered.{delivery.stream_seq}"}
        await self._bus.publish("parked.gateway", parked.model_dump_json().encode(), identity)

    async def newest(
        self, limit: int, before: int | None = None, matches: Callable[[DeadLetter], bool] = lambda one: True
    ) -> list[DeadLetter]:
        """Return dead letters before a number that match, newest first."""

        def read(message: Msg) -> DeadLetter | None:
            found = _read(message)
            return found if found is not None and matches(found) else None

        return await newest(self._bus, subjects.PARKED, "parked.>", read, limit, before)

    async def get(self, number: int) -> DeadLetter | None:
        """Return a dead letter, or None if it does not exist."""
        found = [_read(message) for message in await self._bus.direct_get(subjects.PARKED, {"seq": number, "batch": 1})]
        return found[0] if found and found[0] and found[0].number == number else None

    async def delete(self, number: int) -> None:
        """Remove a dead letter. Removing it again is safe."""
        try:
            await self._bus.api(f"STREAM.MSG.DELETE.{subjects.PARKED}", {"seq": number, "no_erase": True})
        except BusError as error:
            if error.code not in (_NO_MESSAGE, 10057):
                raise


def _read(message: Msg) -> DeadLetter | None:
    try:
        parked = Parked.model_validate_json(message.data)
    except pydantic.ValidationError:
        return None
    at = datetime.fromisoformat((message.headers or {})["Nats-Time-Stamp"]).timestamp()
    return DeadLetter(sequence(message), at, parked)
