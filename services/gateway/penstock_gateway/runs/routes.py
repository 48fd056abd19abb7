"""`/v1/runs`: ask for runs, list them, read them, cancel them, read their results."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts import api
from penstock_core import ids
from penstock_core.queries import search
from penstock_gateway.http import bodies, docs
from penstock_gateway.http.common import PipelineFilter, RunId, artifacts, json, service
from penstock_gateway.http.docs import describe
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.runs import reruns, run_states, values, views
from penstock_gateway.runs import search as run_search

router = APIRouter(prefix="/v1/runs", tags=["runs"])

_KEY_LIMIT = 255
_NONE: list[str] = []

IdempotencyKey = Annotated[str | None, Header(description="the same key is the same run")]
State = Literal["queued", "running", "succeeded", "failed", "cancelled", "skipped"]


@router.post(
    "",
    status_code=202,
    summary="Ask for a run",
    openapi_extra=describe(
        body="RunBody",
        accepted_202="RunAccepted",
        known_by_its_key_200="RunAccepted",
        problems=(400, 404, 409, 413, 415, 422),
    ),
)
async def request_run(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
    """Appends the request to the log and answers when it is stored.

    Inputs that are left out take their defaults. An input that is larger than 64 KiB as JSON is put as an artifact
    first and given as `{"artifact": {"sha256": …, "size": …}}`.
    """
    _check_key(idempotency_key)
    body = await bodies.read(request, api.RunBody)
    run = await service(request).request_run(body, idempotency_key)
    return json(run._asdict(), 202 if run.created else 200, {"location": f"/v1/runs/{run.run_id}"})


def _check_key(key: str | None) -> None:
    if key is not None and not (0 < len(key) <= _KEY_LIMIT and key.isprintable()):
        raise ProblemError(
            422,
            "The request is not valid",
            f"Idempotency-Key: 1 to {_KEY_LIMIT} printable characters",
            errors=[("header.idempotency-key", f"must have 1 to {_KEY_LIMIT} printable characters")],
        )


@router.get(
    "",
    summary="List and search runs, newest first",
    openapi_extra=describe(a_page_200="RunPage", problems=(422,)),
)
async def list_runs(
    request: Request,
    pipeline: PipelineFilter = None,
    state: Annotated[State | None, Query(description="only those in this state")] = None,
    deployment: Annotated[str | None, Query(max_length=100, description="only those of this deployment")] = None,
    trigger: Annotated[str | None, Query(max_length=100, description="only those started like this: `cron`")] = None,
    id: Annotated[str | None, Query(max_length=100, description="only those whose id begins like this")] = None,
    label: Annotated[list[str], Query(description="`name=text`, or `name` with any text; all must be there")] = _NONE,
    metric: Annotated[list[str], Query(description="such as `loss<0.2`; of any step")] = _NONE,
    param: Annotated[list[str], Query(description="such as `depth=4`; an input or a logged parameter")] = _NONE,
    since: Annotated[str | None, Query(max_length=40, description="asked for at or after: Unix or ISO time")] = None,
    until: Annotated[str | None, Query(max_length=40, description="asked for before this time")] = None,
    sort: Annotated[
        str | None,
        Query(max_length=220, description="`duration`, `-requested_at`, `metric:NAME`; a minus: largest first"),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=search.LIMIT, description="most runs of a page")] = 50,
    cursor: Annotated[str | None, Query(max_length=600, description="`next` of the page before")] = None,
) -> Response:
    """A page of runs that meet every filter; `next` continues it. New runs do not shift the pages.

    Runs that were accepted before are in it. Sorted by what some runs do not have, those are left out.
    """
    wanted = run_search.query(
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
        prefix=id,
        limit=limit,
    )
    return json(await run_search.page(service(request), wanted))


@router.get(
    "/{run_id}",
    summary="Read a run with its steps",
    openapi_extra=describe(the_run_200="RunView", unchanged_304=None, problems=(404,)),
)
async def read_run(
    request: Request,
    run_id: RunId,
    if_none_match: Annotated[str | None, Header(description="an ETag: 304 when nothing has changed since")] = None,
) -> Response:
    """The run as its facts tell it, with its steps in the order of the pipeline."""
    folded = await service(request).folded(run_id)
    tag = {"etag": f'"{folded.last_seq}"', "cache-control": "no-cache"}
    if if_none_match == tag["etag"]:
        return Response(status_code=304, headers=tag)
    return json(views.view(folded), headers=tag)


@router.get(
    "/{run_id}/items",
    summary="List the items of a mapped step",
    openapi_extra=describe(a_page_200="ItemPage", problems=(404, 422)),
)
async def list_items(
    request: Request,
    run_id: RunId,
    step: Annotated[str, Query(description="key of the mapped step")],
    state: Annotated[str | None, Query(description="only those in this state")] = None,
    after: Annotated[int, Query(ge=-1, description="`next` of the page before")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000, description="most items of a page")] = 100,
) -> Response:
    """The items that were begun, by index; `next` continues the page."""
    ids.check_step_key(step)
    folded = await service(request).folded(run_id)
    return json(views.page(folded, step, state, after, limit))


@router.get(
    "/{run_id}/explain",
    summary="Why the steps of a run stand where they stand",
    openapi_extra=describe(the_reasons_200="RunReasons", problems=(404, 422)),
)
async def explain_run(
    request: Request,
    run_id: RunId,
    step: Annotated[str | None, Query(description="key of one step, or of an item of a mapped one")] = None,
) -> Response:
    """For each step one sentence: what it waits for, where it runs, why it is tried again, failed or never ran."""
    folded = await service(request).folded(run_id)
    try:
        found = run_states.reasons(folded, time.time(), step)
    except LookupError as error:
        raise ProblemError(404, f"The run has no step {step!r}", "see the steps of the run") from error
    return json(found, headers={"cache-control": "no-store"})


@router.post(
    "/{run_id}/cancel",
    status_code=202,
    summary="Ask to cancel a run",
    openapi_extra=describe(
        body="CancelBody",
        required=False,
        asked_202="CancelAnswer",
        over_already_200="CancelAnswer",
        problems=(400, 404, 413, 415, 422),
    ),
)
async def cancel_run(request: Request, run_id: RunId) -> Response:
    """Steps that run are stopped, steps that wait are skipped. Asking again does nothing more."""
    body = await bodies.read(request, api.CancelBody, optional=True)
    end = await service(request).cancel(run_id, body.reason, body.by)
    if end is None:
        return json({"run_id": run_id, "state": None}, 202)
    return json({"run_id": run_id, "state": end.outcome.value})


@router.post(
    "/{run_id}/rerun",
    status_code=202,
    summary="Run it again, as a new run",
    openapi_extra=describe(
        body="RerunBody",
        required=False,
        accepted_202="RunAccepted",
        known_by_its_key_200="RunAccepted",
        problems=(400, 404, 409, 413, 415, 422),
    ),
)
async def rerun(request: Request, run_id: RunId, idempotency_key: IdempotencyKey = None) -> Response:
    """With the inputs of that run, changed by those that are given, and checked against the version that runs.

    The new run has the labels and the priority of that run; its trigger names it as `parent`. With `resume` it takes
    over the results of that run, which must be over, that still count, and runs the other steps.
    """
    _check_key(idempotency_key)
    body = await bodies.read(request, api.RerunBody, optional=True)
    run, resumed = await reruns.rerun(service(request), run_id, body, idempotency_key)
    answer = run._asdict() | ({"resumed": resumed} if resumed is not None else {})
    return json(answer, 202 if run.created else 200, {"location": f"/v1/runs/{run.run_id}"})


@router.get(
    "/{run_id}/value",
    summary="Read a result",
    openapi_extra=describe(
        the_value_200={"application/json": {"schema": {}}, values.MEDIA_TYPE: {"schema": {}}} | docs.BYTES,
        a_part_206=docs.BYTES,
        elsewhere_307=None,
        problems=(404, 416, 422),
    ),
)
async def read_value(
    request: Request,
    run_id: RunId,
    step: Annotated[str | None, Query(description="key of a step; without it, the outputs of the run")] = None,
    output: Annotated[str | None, Query(description="name of the output; needed where there are several")] = None,
) -> Response:
    """Inline values as JSON, stored ones as their bytes (with `Range`), never interpreted here.

    A list or dictionary that holds stored values comes as the description of its parts.
    """
    if step is not None:
        ids.check_step_key(step)
    folded = await service(request).folded(run_id)
    value = await service(request).whole(folded, values.find(folded, step, output))
    return await values.answer(request, artifacts(request), value)
