"""The rules of a project, and test notifications: one for each rule of a deployment or project, at once and once."""

from __future__ import annotations

import asyncio
import time

from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.notification_log import NotificationLog
from penstock_contracts.deployments import (
    NotificationTest,
    NotificationTests,
    ProjectRules,
    RulesBody,
    parse_rules,
)
from penstock_core import notifications
from penstock_core.deployments.definition import Problem
from penstock_core.deployments.notify_rules import NotifyRule, rules_problems
from penstock_core.errors import InvalidInputsError
from penstock_core.notifications import Scope
from penstock_gateway.errors import NotFoundError
from penstock_gateway.notifications.sender import NotificationSender, NotSentError


class RuleTests:
    """Keeps the rules of one project, and tests them and those of its deployments."""

    def __init__(
        self, deployments: DeploymentLog, log: NotificationLog, sender: NotificationSender, project: str
    ) -> None:
        self._deployments = deployments
        self._log = log
        self._sender = sender
        self._project = project

    async def rules(self) -> ProjectRules:
        """Return the rules of the project."""
        rules, _ = await self._log.rules(self._project)
        return ProjectRules(rules=list(rules))

    async def set_rules(self, body: RulesBody) -> ProjectRules:
        """Replace the rules of the project.

        Raises:
            InvalidInputsError: with everything that is wrong in them.
        """
        problems: list[Problem] = []
        rules = parse_rules(body.rules, problems)
        if not problems:
            problems += rules_problems(rules)
        if not problems:
            for n, rule in enumerate(rules):
                found = await self._sender.problems(rule, self._project, "")
                problems += [(f"notify[{n}].{field}", message) for field, message in found]
        if problems:
            raise InvalidInputsError("Invalid rules of the project", problems)
        if not body.dry_run:
            await self._log.put_rules(self._project, rules)
        return ProjectRules(rules=list(rules))

    async def send_of_project(self, rule: str | None) -> NotificationTests:
        """Send a test notification for each rule of the project, or for one, and return which were accepted.

        Raises:
            NotFoundError: it has no such rule.
        """
        rules, _ = await self._log.rules(self._project)
        found = [one for one in rules if rule in (None, one.name)]
        if rule is not None and not found:
            known = ", ".join(one.name for one in rules) or "none"
            raise NotFoundError(f"The project has no rule {rule[:100]!r}", f"its rules: {known}")
        return NotificationTests(
            tests=await asyncio.gather(*(self._test("example", "example", one, "project") for one in found))
        )

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

    async def _test(self, name: str, pipeline: str, rule: NotifyRule, scope: Scope = "deployment") -> NotificationTest:
        due = notifications.example(self._project, name, pipeline, scope, rule, time.time())
        try:
            refused = await self._sender.send(due, rule)
        except NotSentError as error:
            return NotificationTest(rule=rule.name, kind=rule.kind, sent=False, error=str(error))
        error = f"the SMTP server refused {', '.join(refused)}" if refused else ""
        return NotificationTest(rule=rule.name, kind=rule.kind, sent=True, error=error)
