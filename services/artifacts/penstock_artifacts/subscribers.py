"""The requests that the artifacts service answers; one replica handles each."""

from __future__ import annotations

from pydantic import BaseModel

from penstock_artifacts.retention.janitor import Janitor
from penstock_artifacts.service import ArtifactsService
from penstock_contracts import subjects
from penstock_contracts.commands import Location, StoreInfo
from penstock_contracts.previews import PreviewReply
from penstock_contracts.retention import DeleteReply, JanitorReply
from penstock_servicekit.request_handlers import answer
from penstock_servicekit.service_context import ServiceContext


class GetStore(BaseModel):
    """A request for information about the store."""


def register(context: ServiceContext, service: ArtifactsService, janitor: Janitor) -> None:
    """Answer requests about the store, its objects, and retention."""

    async def store(request: GetStore) -> StoreInfo | Location:
        return await service.store()

    def location(error: str, retryable: bool) -> Location:
        return Location(error=error, unavailable=retryable)

    answer(context, subjects.ARTIFACTS_JOB, janitor.begin, lambda e, r: JanitorReply(error=e, unavailable=r))
    answer(context, subjects.ARTIFACTS_DELETE_RUN, janitor.delete, lambda e, r: DeleteReply(error=e, unavailable=r))
    answer(context, subjects.ARTIFACTS_PREVIEW, service.preview, lambda e, r: PreviewReply(error=e, unavailable=r))
    answer(context, subjects.ARTIFACTS_STORE, store, location)
    answer(context, subjects.ARTIFACTS_LOCATE, service.locate, location)
    answer(context, subjects.ARTIFACTS_COMPLETE, service.complete, location)
    answer(context, subjects.ARTIFACTS_STAT, service.stat, location)
