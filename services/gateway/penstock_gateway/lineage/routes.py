"""`/v1/artifacts/{sha256}/lineage`: where an artifact comes from and what used it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from penstock_contracts.api import Lineage
from penstock_core import ids
from penstock_core.access import Permission
from penstock_gateway.http.parameters import Sha256, feature, requires
from penstock_gateway.http.responses import COMMON, json_response, problems
from penstock_gateway.lineage.artifact_lineage import ArtifactLineage

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], responses=COMMON)


@router.get(
    "/{sha256}/lineage",
    summary="Get the lineage of an artifact",
    dependencies=[requires(Permission.ARTIFACTS_READ)],
    response_model=Lineage,
    responses=problems(404),
)
async def read_lineage(lineage: Annotated[ArtifactLineage, feature(ArtifactLineage)], sha256: Sha256) -> Response:
    """The attempts that made it and those that used it, with what they read and made, nearest first."""
    return json_response(await lineage.get(ids.check_digest(sha256)))
