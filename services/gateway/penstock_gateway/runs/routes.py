"""`/v1/runs`: submit, list, get, cancel and rerun runs, get their results. Cancel one step."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query, Request, Response

from penstock_adapters.nats.known_pools import KnownPools
from penstock_contracts.api import (
    AttemptInputs,
    CancelBody,
    CancelResult,
    ItemPage,
    RerunBody,
    RunAccepted,
    RunBody,
    RunPage,
    RunReasons,
    RunView,
    StepDetail,
)
from penstock_contracts.waits import StepCancelResult
from penstock_core import access, ids, trace_context
from penstock_core.access import Permission
from penstock_core.queries import search
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import (
    STEP_KEYED,
    IdempotencyKey,
    PipelineFilter,
    RunId,
    StepKey,
    Traceparent,
    check_key,
    feature,
    requires,
)
from penstock_gateway.http.principal import By, Project
from penstock_gateway.http.responses import BODY, COMMON, content, json_response, no_content, problems
from penstock_gateway.runs import run_search, run_states, views
from penstock_gateway.runs import values as run_values
from penstock_gateway.runs.attempt_inputs import AttemptInputsReader
from penstock_gateway.runs.cancellations import Cancellations
from penstock_gateway.runs.reruns import Reruns
from penstock_gateway.runs.run_models import RunModels
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_requests import RunRequests
from penstock_gateway.runs.run_search import RunSearch
from penstock_gateway.runs.step_progress import StepProgress
from penstock_gateway.runs.step_reader import StepReader
from penstock_gateway.runs.steps import no_step

_VALUE: dict[str, Any] = {
    "application/json": {"schema": {}},
    run_values.MEDIA_TYPE: {"schema": {}},
    "*/*": {"schema": {"type": "string", "format": "binary", "description": "an artifact, with its media type"}},
}

router = APIRouter(prefix="/v1/runs", tags=["runs"], route_class=JsonRoute, responses=COMMON)

_NONE: list[str] = []

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "skipped"]
Reader = Annotated[RunReader, feature(RunReader)]
Progress = Annotated[StepProgress, feature(StepProgress)]
Cancel = Annotated[CancelBody, Body(default_factory=CancelBody)]

_READ = [requires(Permission.RUNS_READ)]
_CREATE = [requires(Permission.RUNS_CREATE)]
_CANCEL = [requires(Permission.RUNS_CANCEL)]
EXISTED = {200: {"model": RunAccepted, "description": "The idempotency key belongs to this existing run"}}


@router.post(
    "",
    status_code=202,
    summary="Submit a run",
    response_model_exclude_none=True,
    dependencies=_CREATE,
    responses={**EXISTED, **problems(404, 409, *BODY)},
)
async def request_run(
    requests: Annotated[RunRequests, feature(RunRequests)],
    by: By,
    body: RunBody,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> RunAccepted:
    """Responds when the request is stored in the log.

    Omitted inputs take their defaults. Put an input that is larger than 64 KiB as JSON as an artifact first and pass
    `{"artifact": {"sha256": …, "size": …}}`.
    """
    check_key(idempotency_key)
    return accepted(await requests.submit(body, idempotency_key, by, trace_context.given(traceparent)), response)


def accepted(run: RunAccepted, response: Response) -> RunAccepted:
    """Set status and location of the response to a request for a run."""
    response.status_code = 202 if run.created else 200
    response.headers["location"] = f"/v1/runs/{run.run_id}"
    return run


@router.get("", summary="List and search runs", dependencies=_READ, response_model=RunPage)
async def list_runs(
    runs: Annotated[RunSearch, feature(RunSearch)],
    by: By,
    project: Project,
    pipeline: PipelineFilter = None,
    state: Annotated[State | None, Query(description="only in this state")] = None,
    deployment: Annotated[str | None, Query(max_length=100, description="only of this deployment")] = None,
    trigger: Annotated[str | None, Query(max_length=100, description="only with this trigger, such as `cron`")] = None,
    requested_by: Annotated[
        str | None, Query(max_length=access.PRINCIPAL_LIMIT, description="only of this principal, such as `user:ada`")
    ] = None,
    mine: Annotated[bool, Query(description="only of the principal of this request")] = False,
    id: Annotated[str | None, Query(max_length=100, description="only with an ID that starts with this")] = None,
    label: Annotated[list[str], Query(description="`name=value`, or `name` with any value; all must match")] = _NONE,
    metric: Annotated[list[str], Query(description="such as `loss<0.2`; of any step")] = _NONE,
    param: Annotated[list[str], Query(description="such as `depth=4`; an input or a logged parameter")] = _NONE,
    since: Annotated[
        str | None, Query(max_length=40, description="only created at or after this Unix or ISO 8601 time")
    ] = None,
    until: Annotated[str | None, Query(max_length=40, description="only created before this time")] = None,
    sort: Annotated[
        str | None,
        Query(max_length=220, description="`duration`, `-created_at`, `metric:NAME`; a minus sorts descending"),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=search.LIMIT, description="page size")] = 50,
    cursor: Annotated[str | None, Query(max_length=600, description="`next` of the previous page")] = None,
    values: Annotated[
        bool, Query(description="with the inputs and outputs of each run; a page may have fewer runs than `limit`")
    ] = False,
) -> Response:
    """Runs that match all filters, newest first by default; new runs do not shift the pages.

    Includes every run that was accepted before the request. Runs without the sort key are omitted.
    """
    query = run_search.parse(
        project=project,
        labels=label,
        metrics=metric,
        params=param,
        since=since,
        until=until,
        sort=sort,
        cursor=cursor,
        pipeline=pipeline,
        deployment=deployment,
        state=state,
        trigger=trigger,
        requested_by=by if mine else requested_by,
        prefix=id,
        limit=limit,
    )
    return json_response(await runs.page(query, values=values))


@router.get(
    "/{run_id}",
    summary="Get a run with its steps",
    dependencies=_READ,
    response_model=RunView,
    responses={**no_content(304, "Not modified"), **problems(404)},
)
async def read_run(
    reader: Reader,
    progress: Progress,
    models: Annotated[RunModels, feature(RunModels)],
    run_id: RunId,
    if_none_match: Annotated[str | None, Header(description="an ETag: 304 if the run has not changed")] = None,
) -> Response:
    """The present state of the run, with its steps in the order of the pipeline."""
    run = await reader.get(run_id)
    await asyncio.gather(progress.refresh(run), models.refresh(run))
    # A version may be promoted, or refused, after it was registered.
    registered = sum(1 + (one.promoted is not None) for one in run.models)
    beside = [str(number) for number in (run.progress_seq, registered) if run.progress_seq or run.models]
    changed = ".".join([str(run.last_seq), *beside])
    tag = {"etag": f'"{changed}"', "cache-control": "no-cache"}
    if if_none_match == tag["etag"]:
        return Response(status_code=304, headers=tag)
    return json_response(views.view(run), headers=tag)


@router.get(
    "/{run_id}/items",
    summary="List the items of a mapped step",
    dependencies=_READ,
    response_model=ItemPage,
    responses=problems(404),
)
async def list_items(
    reader: Reader,
    progress: Progress,
    run_id: RunId,
    step: Annotated[str, Query(description="key of the mapped step", json_schema_extra=STEP_KEYED)],
    state: Annotated[str | None, Query(description="only in this state")] = None,
    after: Annotated[int, Query(ge=-1, description="`next` of the previous page")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000, description="page size")] = 100,
) -> Response:
    """Started items by index."""
    ids.check_step_key(step)
    run = await reader.get(run_id)
    await progress.refresh(run)
    return json_response(views.page(run, step, state, after, limit))


@router.get(
    "/{run_id}/explain",
    summary="Explain the states of the steps of a run",
    dependencies=_READ,
    response_model=RunReasons,
    responses=problems(404),
)
async def explain_run(
    reader: Reader,
    pools: Annotated[KnownPools, feature(KnownPools)],
    run_id: RunId,
    step: Annotated[
        str | None, Query(description="only this step, or item of a mapped step", json_schema_extra=STEP_KEYED)
    ] = None,
) -> Response:
    """One sentence per step: what it waits for, where it runs, why it is retried, failed or never ran."""
    run = await reader.get(run_id)
    try:
        found = run_states.reasons(run, time.time(), step, await pools.executors())
    except LookupError as error:
        raise no_step(run, step or "") from error
    return json_response(found, headers={"cache-control": "no-store"})


@router.get(
    "/{run_id}/step",
    summary="Get a step with its inputs and attempts",
    dependencies=_READ,
    response_model=StepDetail,
    responses=problems(404),
)
async def read_step(
    steps: Annotated[StepReader, feature(StepReader)],
    run_id: RunId,
    step: Annotated[
        str, Query(description="key of the step, or of an item of a mapped step", json_schema_extra=STEP_KEYED)
    ],
) -> Response:
    """The present state of a step or item, its inputs, and where the time of its attempts went."""
    ids.check_step_key(step)
    return json_response(await steps.get(run_id, step), headers={"cache-control": "no-store"})


@router.get(
    "/{run_id}/attempt",
    summary="Get what an attempt was given",
    dependencies=_READ,
    response_model=AttemptInputs,
    responses=problems(404, 409),
)
async def read_attempt(
    attempts: Annotated[AttemptInputsReader, feature(AttemptInputsReader)],
    run_id: RunId,
    step: Annotated[
        str, Query(description="key of the step, or of an item of a mapped step", json_schema_extra=STEP_KEYED)
    ],
    attempt: Annotated[
        int | None, Query(ge=1, le=2**53, description="number of the attempt; default: the last")
    ] = None,
) -> Response:
    """Inputs, checkpoint, source and environment of an attempt: what `penstock debug` calls the function with."""
    ids.check_step_key(step)
    return json_response(await attempts.get(run_id, step, attempt), headers={"cache-control": "no-store"})


@router.post(
    "/{run_id}/cancel",
    status_code=202,
    summary="Cancel a run",
    dependencies=_CANCEL,
    responses={200: {"model": CancelResult, "description": "The run has finished"}, **problems(404, *BODY)},
)
async def cancel_run(
    cancellations: Annotated[Cancellations, feature(Cancellations)],
    by: By,
    run_id: RunId,
    body: Cancel,
    response: Response,
) -> CancelResult:
    """Running steps are stopped, waiting steps are skipped. Idempotent."""
    result = await cancellations.cancel_run(run_id, body.reason, by)
    response.status_code = 202 if result.state is None else 200
    return result


@router.post(
    "/{run_id}/steps/{key:path}/cancel",
    status_code=202,
    summary="Cancel a step, or an item of a mapped step",
    dependencies=_CANCEL,
    responses={200: {"model": StepCancelResult, "description": "The step has finished"}, **problems(404, *BODY)},
)
async def cancel_step(
    cancellations: Annotated[Cancellations, feature(Cancellations)],
    by: By,
    run_id: RunId,
    key: StepKey,
    body: Cancel,
    response: Response,
) -> StepCancelResult:
    """It is stopped if it runs and never starts if it waits; steps that need its result are skipped."""
    result = await cancellations.cancel_step(run_id, key, body.reason, by)
    response.status_code = 202 if result.state is None else 200
    return result


@router.post(
    "/{run_id}/rerun",
    status_code=202,
    summary="Rerun or resume a run",
    response_model_exclude_none=True,
    dependencies=_CREATE,
    responses={**EXISTED, **problems(404, 409, *BODY)},
)
async def rerun(
    reruns: Annotated[Reruns, feature(Reruns)],
    by: By,
    run_id: RunId,
    body: Annotated[RerunBody, Body(default_factory=RerunBody)],
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RunAccepted:
    """Submits a new run with the inputs of that run, overridden by the given ones and validated against the version.

    The new run has the labels and the priority of that run; its trigger has its ID as `parent`. With `resume` it reuses
    the valid results of that run, which must have finished, and runs the other steps.
    """
    check_key(idempotency_key)
    return accepted(await reruns.rerun(run_id, body, idempotency_key, by), response)


@router.get(
    "/{run_id}/value",
    summary="Get a result",
    dependencies=_READ,
    response_class=Response,
    responses={
        **content(200, "The value", _VALUE),
        **content(206, "The requested range", {"*/*": _VALUE["*/*"]}),
        **no_content(307, "Redirect to a presigned URL of the store"),
        **problems(404, 416),
    },
)
async def read_value(
    reader: Reader,
    artifacts: Annotated[Artifacts, feature(Artifacts)],
    request: Request,
    run_id: RunId,
    step: Annotated[
        str | None, Query(description="key of a step; default: the outputs of the run", json_schema_extra=STEP_KEYED)
    ] = None,
    output: Annotated[str | None, Query(description="name of the output; required if there are several")] = None,
) -> Response:
    """Inline values as JSON, artifacts as their bytes (with `Range`).

    A list or dictionary that contains artifacts is described by its parts.
    """
    if step is not None:
        ids.check_step_key(step)
    run = await reader.get(run_id)
    return await run_values.respond(request, artifacts, await reader.resolve(run, run_values.find(run, step, output)))
