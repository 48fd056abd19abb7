"""Sends a test notification for each rule of a deployment, at once and once."""

from __future__ import annotations

import asyncio
import time

from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_contracts.deployments import NotificationTest, NotificationTests
from penstock_core import notifications
from penstock_core.deployments.notify_rules import NotifyRule
from penstock_gateway.errors import NotFoundError
from penstock_gateway.notifications.sender import NotificationSender, NotSentError


class RuleTests:
    """Tests the rules of the deployments of one project."""

    def __init__(self, deployments: DeploymentLog, sender: NotificationSender, project: str) -> None:
        self._deployments = deployments
        self._sender = sender
        self._project = project

    async def send(self, name: str, rule: str | None) -> NotificationTests:
        """Send a test notification for each rule, or for one, and return which were accepted.

        Raises:
            NoDeploymentError: the deployment does not exist.
            NotFoundError: it has no such rule.
        """
        definition = (await self._deployments.get(self._project, name)).require()
        rules = [one for one in definition.notify if rule in (None, one.name)]
        if rule is not None and not rules:
            known = ", ".join(one.name for one in definition.notify) or "none"
            raise NotFoundError(f"Deployment {name!r} has no rule {rule[:100]!r}", f"its rules: {known}")
        return NotificationTests(
            tests=await asyncio.gather(*(self._test(name, definition.pipeline, one) for one in rules))
        )

    async def _test(self, name: str, pipeline: str, rule: NotifyRule) -> NotificationTest:
        due = notifications.example(self._project, name, pipeline, "deployment", rule, time.time())
        try:
            refused = await self._sender.send(due, rule)
        except NotSentError as error:
            return NotificationTest(rule=rule.name, kind=rule.kind, sent=False, error=str(error))
        error = f"the SMTP server refused {', '.join(refused)}" if refused else ""
        return NotificationTest(rule=rule.name, kind=rule.kind, sent=True, error=error)
