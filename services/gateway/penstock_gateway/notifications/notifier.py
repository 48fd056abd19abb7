"""Decides which notifications are due, and delivers them.

In: events about runs of deployments, from the stream EVENTS. Out: notifications, in the stream NOTIFICATIONS, and from
there to their receivers; those that nobody accepts become dead letters.

Promises: events are decided on in the order of the stream, one at a time by all gateways together. A notification is
appended once, before its event is acknowledged, and delivered until it was accepted, so a gateway that is killed loses
none. It is delivered again only if a gateway is killed after it was accepted and before that was recorded; it has the
same id then. A receiver that does not answer harms no other.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from penstock_adapters.nats import event_stream, notification_log
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.dead_letters import DeadLetters
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.notification_log import NotificationLog
from penstock_contracts import subjects
from penstock_contracts.event_codec import InvalidEventError
from penstock_core import notifications
from penstock_core.deployments.definition import Definition
from penstock_core.deployments.events import Event
from penstock_core.deployments.notify_rules import NotifyRule
from penstock_core.errors import UnavailableError
from penstock_core.notifications import NotificationDue, Scope
from penstock_gateway.notifications.sender import NotificationSender, NotSentError
from penstock_servicekit.durable_worker import DurableWorker, RetryLaterError
from penstock_servicekit.service_context import ServiceContext

_TRIES = 10
_CONCURRENCY = 32
_AT_ONCE = 4
"""Notifications of a rule that are delivered at the same time."""

_WAITING = 100
"""Undelivered notifications of a rule that wait for another attempt; further ones are dead letters at once."""

_REDELIVERY = 60.0
"""Seconds by which the next delivery can come later than it is due, on a busy platform."""

_DRAIN = 12.0
"""Seconds that deliveries have to end when the gateway stops: longer than a request can take."""

_Rule = tuple[str, str, Scope, str]


class Notifier:
    """Decides and delivers while it runs; all gateways share the work.

    Args:
        context: of the gateway.
        deployments: the deployments of all projects.
        log: the notifications.
        letters: gets what nobody accepts.
        sender: delivers.
        patience: seconds after which a notification that nobody accepts is a dead letter.
        clock: returns Unix seconds.
    """

    def __init__(
        self,
        context: ServiceContext,
        deployments: DeploymentLog,
        log: NotificationLog,
        letters: DeadLetters,
        sender: NotificationSender,
        patience: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._context = context
        self._deployments = deployments
        self._log = log
        self._letters = letters
        self._sender = sender
        self._patience = patience
        self._clock = clock
        self._sending: Counter[_Rule] = Counter()
        self._waiting: dict[_Rule, dict[int, float]] = {}
        self._workers = [
            DurableWorker(context, subjects.EVENTS, subjects.NOTIFICATIONS_CONSUMER, self._decide, prefetch=2),
            DurableWorker(
                context,
                subjects.NOTIFICATIONS,
                subjects.NOTIFICATIONS_CONSUMER,
                self._deliver,
                prefetch=_CONCURRENCY,
                concurrency=_CONCURRENCY,
                drain=_DRAIN,
            ),
        ]

    async def start(self) -> None:
        """Start to decide and to deliver."""
        for worker in self._workers:
            worker.start()

    async def close(self) -> None:
        """Stop; another gateway goes on, or this one after a restart."""
        for worker in self._workers:
            await worker.stop()

    # ----------------------------------------------------------------------------------------------------------- decide

    async def _decide(self, delivery: Delivery) -> None:
        try:
            event = event_stream.decode(delivery)
        except InvalidEventError:
            return  # the triggers service parks it
        name = notifications.deployment_of(event)
        rules = await self._rules(event, name) if name else {}
        if not rules:
            return
        for _ in range(_TRIES):
            state, revision = await self._log.state(event.project, name)
            after, due = notifications.decide(state, event, rules)
            for one in due:
                await self._log.append(one)
            # Last: an event whose notifications are not all stored is decided on again.
            if after is state or await self._log.put_state(event.project, name, after, revision):
                return
        raise UnavailableError(f"the notifications of deployment {name!r} changed too often: trying again")

    async def _rules(self, event: Event, name: str) -> dict[tuple[Scope, str], NotifyRule]:
        """The rules of the deployment that were in force when the event was stored, and those of its project."""
        deployment = await self._deployments.get(event.project, name)
        snapshot = deployment.at(event.received_at)
        definition = snapshot.definition if snapshot else None
        of_all, _ = await self._log.rules(event.project)
        found: dict[tuple[Scope, str], NotifyRule] = {("deployment", rule.name): rule for rule in _listed(definition)}
        found.update({("project", rule.name): rule for rule in of_all})
        return found

    # ---------------------------------------------------------------------------------------------------------- deliver

    async def _deliver(self, delivery: Delivery) -> None:
        due = notification_log.decode(delivery)
        if due is None:
            await self._context.park(delivery.subject, delivery.data, "unreadable notification", delivery.stream_seq)
            return
        rule = await self._current_rule(due)
        if rule is None:
            self._context.log.info(
                "notification dropped: its rule was removed", deployment=due.deployment, rule=due.rule
            )
            return
        key: _Rule = (due.project, due.deployment, due.scope, due.rule)
        if self._sending[key] >= _AT_ONCE:
            raise RetryLaterError("other notifications of the rule are being sent", 1.0, logging.DEBUG)
        self._sending[key] += 1
        waiting = self._waiting.setdefault(key, {})
        try:
            refused = await self._sender.send(due, rule)
        except NotSentError as error:
            await self._failed(delivery, due, error, waiting)
        else:
            waiting.pop(delivery.stream_seq, None)
            self._context.log.info("notification sent", deployment=due.deployment, rule=due.rule, on=due.on.value)
            if refused:
                self._context.log.warning("recipients were refused", deployment=due.deployment, rule=due.rule)
        finally:
            self._sending[key] -= 1
            if not self._sending[key]:
                del self._sending[key]
                if not waiting:
                    del self._waiting[key]

    async def _failed(
        self, delivery: Delivery, due: NotificationDue, error: NotSentError, waiting: dict[int, float]
    ) -> None:
        now = self._clock()
        age = now - delivery.at
        waiting.pop(delivery.stream_seq, None)
        # Another gateway may have got the next delivery of those that should have come again by now.
        for sequence in [one for one, until in waiting.items() if until < now]:
            del waiting[sequence]
        if error.final or age >= self._patience or len(waiting) >= _WAITING:
            await self._letters.add_notification(delivery, due, str(error))
            return
        delay = notifications.retry_delay(age)
        waiting[delivery.stream_seq] = now + delay + _REDELIVERY
        raise RetryLaterError(f"notification not sent: {error}", delay)

    async def _current_rule(self, due: NotificationDue) -> NotifyRule | None:
        """The rule as it is now: one that was corrected counts for what is not delivered yet."""
        if due.scope == "project":
            rules, _ = await self._log.rules(due.project)
            return next((rule for rule in rules if rule.name == due.rule), None)
        deployment = await self._deployments.get(due.project, due.deployment)
        current = deployment.current.definition if deployment.current else None
        return next((rule for rule in _listed(current) if rule.name == due.rule), None)


def _listed(definition: Definition | None) -> tuple[NotifyRule, ...]:
    return definition.notify if definition else ()
