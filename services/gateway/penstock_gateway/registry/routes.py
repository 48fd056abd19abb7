"""`/v1/models`: registered models, their versions, aliases and gates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts.models import ArchiveBody, GateBody, PromoteBody, RegisterModelBody
from penstock_core.registry.facts import MOST
from penstock_gateway.http import bodies
from penstock_gateway.http.common import json, service
from penstock_gateway.http.docs import describe
from penstock_gateway.runs import model_registration

router = APIRouter(prefix="/v1/models", tags=["models"])

Name = Annotated[str, Path(description="name of a model")]
Alias = Annotated[str, Path(description="name of an alias, such as champion")]
Which = Annotated[str, Path(description="number of a version, or `latest`")]
Number = Annotated[int, Path(description="number of a version", ge=1, le=MOST)]

_BODY = (400, 413, 415, 422)


def _dumped(model: BaseModel, status: int = 200) -> Response:
    return json(model.model_dump_json().encode(), status)


@router.get("", summary="List models", openapi_extra=describe(the_models_200="ModelList"))
async def list_models(request: Request) -> Response:
    """All registered models of the project, by name."""
    return _dumped(await service(request).registry.list())


@router.get("/{name}", summary="Read a model", openapi_extra=describe(the_model_200="ModelView", problems=(404, 422)))
async def read_model(request: Request, name: Name) -> Response:
    """Its versions, the newest first, and its aliases with their gates."""
    return _dumped(await service(request).registry.get(name))


@router.get(
    "/{name}/history",
    summary="Read what happened to a model",
    openapi_extra=describe(the_history_200="ModelHistory", problems=(404, 422)),
)
async def read_model_history(request: Request, name: Name) -> Response:
    """All that happened to it, in order: who, when, and why."""
    return _dumped(await service(request).registry.history(name))


@router.post(
    "/{name}/versions",
    status_code=201,
    summary="Register a version of a model",
    openapi_extra=describe(
        body="RegisterModelBody",
        it_was_there_200="RegisteredModel",
        registered_201="RegisteredModel",
        problems=(404, 409, *_BODY),
    ),
)
async def register_model_version(request: Request, name: Name) -> Response:
    """Makes a version of an output of a step. The same output of the same attempt is the same version.

    Where the gate of the alias refuses, the version is there without the alias, and `refused` says why.
    """
    found = await model_registration.register(service(request), name, await bodies.read(request, RegisterModelBody))
    return _dumped(found, 201 if found.created else 200)


@router.get(
    "/{name}/versions/{which}",
    summary="Read a version of a model",
    openapi_extra=describe(the_version_200="ModelVersionView", problems=(404, 422)),
)
async def read_model_version(request: Request, name: Name, which: Which) -> Response:
    """By its number, or the latest that is offered."""
    return _dumped(await service(request).registry.version(name, which))


@router.post(
    "/{name}/versions/{number}/archive",
    summary="Archive a version of a model",
    openapi_extra=describe(
        body="ArchiveBody", required=False, the_version_200="ModelVersionView", problems=(404, 409, *_BODY)
    ),
)
async def archive_model_version(request: Request, name: Name, number: Number) -> Response:
    """It is not offered any more, or again with `archived: false`. Its artifact stays, and so does its history."""
    body = await bodies.read(request, ArchiveBody, optional=True)
    return _dumped(await service(request).registry.archive(name, number, body))


@router.get(
    "/{name}/aliases/{alias}",
    summary="Read the version that an alias stands for",
    openapi_extra=describe(the_version_200="ModelVersionView", problems=(404, 422)),
)
async def read_model_alias(request: Request, name: Name, alias: Alias) -> Response:
    """The version that it stands for now."""
    return _dumped(await service(request).registry.at_alias(name, alias))


@router.put(
    "/{name}/aliases/{alias}",
    summary="Have an alias stand for a version",
    openapi_extra=describe(body="PromoteBody", the_alias_200="PromotionResult", problems=(404, 409, *_BODY)),
)
async def promote_model(request: Request, name: Name, alias: Alias) -> Response:
    """409 where the version does not pass the gate: `errors` holds each comparison with its numbers."""
    body = await bodies.read(request, PromoteBody)
    return _dumped(await service(request).registry.promote(name, alias, body))


@router.delete(
    "/{name}/aliases/{alias}",
    status_code=204,
    summary="Remove an alias of a model",
    openapi_extra=describe(removed_204=None, problems=(404, 422)),
)
async def remove_model_alias(
    request: Request,
    name: Name,
    alias: Alias,
    reason: Annotated[str, Query(description="why", max_length=4000)] = "",
    by: Annotated[str, Query(description="who asks for it", max_length=200)] = "",
) -> Response:
    """It stands for nothing any more. Its history stays."""
    await service(request).registry.remove_alias(name, alias, reason, by)
    return Response(status_code=204)


@router.put(
    "/{name}/gates/{alias}",
    summary="Guard an alias of a model",
    openapi_extra=describe(body="GateBody", the_model_200="ModelView", problems=_BODY),
)
async def put_model_gate(request: Request, name: Name, alias: Alias) -> Response:
    """Every move of the alias has to pass the gate from now on. An empty one removes it."""
    return _dumped(await service(request).registry.set_gate(name, alias, await bodies.read(request, GateBody)))
