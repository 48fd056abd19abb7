"""`/v1/secrets`. No operation returns a value."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from penstock_contracts.secrets import (
    KeyRotation,
    RotateKeyBody,
    SecretList,
    SecretUsersBody,
    SecretView,
    SetSecretBody,
)
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.principal import By, Project
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.secrets.secrets_service import SecretsService

router = APIRouter(prefix="/v1/secrets", tags=["secrets"], route_class=JsonRoute, responses=COMMON)

Service = Annotated[SecretsService, feature(SecretsService)]
Name = Annotated[str, Path(description="name of the secret", json_schema_extra=NAMED)]

_READ = [requires(Permission.SECRETS_READ)]
_WRITE = [requires(Permission.SECRETS_WRITE)]


@router.get("", summary="List secrets", dependencies=_READ)
async def list_secrets(secrets: Service, project: Project) -> SecretList:
    """All secrets of the project by name, also those that the operator provides, without their values."""
    return await secrets.list(project)


@router.get("/{name}", summary="Get a secret without its value", dependencies=_READ, responses=problems(404))
async def get_secret(secrets: Service, project: Project, name: Name) -> SecretView:
    """Its versions, who may use it, and when it was used last."""
    return await secrets.get(project, name)


@router.put("/{name}", summary="Set a secret", dependencies=_WRITE, responses=problems(409, *BODY))
async def set_secret(secrets: Service, by: By, project: Project, name: Name, body: SetSecretBody) -> SecretView:
    """Adds a version. References without a version get it from now on; running steps keep their value."""
    return await secrets.set(project, name, body.value, by)


@router.put(
    "/{name}/users", summary="Limit who may use a secret", dependencies=_WRITE, responses=problems(404, 409, *BODY)
)
async def allow_secret(secrets: Service, project: Project, name: Name, body: SecretUsersBody) -> SecretView:
    """Replaces the pipelines and deployments that may use it."""
    return await secrets.allow(project, name, body)


@router.delete("/{name}", status_code=204, summary="Delete a secret", dependencies=_WRITE, responses=problems(404, 409))
async def delete_secret(secrets: Service, project: Project, name: Name) -> None:
    """Deletes all versions. Steps that start later and use it fail."""
    await secrets.delete(project, name)


@router.delete(
    "/{name}/versions/{number}",
    status_code=204,
    summary="Delete a version of a secret",
    dependencies=_WRITE,
    responses=problems(404, 409),
)
async def delete_version(
    secrets: Service,
    project: Project,
    name: Name,
    number: Annotated[int, Path(ge=1, le=10**9, description="number of the version")],
) -> None:
    """Its number is not used again."""
    await secrets.delete(project, name, number)


@router.post(
    "/rotate-key",
    summary="Rotate the key of stored secrets",
    dependencies=[requires(Permission.PLATFORM_ADMIN)],
    responses=problems(*BODY),
)
async def rotate_key(secrets: Service, body: RotateKeyBody) -> KeyRotation:
    """Encrypts all stored secrets of all projects with a new key. Repeatable, also after an interruption."""
    return await secrets.rotate_key(drop_old=body.drop_old)
