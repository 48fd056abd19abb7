"""`/v1/runs/{id}/events` and `/logs`: a run as it happens, by server-sent events. `/history`: as JSON lines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from penstock_contracts import run_history
from penstock_core import ids
from penstock_gateway.http import docs
from penstock_gateway.http.common import LastEventId, RunId, last_event, service, settings
from penstock_gateway.http.docs import describe
from penstock_gateway.http.sse import EventStream
from penstock_gateway.http.streaming import StreamedResponse
from penstock_gateway.run_streams import archived_streams, live_streams

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.get(
    "/{run_id}/events",
    summary="Follow the facts of a run",
    openapi_extra=describe(
        the_facts_200=docs.events(
            "`id`: place in the log; `event`: such as `attempt.finished`; `data`: the fact as JSON with `seq` and `at`"
        ),
        nothing_will_follow_204=None,
        problems=(404, 422),
    ),
)
async def follow_events(request: Request, run_id: RunId, last_event_id: LastEventId = None) -> Response:
    """All facts so far, then each as it happens; ends after `run.finished`.

    A client that comes back after that gets 204, which tells an `EventSource` not to come again.
    """
    gateway = service(request)
    after = last_event(last_event_id)
    await gateway.check_known(run_id)
    end = await gateway.finished(run_id) if after else None
    if end is not None and end[0] <= after:
        return Response(status_code=204)
    stall = settings(request).stream_timeout
    archived = await gateway.runs.archived(run_id)
    if archived is not None:
        return EventStream(
            lambda: archived_streams.facts(gateway.runs.archives, archived, after), gateway.closing, stall
        )
    return EventStream(lambda: live_streams.facts(gateway.followers, run_id, after), gateway.closing, stall)


@router.get(
    "/{run_id}/logs",
    summary="Follow what the steps of a run write and measure",
    openapi_extra=describe(
        the_output_200=docs.events("`id`: place in the stream of logs; `event`: `output`; `data`: an AttemptOutput"),
        problems=(404, 422),
    ),
)
async def follow_logs(
    request: Request,
    run_id: RunId,
    step: Annotated[str | None, Query(description="only this step's")] = None,
    follow: Annotated[bool, Query(description="false: what there is now")] = True,
    last_event_id: LastEventId = None,
) -> Response:
    """All output so far, then what comes, until the run is finished and its output was delivered."""
    gateway = service(request)
    after = last_event(last_event_id)
    if step is not None:
        ids.check_step_key(step)
    await gateway.check_known(run_id)
    stall = settings(request).stream_timeout
    archived = await gateway.runs.archived(run_id)
    if archived is not None:
        return EventStream(
            lambda: archived_streams.output(gateway.runs.archives, archived, step, after), gateway.closing, stall
        )
    return EventStream(
        lambda: live_streams.output(gateway.followers, run_id, step, after, follow=follow), gateway.closing, stall
    )


@router.get(
    "/{run_id}/history",
    summary="Export the history of a run",
    openapi_extra=describe(the_history_200=docs.lines("HistoryHeader", "HistoryFact"), problems=(404,)),
)
async def export_history(request: Request, run_id: RunId) -> Response:
    """A header with the pipeline, then the facts that the run has now, in log order, one JSON object a line."""
    gateway = service(request)
    await gateway.check_known(run_id)
    archived = await gateway.runs.archived(run_id)
    headers = {
        "content-type": run_history.MEDIA_TYPE,
        "content-disposition": f'attachment; filename="{run_id}.jsonl"',
        "cache-control": "no-store",
    }
    stall = settings(request).stream_timeout
    if archived is not None:
        return StreamedResponse(lambda: gateway.runs.archives.history(archived), 200, headers, stall)
    header = await gateway.history(run_id)
    return StreamedResponse(lambda: live_streams.history(gateway.followers, header, stall), 200, headers, stall)
