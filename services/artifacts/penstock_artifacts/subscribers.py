"""The subjects that the artifacts service answers."""

from __future__ import annotations

from pydantic import BaseModel

from penstock_artifacts.retention.janitor import Janitor
from penstock_artifacts.service import ArtifactsService
from penstock_contracts import subjects
from penstock_contracts.commands import Complete, Locate, Location, StoreInfo
from penstock_contracts.previews import MakePreview, PreviewReply
from penstock_contracts.retention import DeleteReply, DeleteRun, JanitorJob, JanitorReply
from penstock_servicekit.request_handlers import answer
from penstock_servicekit.service_context import ServiceContext


class _Nothing(BaseModel):
    """A question without content."""


def register(context: ServiceContext, service: ArtifactsService, janitor: Janitor) -> None:
    """Answer questions about the store and its objects, and what is asked of the janitor; one replica takes each."""

    async def store(_: _Nothing) -> StoreInfo:
        return await service.store()

    def problem(error: str, again: bool) -> Location:
        return Location(error=error, unavailable=again)

    def no_preview(error: str, again: bool) -> PreviewReply:
        return PreviewReply(error=error, unavailable=again)

    def no_job(error: str, again: bool) -> JanitorReply:
        return JanitorReply(error=error, unavailable=again)

    def not_deleted(error: str, again: bool) -> DeleteReply:
        return DeleteReply(error=error, unavailable=again)

    answer(context, subjects.ARTIFACTS_JOB, JanitorJob, janitor.begin, no_job)
    answer(context, subjects.ARTIFACTS_DELETE_RUN, DeleteRun, janitor.delete, not_deleted)
    answer(context, subjects.ARTIFACTS_PREVIEW, MakePreview, service.preview, no_preview)
    answer(context, subjects.ARTIFACTS_STORE, _Nothing, store, problem)
    answer(context, subjects.ARTIFACTS_LOCATE, Locate, service.locate, problem)
    answer(context, subjects.ARTIFACTS_COMPLETE, Complete, service.complete, problem)
    answer(context, subjects.ARTIFACTS_STAT, Locate, service.stat, problem)
