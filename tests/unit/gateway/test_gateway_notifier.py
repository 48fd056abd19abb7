"""Notifications that wait for another attempt, when gateways share the deliveries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from penstock_adapters.nats import notification_log
from penstock_adapters.nats.consumer import Delivery
from penstock_core import notifications
from penstock_core.deployments.notify_rules import NotifyKind, NotifyRule
from penstock_gateway.notifications.notifier import Notifier
from penstock_gateway.notifications.sender import NotSentError
from penstock_servicekit.durable_worker import RetryLaterError

RULE = NotifyRule(name="hook", kind=NotifyKind.WEBHOOK, url="https://example.com", secret="secret:s")
DUE = notifications.example("default", "nightly", "train", "deployment", RULE, 0.0)


class Surroundings:
    """A deployment with one rule, a receiver that never answers, and the dead letters."""

    def __init__(self) -> None:
        self.letters: list[int] = []
        self.now = 0.0
        self.current = SimpleNamespace(definition=SimpleNamespace(notify=(RULE,)))

    async def get(self, project: str, name: str) -> Any:
        return self

    async def send(self, due: Any, rule: Any) -> list[str]:
        raise NotSentError("no answer")

    async def add_notification(self, delivery: Delivery, due: Any, error: str) -> None:
        self.letters.append(delivery.stream_seq)


async def test_notifications_that_another_gateway_took_over_do_not_count_as_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decode(delivery: Delivery) -> notifications.NotificationDue:
        return DUE

    monkeypatch.setattr(notification_log, "decode", decode)
    around: Any = Surroundings()
    context: Any = SimpleNamespace(bus=None, log=None)
    notifier = Notifier(context, around, around, around, around, patience=3600.0, clock=lambda: around.now)

    async def fails(sequence: int) -> None:
        delivery: Any = SimpleNamespace(stream_seq=sequence, at=around.now, subject="", data=b"")
        await notifier._deliver(delivery)  # pyright: ignore[reportPrivateUsage]

    for sequence in range(100):
        with pytest.raises(RetryLaterError):
            await fails(sequence)
    await fails(100)
    assert around.letters == [100]  # a hundred wait
    around.now = 300.0  # none of them came again: another gateway has them
    with pytest.raises(RetryLaterError):
        await fails(101)
    assert around.letters == [100]
