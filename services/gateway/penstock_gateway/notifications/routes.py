"""`/v1/notifications`: the rules of a project. `/v1/deployments/{name}/notifications`: test those of a deployment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from penstock_contracts.deployments import NotificationTests, ProjectRules, RulesBody
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.notifications.rule_tests import RuleTests

router = APIRouter(tags=["deployments"], route_class=JsonRoute, responses=COMMON)

Tests = Annotated[RuleTests, feature(RuleTests)]
Rule = Annotated[str | None, Query(description="only this rule", json_schema_extra=NAMED)]

_READ = [requires(Permission.DEPLOYMENTS_READ)]
_WRITE = [requires(Permission.DEPLOYMENTS_WRITE)]


@router.get("/v1/notifications/rules", summary="Get the notification rules of the project", dependencies=_READ)
async def get_rules(tests: Tests) -> ProjectRules:
    """Whom runs of all deployments of the project notify of what, in addition to the rules of each deployment."""
    return await tests.rules()


@router.put(
    "/v1/notifications/rules",
    summary="Replace the notification rules of the project",
    dependencies=_WRITE,
    responses=problems(*BODY),
)
async def set_rules(tests: Tests, body: RulesBody) -> ProjectRules:
    """They apply to events from now on, and to notifications that are not delivered yet."""
    return await tests.set_rules(body)


@router.post(
    "/v1/notifications/test",
    summary="Send test notifications of the project",
    dependencies=_WRITE,
    responses=problems(404),
)
async def test_rules(tests: Tests, rule: Rule = None) -> NotificationTests:
    """Sends a notification for each rule of the project, once, and returns whether its receiver accepted it."""
    return await tests.send_of_project(rule)


@router.post(
    "/v1/deployments/{name}/notifications/test",
    summary="Send test notifications",
    dependencies=_WRITE,
    responses=problems(404),
)
async def test_notifications(
    tests: Tests,
    name: Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)],
    rule: Rule = None,
) -> NotificationTests:
    """Sends a notification for each rule of the deployment, once, and returns whether its receiver accepted it."""
    return await tests.send(name, rule)
