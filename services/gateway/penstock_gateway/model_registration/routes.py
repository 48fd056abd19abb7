"""`POST /v1/models/{name}/versions`: register an output of a run as a version of a model."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from penstock_contracts.models import RegisteredModel, RegisterModelBody
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.model_registration.model_registration import ModelRegistration

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=JsonRoute, responses=COMMON)


@router.post(
    "/{name}/versions",
    status_code=201,
    summary="Register a model version",
    dependencies=[requires(Permission.MODELS_REGISTER)],
    responses={200: {"model": RegisteredModel, "description": "The version existed"}, **problems(404, 409, *BODY)},
)
async def register_model_version(
    registration: Annotated[ModelRegistration, feature(ModelRegistration)],
    name: Annotated[str, Path(description="name of the model", json_schema_extra=NAMED)],
    by: By,
    body: RegisterModelBody,
    response: Response,
) -> RegisteredModel:
    """Registers an output of a step. The same output of the same attempt is the same version.

    If the gate of the alias refuses, the version is registered without the alias, and `refused` has the reason.
    """
    registered = await registration.register(name, body, by)
    response.status_code = 201 if registered.created else 200
    return registered
