"""`/v1/dead-letters`: rejected events, notifications that were not accepted, and unreadable messages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from penstock_contracts.dead_letters import DeadLetterList, DeadLetterView, Replayed
from penstock_core.access import Permission
from penstock_gateway.dead_letters.dead_letters import DeadLetterService
from penstock_gateway.http.parameters import feature, requires
from penstock_gateway.http.principal import Project, granted
from penstock_gateway.http.responses import COMMON, problems

router = APIRouter(prefix="/v1/dead-letters", tags=["events"], responses=COMMON)

Service = Annotated[DeadLetterService, feature(DeadLetterService)]
Number = Annotated[int, Path(ge=1, lt=2**53, description="id of the dead letter")]


def _visible(request: Request, project: Project) -> str | None:
    """Return the project whose dead letters a request sees; None with a role in all projects and no other one named."""
    return None if granted(request).everywhere is not None and "penstock-project" not in request.headers else project


Visible = Annotated[str | None, Depends(_visible)]

_READ = [requires(Permission.EVENTS_READ)]
_WRITE = [requires(Permission.EVENTS_SEND)]


@router.get("", summary="List dead letters", dependencies=_READ)
async def list_dead_letters(
    service: Service,
    project: Visible,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=0, lt=2**53, description="only those before this id")] = None,
) -> DeadLetterList:
    """Rejected events, notifications that were not accepted, and unreadable messages, newest first."""
    return await service.list(project, limit, before)


@router.get("/{number}", summary="Get a dead letter", dependencies=_READ, responses=problems(404))
async def read_dead_letter(service: Service, project: Visible, number: Number) -> DeadLetterView:
    """The message, with the error."""
    return await service.get(project, number)


@router.post("/{number}/replay", summary="Replay a dead letter", dependencies=_WRITE, responses=problems(404, 409))
async def replay_dead_letter(service: Service, project: Visible, number: Number) -> Replayed:
    """Sends the event or notification again, and removes the dead letter. A rejected event goes to its trigger only."""
    return await service.replay(project, number)


@router.delete(
    "/{number}", status_code=204, summary="Discard a dead letter", dependencies=_WRITE, responses=problems(404)
)
async def discard_dead_letter(service: Service, project: Visible, number: Number) -> None:
    """Removes the dead letter. The decision on the event stays in the ledger."""
    await service.discard(project, number)
