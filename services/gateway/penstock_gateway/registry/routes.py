"""`/v1/models`: registered models, their versions, aliases and gates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query

from penstock_contracts.models import (
    ArchiveBody,
    GateBody,
    ModelHistory,
    ModelList,
    ModelVersionView,
    ModelView,
    PromoteBody,
    PromotionResult,
)
from penstock_core import ids
from penstock_core.access import Permission
from penstock_core.registry.facts import MOST
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.registry.model_registry import Registry

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=JsonRoute, responses=COMMON)

Name = Annotated[str, Path(description="name of the model", json_schema_extra=NAMED)]
ALIASED = {"pattern": f"^(?!latest$)(?![0-9]+$){ids.NAME_PATTERN.removeprefix('^')}"}
Alias = Annotated[str, Path(description="name of the alias, such as champion", json_schema_extra=ALIASED)]
Models = Annotated[Registry, feature(Registry)]

_READ = [requires(Permission.MODELS_READ)]
_PROMOTE = [requires(Permission.MODELS_PROMOTE)]
_ADMIN = [requires(Permission.MODELS_ADMIN)]


@router.get("", summary="List models", dependencies=_READ)
async def list_models(models: Models) -> ModelList:
    """All registered models of the project, by name."""
    return await models.list()


@router.get("/{name}", summary="Get a model", dependencies=_READ, responses=problems(404))
async def read_model(models: Models, name: Name) -> ModelView:
    """Its versions, newest first, and its aliases with their gates."""
    return await models.get(name)


@router.get("/{name}/history", summary="Get the history of a model", dependencies=_READ, responses=problems(404))
async def read_model_history(models: Models, name: Name) -> ModelHistory:
    """All changes of the model in order: who, when, and why."""
    return await models.history(name)


@router.get("/{name}/versions/{which}", summary="Get a model version", dependencies=_READ, responses=problems(404))
async def read_model_version(
    models: Models,
    name: Name,
    which: Annotated[
        str,
        Path(
            description="number of the version, or `latest`",
            json_schema_extra={"pattern": "^([1-9][0-9]{0,14}|latest)$"},
        ),
    ],
) -> ModelVersionView:
    """`latest` is the highest number that is neither archived nor from an experiment."""
    return await models.version(name, which)


@router.post(
    "/{name}/versions/{number}/archive",
    summary="Archive or unarchive a model version",
    dependencies=_ADMIN,
    responses=problems(404, 409, *BODY),
)
async def archive_model_version(
    models: Models,
    name: Name,
    number: Annotated[int, Path(description="number of the version", ge=1, le=MOST)],
    by: By,
    body: Annotated[ArchiveBody, Body(default_factory=ArchiveBody)],
) -> ModelVersionView:
    """An archived version is never `latest` and gets no alias. Its artifact and its history stay."""
    return await models.archive(name, number, body, by)


@router.get(
    "/{name}/aliases/{alias}", summary="Get the model version of an alias", dependencies=_READ, responses=problems(404)
)
async def read_model_alias(models: Models, name: Name, alias: Alias) -> ModelVersionView:
    """The version that the alias points at now."""
    return await models.at_alias(name, alias)


@router.put(
    "/{name}/aliases/{alias}",
    summary="Point an alias at a model version",
    dependencies=_PROMOTE,
    responses=problems(404, 409, *BODY),
)
async def promote_model(models: Models, name: Name, alias: Alias, by: By, body: PromoteBody) -> PromotionResult:
    """Idempotent. 409 if the version does not pass the gate: `errors` has each comparison with its numbers."""
    return await models.promote(name, alias, body, by)


@router.delete(
    "/{name}/aliases/{alias}",
    status_code=204,
    summary="Delete an alias of a model",
    dependencies=_PROMOTE,
    responses=problems(404),
)
async def delete_model_alias(
    models: Models,
    name: Name,
    alias: Alias,
    by: By,
    reason: Annotated[str, Query(description="recorded in the history", max_length=4000)] = "",
) -> None:
    """The version and its history stay."""
    await models.delete_alias(name, alias, reason, by)


@router.put("/{name}/gates/{alias}", summary="Set the gate of an alias", dependencies=_ADMIN, responses=problems(*BODY))
async def put_model_gate(models: Models, name: Name, alias: Alias, by: By, body: GateBody) -> ModelView:
    """Every move of the alias has to pass the gate from now on. An empty gate deletes it."""
    return await models.set_gate(name, alias, body, by)
