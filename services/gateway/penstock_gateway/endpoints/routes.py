"""`/v1/endpoints`: call deployments as functions over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.datastructures import URL

from penstock_contracts.endpoints import CallPending, EndpointSchema
from penstock_core import ids
from penstock_core.access import Permission
from penstock_core.deployments.definition import WAIT_LIMIT, Mode
from penstock_core.facts import RunFinished
from penstock_core.pipeline.streams import streamed_node
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.endpoints import call_bodies, interface, stream_answers, stream_formats
from penstock_gateway.endpoints.call_features import CallFeatures
from penstock_gateway.endpoints.endpoints_service import Call, Endpoints
from penstock_gateway.endpoints.outputs import Outputs
from penstock_gateway.endpoints.warm_calls import check_end
from penstock_gateway.errors import NotFoundError
from penstock_gateway.http.parameters import NAMED, IdempotencyKey, check_key, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.problems import RequestError
from penstock_gateway.http.responses import BODY, BYTES, COMMON, content, json_response, no_content, problems
from penstock_gateway.settings import GatewaySettings

router = APIRouter(prefix="/v1/endpoints/{project}/{name}", tags=["endpoints"], responses=COMMON)

Project = Annotated[str, Path(description="name of the project", json_schema_extra=NAMED)]
Name = Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)]
RequestId = Annotated[str, Path(description="ID of the request")]
Service = Annotated[Endpoints, feature(Endpoints)]
OutputReader = Annotated[Outputs, feature(Outputs)]
Prefer = Annotated[
    str | None, Header(description="`respond-async`, or `wait=10`: seconds to wait for the run (RFC 7240)")
]
Wait = Annotated[float | None, Query(ge=0, le=WAIT_LIMIT, description="seconds to wait for the run; precedes `Prefer`")]

_CALL = [requires(Permission.ENDPOINTS_CALL)]
_ANSWERS = {
    **content(
        200,
        "The output of the run",
        {
            "application/json": {"schema": {}},
            **{name: {"schema": {"description": text}} for name, text in stream_formats.DESCRIPTIONS.items()},
        },
    ),
    202: {"model": CallPending, "description": "The run has not finished; Location is the status address"},
    **problems(404, 409, 500),
}


@router.post(
    "",
    summary="Call an endpoint",
    dependencies=_CALL,
    responses={**_ANSWERS, **problems(406, 429, 504, *BODY)},
    openapi_extra={"requestBody": {"content": call_bodies.CONTENT}},
)
async def call_endpoint(
    features: Annotated[CallFeatures, feature(CallFeatures)],
    request: Request,
    by: By,
    project: Project,
    name: Name,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
    wait: Wait = None,
) -> Response:
    """Runs the deployment with the inputs in the body, and answers with the output of the run.

    An output whose step yields items is sent item by item if the request prefers server-sent events or lines of JSON to
    JSON: with mode `low_latency` as the step yields them, else when the run has finished.

    A form has an input in each part; files are inputs of type `Path`. If the run takes longer than `wait`, the answer
    is 202 with a status address. Artifacts are links. Requests of one token with the same `Idempotency-Key` are one
    request. The OpenAPI document of an endpoint describes its body and its answer.
    """
    check_key(idempotency_key)
    endpoints, warm = features.endpoints, features.warm
    endpoint = await endpoints.recent(name)
    seconds = _seconds(prefer, wait, endpoint.trigger.wait)
    is_warm = endpoint.definition.mode is Mode.LOW_LATENCY and idempotency_key is None and seconds > 0
    if is_warm:
        endpoints.admit(endpoint)
        warm.admit(name, endpoint.trigger.queue)
    else:
        await endpoints.admit_call(endpoint, idempotency_key, by)
    version = (await warm.version(name, endpoint.revisions()) if is_warm else None) or await endpoints.version(endpoint)
    shape = stream_formats.requested(request.headers.get("accept"), streamed_node(version.pipeline) is not None, name)
    inputs = await call_bodies.read(request, version.pipeline, features.artifacts, features.max_form)
    if is_warm and shape is not None:
        run_id = warm.new_run_id()
        headers = {"location": f"{_path(project, name)}/requests/{run_id}", "penstock-run": run_id}
        parts = warm.stream(run_id, name, endpoint.revisions(), inputs, seconds, by)
        return stream_answers.response(parts, shape, headers)
    if is_warm:
        warm_call = await warm.call(name, endpoint.revisions(), inputs, seconds, by)
        status_url = f"{_path(project, name)}/requests/{warm_call.run_id}"
        return await _response(features.outputs, warm_call.end, status_url, warm_call.run_id)
    call = await endpoints.call(endpoint, inputs, idempotency_key, seconds, by)
    return await _answer(request, features.outputs, call, shape)


@router.get("/requests/{request_id}", summary="Get the answer to a request", dependencies=_CALL, responses={**_ANSWERS})
async def read_request(
    endpoints: Service,
    outputs: OutputReader,
    request: Request,
    project: Project,
    name: Name,
    request_id: RequestId,
    by: By,
    prefer: Prefer = None,
    wait: Wait = None,
) -> Response:
    """The answer that the request would have got if it had waited; 202 while the run has not finished."""
    endpoint = await endpoints.get(name)
    if ids.is_recorded(request_id):
        end = await endpoints.recorded(endpoint, request_id, by)
        return await _response(outputs, end, f"{_path(project, name)}/requests/{request_id}", request_id)
    call = await endpoints.status(endpoint, request_id, _seconds(prefer, wait, 0.0), by)
    return await _answer(request, outputs, call)


@router.get(
    "/requests/{request_id}/artifacts/{sha256}",
    summary="Get an artifact of an answer",
    dependencies=_CALL,
    response_class=Response,
    responses={
        **content(200, "The content", BYTES),
        **no_content(307, "Redirect to a presigned URL of the store"),
        **problems(404, 416),
    },
)
async def read_output_artifact(
    endpoints: Service,
    outputs: OutputReader,
    artifacts: Annotated[Artifacts, feature(Artifacts)],
    request: Request,
    project: Project,
    name: Name,
    request_id: RequestId,
    by: By,
    sha256: Annotated[str, Path(description="SHA-256 of the artifact")],
) -> Response:
    """An artifact to which the output of the run refers."""
    endpoint = await endpoints.get(name)
    if ids.is_recorded(request_id):
        end: RunFinished | None = await endpoints.recorded(endpoint, request_id, by)
    else:
        end = (await endpoints.status(endpoint, request_id, 0.0, by)).end
    found = await outputs.artifact(end, sha256) if end is not None else None
    if found is None:
        raise NotFoundError(f"The answer has no artifact {sha256[:12]!r}", "use the links in the answer")
    return await artifacts.get(request, found.sha256, found)


@router.get("/schema", summary="Get the types of an endpoint", dependencies=_CALL, responses=problems(404))
async def read_schema(endpoints: Service, project: Project, name: Name) -> EndpointSchema:
    """JSON Schema of the body and of the answer, and an example, from the types of the pipeline."""
    endpoint = await endpoints.get(name)
    pipeline = (await endpoints.version(endpoint)).pipeline
    return EndpointSchema(
        input=interface.input_schema(pipeline, endpoint.definition),
        output=interface.output_schema(pipeline),
        example=interface.example(pipeline, endpoint.definition),
        mode=endpoint.definition.mode,
        files=[port.name for port in pipeline.params if interface.is_file(port)],
    )


@router.get(
    "/openapi.json",
    summary="Describe an endpoint",
    dependencies=_CALL,
    response_class=Response,
    responses={**content(200, "OpenAPI 3.1", {"application/json": {"schema": {}}}), **problems(404)},
)
async def read_endpoint_openapi(
    endpoints: Service,
    settings: Annotated[GatewaySettings, feature(GatewaySettings)],
    request: Request,
    project: Project,
    name: Name,
) -> Response:
    """OpenAPI 3.1 of this endpoint alone, to generate clients from."""
    endpoint = await endpoints.get(name)
    pipeline = (await endpoints.version(endpoint)).pipeline
    url = settings.public_url.rstrip("/") or str(URL(scope=request.scope).replace(path="", query="")).rstrip("/")
    return json_response(interface.openapi(name, url, _path(project, name), pipeline, endpoint.definition))


# --------------------------------------------------------------------------------------------------------------- answer


async def _answer(
    request: Request, outputs: Outputs, call: Call, shape: stream_formats.Format | None = None
) -> Response:
    status_url = f"{_path(request.path_params['project'], call.endpoint)}/requests/{call.id}"
    headers = {"location": status_url} | ({"penstock-run": call.run_id} if call.run_id else {})
    if call.end is None:
        pending = CallPending(id=call.id, status_url=status_url, run_id=call.run_id or None)
        return json_response(pending, 202, {**headers, "retry-after": "1"})
    return await _response(outputs, call.end, status_url, call.run_id, shape)


async def _response(
    outputs: Outputs, end: RunFinished, status_url: str, run_id: str, shape: stream_formats.Format | None = None
) -> Response:
    headers = {"location": status_url, "penstock-run": run_id}
    check_end(end)
    answer = await outputs.answer(end, f"{status_url}/artifacts/")
    if shape is not None:
        return stream_answers.whole(answer, run_id, shape, headers)
    return json_response(answer, 200, headers)


def _path(project: str, name: str) -> str:
    return f"/v1/endpoints/{project}/{name}"


def _seconds(prefer: str | None, wait: float | None, default: float) -> float:
    """Return how long a request waits for its run.

    Raises:
        RequestError: 422, `Prefer` has a wait that is no number of seconds.
    """
    if wait is not None:
        return wait
    given = {
        name.strip().lower(): value.strip().strip('"')
        for name, _, value in (one.partition(";")[0].partition("=") for one in (prefer or "").split(","))
    }
    if "wait" in given:
        text = given["wait"]
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            message = "must be a whole number of seconds"
            raise RequestError(422, f"Prefer: wait {message}", errors=[("header.prefer", f"wait {message}")])
        return min(float(text), WAIT_LIMIT)
    return 0.0 if "respond-async" in given else default
