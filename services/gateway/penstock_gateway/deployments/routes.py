"""`/v1/deployments`: what starts runs by itself, its revisions, and its decisions on events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from penstock_contracts.api import RunAccepted
from penstock_contracts.deployments import (
    DecisionList,
    DeploymentBody,
    DeploymentChange,
    DeploymentList,
    DeploymentRunBody,
    DeploymentView,
    ReplayBody,
    ReplayView,
    RevisionList,
    RollbackBody,
    TestBody,
    TicksView,
)
from penstock_core import ids, trace_context
from penstock_core.access import Permission
from penstock_gateway.deployments.deployments_service import TICKS_LIMIT, Deployments
from penstock_gateway.deployments.explanations import LISTED, Explanations
from penstock_gateway.deployments.manual_runs import ManualRuns
from penstock_gateway.deployments.replays import Replays
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, IdempotencyKey, Traceparent, check_key, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.runs.routes import EXISTED, accepted

router = APIRouter(prefix="/v1/deployments", tags=["deployments"], route_class=JsonRoute, responses=COMMON)

Name = Annotated[str, Path(description="name of the deployment", json_schema_extra=NAMED)]
Service = Annotated[Deployments, feature(Deployments)]

_READ = [requires(Permission.DEPLOYMENTS_READ)]
_WRITE = [requires(Permission.DEPLOYMENTS_WRITE)]


@router.get("", summary="List deployments", dependencies=_READ)
async def list_deployments(deployments: Service) -> DeploymentList:
    """All deployments by name, with the next ticks of their cron triggers."""
    return await deployments.list()


@router.get("/{name}", summary="Get a deployment", dependencies=_READ, responses=problems(404))
async def read_deployment(deployments: Service, name: Name) -> DeploymentView:
    """The deployment as it is now."""
    return await deployments.get(name)


@router.put(
    "/{name}", summary="Create or update a deployment", dependencies=_WRITE, responses=problems(404, 409, *BODY)
)
async def put_deployment(deployments: Service, name: Name, by: By, body: DeploymentBody) -> DeploymentView:
    """Checked as a whole: the pipeline must be published, expressions must compile, inputs must fit its parameters.

    An equal definition is no new revision. With `revision`, the update is refused if somebody else was faster.
    """
    return await deployments.apply(name, body, by)


@router.delete(
    "/{name}", status_code=204, summary="Delete a deployment", dependencies=_WRITE, responses=problems(404, 409)
)
async def delete_deployment(
    deployments: Service,
    name: Name,
    by: By,
    reason: Annotated[str, Query(max_length=4_000, description="why; kept in its history")] = "",
    revision: Annotated[int | None, Query(ge=0, lt=2**53, description="the revision that you have read")] = None,
) -> None:
    """Its history stays. Runs that it started continue. Tokens of its endpoint are revoked."""
    await deployments.delete(name, DeploymentChange(reason=reason, revision=revision), by)


@router.post("/{name}/pause", summary="Pause a deployment", dependencies=_WRITE, responses=problems(404, 409, *BODY))
async def pause_deployment(deployments: Service, name: Name, by: By, body: DeploymentChange) -> DeploymentView:
    """Its triggers start no runs until it is resumed. Events that arrive meanwhile start none later."""
    return await deployments.pause(name, body, by)


@router.post("/{name}/resume", summary="Resume a deployment", dependencies=_WRITE, responses=problems(404, 409, *BODY))
async def resume_deployment(deployments: Service, name: Name, by: By, body: DeploymentChange) -> DeploymentView:
    """Its triggers start runs again."""
    return await deployments.resume(name, body, by)


@router.post(
    "/{name}/rollback", summary="Roll back a deployment", dependencies=_WRITE, responses=problems(404, 409, *BODY)
)
async def roll_back_deployment(deployments: Service, name: Name, by: By, body: RollbackBody) -> DeploymentView:
    """A new revision with the definition of an earlier one."""
    return await deployments.roll_back(name, body, by)


@router.post(
    "/{name}/runs",
    status_code=202,
    summary="Run a deployment now",
    response_model_exclude_none=True,
    dependencies=[requires(Permission.RUNS_CREATE)],
    responses={**EXISTED, **problems(404, 409, *BODY)},
)
async def run_deployment(
    runs: Annotated[ManualRuns, feature(ManualRuns)],
    name: Name,
    by: By,
    body: DeploymentRunBody,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    traceparent: Traceparent = None,
) -> RunAccepted:
    """Submits a run with its pipeline, inputs and labels, also while it is paused. Its trigger is `manual`."""
    check_key(idempotency_key)
    return accepted(await runs.submit(name, body, idempotency_key, by, trace_context.given(traceparent)), response)


@router.get("/{name}/revisions", summary="List revisions", dependencies=_READ, responses=problems(404))
async def list_revisions(deployments: Service, name: Name) -> RevisionList:
    """Every change, oldest first; also of a deleted deployment."""
    return await deployments.history(name)


@router.get("/{name}/ticks", summary="List next ticks", dependencies=_READ, responses=problems(404))
async def list_ticks(
    deployments: Service, name: Name, count: Annotated[int, Query(ge=1, le=TICKS_LIMIT)] = 10
) -> TicksView:
    """The next ticks of its cron triggers, with their jitter."""
    return await deployments.next_ticks(name, count)


@router.get("/{name}/decisions", summary="List decisions", dependencies=_READ)
async def list_decisions(
    explanations: Annotated[Explanations, feature(Explanations)],
    name: Name,
    limit: Annotated[int, Query(ge=1, le=LISTED)] = 100,
) -> DecisionList:
    """Its decisions, newest first. Those on events that its filters dropped are not stored: explain the event."""
    ids.check_name(name, "deployment")
    return await explanations.of_deployment(name, limit)


@router.post("/{name}/test", summary="Test an event", dependencies=_READ, responses=problems(404, *BODY))
async def test_event(
    explanations: Annotated[Explanations, feature(Explanations)], name: Name, body: TestBody
) -> DecisionList:
    """What its triggers would decide on an event, with the inputs of the run. Nothing is stored, no run starts."""
    return DecisionList(decisions=await explanations.test(name, body.event))


@router.post(
    "/{name}/replay",
    summary="Replay events",
    dependencies=[requires(Permission.RUNS_CREATE)],
    responses=problems(404, *BODY),
)
async def replay_events(
    replays: Annotated[Replays, feature(Replays)],
    name: Name,
    by: By,
    body: ReplayBody,
    idempotency_key: IdempotencyKey = None,
) -> ReplayView:
    """Drives past events through a revision, or another version of the pipeline, and shows it beside what happened.

    Its runs are isolated: they have the label `shadow`, register no models, and cause no events. With `decisions_only`,
    nothing runs.
    """
    check_key(idempotency_key)
    return await replays.replay(name, body, idempotency_key, by)
