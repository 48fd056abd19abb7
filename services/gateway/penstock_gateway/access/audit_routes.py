"""`/v1/audit`: the audit trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from penstock_contracts.audit import AuditOutcome, AuditPage
from penstock_core.access import Permission
from penstock_gateway.access.audit_trail import AuditTrail
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.responses import COMMON

router = APIRouter(prefix="/v1/audit", tags=["access"], responses=COMMON)


@router.get("", summary="List the audit trail", dependencies=[requires(Permission.AUDIT_READ)])
async def list_audit(
    trail: Annotated[AuditTrail, feature(AuditTrail)],
    principal: Annotated[str | None, Query(description="only of this principal")] = None,
    operation: Annotated[str | None, Query(description="only of this operation, such as `request_run`")] = None,
    outcome: Annotated[AuditOutcome | None, Query(description="only with this outcome")] = None,
    since: Annotated[float, Query(ge=0, le=1e12, description="only from this time on, in Unix seconds")] = 0.0,
    until: Annotated[float, Query(ge=0, le=1e12, description="only up to this time, in Unix seconds")] = 1e12,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[
        str | None,
        Query(description="`next` of the page before", json_schema_extra={"pattern": "^[0-9]{1,14}-[0-9]{1,14}$"}),
    ] = None,
) -> AuditPage:
    """Requests that were refused, and those that may change something, newest first; stored within about a second."""
    return await trail.page(
        principal=principal,
        operation=operation,
        outcome=outcome,
        since=since,
        until=until,
        limit=limit,
        cursor=cursor,
    )
