"""`/v1/questions`: open questions of all runs. `/v1/runs/{id}/steps/{key}/answer` and `/links`: answer one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from penstock_contracts.waits import AnswerAccepted, AnswerBody, AnswerLinks, QuestionList
from penstock_core import ids
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import PipelineFilter, RunId, StepKey, feature, requires
from penstock_gateway.http.principal import By, Project
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.waits import open_questions, signed_links
from penstock_gateway.waits.answers import Answers
from penstock_gateway.waits.link_pages import LinkPages
from penstock_gateway.waits.open_questions import OpenQuestions

router = APIRouter(prefix="/v1", tags=["waits"], route_class=JsonRoute, responses=COMMON)

Lifetime = Annotated[
    float,
    Query(
        gt=0,
        le=signed_links.MAX_LIFETIME,
        description="seconds until the links expire, at most the timeout of the question",
    ),
]


@router.get("/questions", summary="List open questions", dependencies=[requires(Permission.RUNS_READ)])
async def list_questions(
    questions: Annotated[OpenQuestions, feature(OpenQuestions)],
    project: Project,
    run: Annotated[str | None, Query(description="only of this run")] = None,
    pipeline: PipelineFilter = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = open_questions.PAGE,
    after: Annotated[int, Query(ge=0, lt=2**53, description="`after` of an earlier list")] = 0,
) -> QuestionList:
    """Open questions of the steps of all runs of the project, oldest first."""
    if pipeline is not None:
        ids.check_name(pipeline, "pipeline")
    return await questions.list(project, run, pipeline, limit, after)


@router.post(
    "/runs/{run_id}/steps/{key:path}/answer",
    summary="Answer the question of a step",
    dependencies=[requires(Permission.RUNS_ANSWER)],
    responses=problems(404, 409, *BODY),
)
async def answer_step(
    answers: Annotated[Answers, feature(Answers)], by: By, run_id: RunId, key: StepKey, body: AnswerBody
) -> AnswerAccepted:
    """The first answer counts; repeating it is idempotent. 409 names the answer that counts, and who gave it."""
    return await answers.answer(run_id, key, body, by)


@router.get(
    "/runs/{run_id}/steps/{key:path}/links",
    summary="Create signed links to the question of a step",
    dependencies=[requires(Permission.RUNS_ANSWER)],
    responses=problems(404, 409),
)
async def create_links(
    pages: Annotated[LinkPages, feature(LinkPages)],
    reader: Annotated[RunReader, feature(RunReader)],
    settings: Annotated[GatewaySettings, feature(GatewaySettings)],
    request: Request,
    by: By,
    run_id: RunId,
    key: StepKey,
    lifetime: Lifetime = signed_links.LIFETIME,
) -> AnswerLinks:
    """Each link permits one answer, and `page` any answer, to that question without the platform's token."""
    return await pages.create(reader, settings.public_url or str(request.base_url), run_id, key, lifetime, by)
