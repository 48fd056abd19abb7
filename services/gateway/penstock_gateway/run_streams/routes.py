"""`/v1/runs/{id}/events` and `/logs`: a run as it happens, by server-sent events. `/history`: as JSON lines."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from penstock_core import ids
from penstock_core.access import Permission
from penstock_gateway.http.parameters import STEP_KEYED, LastEventId, RunId, feature, last_event, requires
from penstock_gateway.http.responses import COMMON, content, events, lines, no_content, problems
from penstock_gateway.run_streams.run_changes import RunChanges
from penstock_gateway.run_streams.run_streams import RunStreams

router = APIRouter(prefix="/v1/runs", tags=["runs"], dependencies=[requires(Permission.RUNS_READ)], responses=COMMON)

Changes = Annotated[RunChanges, feature(RunChanges)]
Streams = Annotated[RunStreams, feature(RunStreams)]


@router.get(
    "/changes",
    summary="Follow which runs begin, wait and end",
    response_class=Response,
    responses=content(
        200,
        "The changes",
        events(
            "`id`: sequence in the log; `event`: `change`; `data`: `run_id`, `pipeline` and `kind`, that of the fact, "
            "such as `run.requested`, `attempt.suspended` or `run.finished`"
        ),
    ),
)
async def follow_changes(changes: Changes, last_event_id: LastEventId = None) -> Response:
    """The changes of all runs of the project, from now on; after a reconnection, from where it was interrupted."""
    return await changes.follow(last_event(last_event_id))


@router.get(
    "/{run_id}/events",
    summary="Follow the facts of a run",
    response_class=Response,
    responses={
        **content(
            200,
            "The facts",
            events(
                "`id`: sequence in the log; `event`: such as `attempt.finished`; `data`: the fact as JSON with `seq` "
                "and `at`"
            ),
        ),
        **no_content(204, "No facts will follow"),
        **problems(404),
    },
)
async def follow_events(streams: Streams, run_id: RunId, last_event_id: LastEventId = None) -> Response:
    """All facts so far, then each as it happens; ends after `run.finished`.

    A client that reconnects after that gets 204, which tells an `EventSource` to stop.
    """
    return await streams.facts(run_id, last_event(last_event_id))


@router.get(
    "/{run_id}/logs",
    summary="Follow output, metrics and progress of the steps of a run",
    response_class=Response,
    responses={
        **content(
            200,
            "The output",
            events(
                "`id`: sequence in the stream of logs; `event` and `data`: `output` with an AttemptOutput, or "
                "`progress` with an AttemptProgress, of which only the latest of each attempt is kept"
            ),
        ),
        **problems(404),
    },
)
async def follow_logs(
    streams: Streams,
    run_id: RunId,
    step: Annotated[str | None, Query(description="only of this step", json_schema_extra=STEP_KEYED)] = None,
    follow: Annotated[bool, Query(description="false: only what there is now")] = True,
    last_event_id: LastEventId = None,
) -> Response:
    """All output so far, then new output until the run has finished and its output was delivered."""
    after = last_event(last_event_id)
    if step is not None:
        ids.check_step_key(step)
    return await streams.output(run_id, step, after, follow=follow)


@router.get(
    "/{run_id}/history",
    summary="Export the history of a run",
    response_class=Response,
    responses={
        **content(200, "A header, then the facts", lines("HistoryHeader", "HistoryFact")),
        **problems(404),
    },
)
async def export_history(streams: Streams, run_id: RunId) -> Response:
    """A header with the pipeline, then the present facts of the run in log order, one JSON object per line."""
    return await streams.history(run_id)
