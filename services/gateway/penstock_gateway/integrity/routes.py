"""`/v1/admin/integrity`: damages of the streams."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter

from penstock_contracts.api import DamageView, IntegrityView
from penstock_core import integrity
from penstock_core.access import Permission
from penstock_core.integrity import IntegrityRecord
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.responses import COMMON
from penstock_gateway.integrity.auditor import Auditor

router = APIRouter(tags=["platform"])

TheAuditor = Annotated[Auditor, feature(Auditor)]


@router.get(
    "/v1/admin/integrity",
    summary="List damages of the streams",
    dependencies=[requires(Permission.PLATFORM_READ)],
    responses=COMMON,
)
async def read_integrity(auditor: TheAuditor) -> IntegrityView:
    """Messages that the broker has lost, and those of them that were restored."""
    return _view(auditor, await auditor.record())


@router.post(
    "/v1/admin/integrity/verify",
    status_code=202,
    summary="Verify the streams",
    dependencies=[requires(Permission.PLATFORM_ADMIN)],
    responses=COMMON,
)
async def verify_integrity(auditor: TheAuditor) -> IntegrityView:
    """Starts to read all messages of all streams; repairs the log of runs if it lacks facts."""
    auditor.start_verification()
    return _view(auditor, await auditor.record())


@router.post(
    "/v1/admin/integrity/accept",
    summary="Accept damages",
    dependencies=[requires(Permission.PLATFORM_ADMIN)],
    responses=COMMON,
)
async def accept_damages(auditor: TheAuditor) -> IntegrityView:
    """Accepts the loss of the messages that could not be restored: the platform is ready again."""
    return _view(auditor, await auditor.accept())


def _view(auditor: Auditor, record: IntegrityRecord) -> IntegrityView:
    damages = [
        DamageView(
            stream=one.stream,
            kind=one.kind,
            found_at=one.found_at,
            lost=one.lost,
            restored=one.restored,
            accepted=one.accepted,
            open=one.is_open,
            description=integrity.describe(one),
        )
        for one in record.damages
    ]
    return IntegrityView(
        ok=not record.open, verifying=auditor.is_verifying(), repairing=auditor.is_repairing(), damages=damages
    )
