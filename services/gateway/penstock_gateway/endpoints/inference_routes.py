"""`/v2`: endpoints by the Open Inference Protocol v2, for clients of KServe, Triton and others. JSON only."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from penstock_core.access import Permission
from penstock_core.deployments.definition import Mode
from penstock_core.errors import UnavailableError
from penstock_core.facts import RunFinished
from penstock_core.version import VERSION
from penstock_gateway.endpoints import tensors
from penstock_gateway.endpoints.call_features import CallFeatures
from penstock_gateway.endpoints.warm_calls import check_end
from penstock_gateway.errors import RequestTimeoutError
from penstock_gateway.http import bodies
from penstock_gateway.http.parameters import NAMED, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, content, json_response, problems

router = APIRouter(prefix="/v2", tags=["inference"])

Name = Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)]
Features = Annotated[CallFeatures, feature(CallFeatures)]

_CALL = [requires(Permission.ENDPOINTS_CALL)]
_JSON = content(200, "As the Open Inference Protocol defines it", {"application/json": {"schema": {"type": "object"}}})


@router.get("/health/live", summary="Whether the gateway runs", response_class=Response, responses=_JSON)
async def read_liveness() -> Response:
    """Always true."""
    return json_response({"live": True})


@router.get("/health/ready", summary="Whether the gateway serves models", response_class=Response, responses=_JSON)
async def read_readiness() -> Response:
    """Whether a model is ready is said by its own address."""
    return json_response({"ready": True})


@router.get("", summary="The metadata of the server", response_class=Response, responses=_JSON)
async def read_server() -> Response:
    """Name, version and extensions."""
    return json_response({"name": "penstock", "version": VERSION, "extensions": []})


@router.get(
    "/models/{name}",
    summary="The metadata of an endpoint",
    dependencies=_CALL,
    response_class=Response,
    responses={**COMMON, **_JSON, **problems(404)},
)
async def read_model_metadata(features: Features, name: Name) -> Response:
    """Its inputs as tensors. A length of -1 is any length."""
    endpoint = await features.endpoints.recent(name)
    version = await features.endpoints.version(endpoint)
    return json_response(
        {
            "name": name,
            "versions": [str(version.version)],
            "platform": "penstock",
            "inputs": [tensors.metadata(port.name, port.schema) for port in version.pipeline.params],
            "outputs": tensors.output_metadata(version.pipeline),
        }
    )


@router.get(
    "/models/{name}/ready",
    summary="Whether an endpoint is ready",
    dependencies=_CALL,
    response_class=Response,
    responses={**COMMON, **_JSON, **problems(404)},
)
async def read_model_readiness(features: Features, name: Name) -> Response:
    """Whether it is not paused and, with mode `low_latency`, an executor serves it; else the status is 503."""
    endpoint = await features.endpoints.recent(name)
    if endpoint.definition.mode is Mode.LOW_LATENCY and not endpoint.paused:
        if await features.warm.version(name, endpoint.revisions()) is None:
            raise UnavailableError(f"No executor serves endpoint {name!r} yet")
    elif endpoint.paused:
        raise UnavailableError(f"Deployment {name!r} is paused")
    return json_response({"name": name, "ready": True})


@router.post(
    "/models/{name}/infer",
    summary="Infer",
    dependencies=_CALL,
    response_class=Response,
    responses={**COMMON, **_JSON, **problems(404, 409, 429, 500, 504, *BODY)},
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def infer(features: Features, request: Request, by: By, name: Name) -> Response:
    """Runs the deployment with the input tensors by parameter, and answers with the outputs of the run as tensors."""
    endpoint = await features.endpoints.recent(name)
    seconds = endpoint.trigger.wait or 30.0
    is_warm = endpoint.definition.mode is Mode.LOW_LATENCY
    if is_warm:
        features.endpoints.admit(endpoint)
        features.warm.admit(name, endpoint.trigger.queue)
    else:
        await features.endpoints.admit_call(endpoint, None, by)
    body = await bodies.read_json(request, bodies.JSON_LIMIT)
    if is_warm:
        revisions = endpoint.revisions()
        version = await features.warm.version(name, revisions) or await features.endpoints.version(endpoint)
        inputs = tensors.inputs(body, version.pipeline)
        warm = await features.warm.call(name, revisions, inputs, seconds, by)
        end: RunFinished | None = warm.end
        request_id, answered_by = warm.run_id, warm.version
    else:
        version = await features.endpoints.version(endpoint)
        inputs = tensors.inputs(body, version.pipeline)
        call = await features.endpoints.call(endpoint, inputs, None, seconds, by)
        end, request_id, answered_by = call.end, call.id, version.version
    if end is None:
        raise RequestTimeoutError(f"Endpoint {name!r} did not answer within {seconds:g} s")
    check_end(end)
    link = f"/v1/endpoints/{endpoint.project}/{name}/requests/{request_id}/artifacts/"
    answer: Any = await features.outputs.answer(end, link)
    identity = body.get("id") if isinstance(body.get("id"), str) else secrets.token_hex(8)
    found = tensors.outputs(answer)
    return json_response(
        {"model_name": name, "model_version": str(answered_by), "id": identity, "outputs": found},
        headers={"penstock-run": end.run_id},
    )
