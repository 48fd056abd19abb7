"""`/v1/deployments/{name}/notifications`: test the notifications of a deployment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from penstock_contracts.deployments import NotificationTests
from penstock_core.access import Permission
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.responses import COMMON, problems
from penstock_gateway.notifications.rule_tests import RuleTests

router = APIRouter(prefix="/v1/deployments/{name}/notifications", tags=["deployments"], responses=COMMON)


@router.post(
    "/test",
    summary="Send test notifications",
    dependencies=[requires(Permission.DEPLOYMENTS_WRITE)],
    responses=problems(404),
)
async def test_notifications(
    tests: Annotated[RuleTests, feature(RuleTests)],
    name: Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)],
    rule: Annotated[str | None, Query(description="only this rule", json_schema_extra=NAMED)] = None,
) -> NotificationTests:
    """Sends a notification for each rule of the deployment, once, and returns whether its receiver accepted it."""
    return await tests.send(name, rule)
