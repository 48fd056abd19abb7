"""`/v1/deployments/{name}/partitions`: the parts of the data of a deployment, and their states."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from penstock_contracts.backfills import AddedPartitions, PartitionKeys, PartitionList, PartitionView
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.partitions.partitions_service import DeploymentPartitions

router = APIRouter(
    prefix="/v1/deployments/{name}/partitions", tags=["backfills"], route_class=JsonRoute, responses=COMMON
)

Name = Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)]
Service = Annotated[DeploymentPartitions, feature(DeploymentPartitions)]

_READ = [requires(Permission.DEPLOYMENTS_READ)]


@router.get("", summary="List partitions", dependencies=_READ, responses=problems(404))
async def list_partitions(
    partitions: Service,
    name: Name,
    first: Annotated[int, Query(ge=0, lt=2**31, description="number of the first one; `next` of a page")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> PartitionList:
    """The partitions of a deployment, oldest first; those of time once their interval has ended."""
    return await partitions.page(name, first, limit)


@router.get("/{key}", summary="Get a partition", dependencies=_READ, responses=problems(404))
async def read_partition(
    partitions: Service, name: Name, key: Annotated[str, Path(max_length=200, description="key of the partition")]
) -> PartitionView:
    """Its state and its latest run. List all of its runs with their label `partition`."""
    return await partitions.get(name, key)


@router.post(
    "",
    summary="Add partitions",
    dependencies=[requires(Permission.DEPLOYMENTS_WRITE)],
    responses=problems(404, *BODY),
)
async def add_partitions(partitions: Service, name: Name, by: By, body: PartitionKeys) -> AddedPartitions:
    """Adds dynamic partitions. Keys that exist are ignored."""
    return await partitions.add(name, body.keys, by)
