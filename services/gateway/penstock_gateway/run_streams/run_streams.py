"""The streams of one run, from the log or, of an archived run, from the archive."""

from __future__ import annotations

import asyncio

from fastapi import Response

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.follower import Followers
from penstock_contracts import run_history
from penstock_contracts.run_history import HistoryHeader
from penstock_core import script_runs
from penstock_gateway.http.sse import EventStream, Frames
from penstock_gateway.http.streaming import StreamedResponse
from penstock_gateway.run_streams import archived_streams, live_streams
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.versions.pipeline_versions import PipelineVersions


class RunStreams:
    """Responds with streams.

    Args:
        log: the log of runs, with the archive.
        followers: follow streams of the bus.
        reader: of runs.
        versions: of pipelines.
        closing: set when the gateway stops, which ends all streams.
        stall: seconds after which a client that does not read is disconnected.
    """

    def __init__(
        self,
        log: ArchivedLog,
        followers: Followers,
        reader: RunReader,
        versions: PipelineVersions,
        closing: asyncio.Event,
        stall: float,
    ) -> None:
        self._log = log
        self._followers = followers
        self._reader = reader
        self._versions = versions
        self._closing = closing
        self._stall = stall

    async def facts(self, run_id: str, after: int) -> Response:
        """Stream the facts of a run after a sequence; 204 when no facts will follow.

        Raises:
            NotFoundError: the run does not exist.
        """
        await self._reader.request(run_id)
        end = await self._reader.finished(run_id) if after else None
        if end is not None and end[0] <= after:
            return Response(status_code=204)
        archived = await self._log.archived(run_id)

        def frames() -> Frames:
            if archived is not None:
                return archived_streams.facts(self._log.archives, archived, after)
            return live_streams.facts(self._followers, run_id, after)

        return EventStream(frames, self._closing, self._stall)

    async def output(self, run_id: str, step: str | None, after: int, *, follow: bool) -> Response:
        """Stream the output of the attempts of a run, or of one step.

        Raises:
            NotFoundError: the run does not exist.
        """
        await self._reader.request(run_id)
        archived = await self._log.archived(run_id)

        def frames() -> Frames:
            if archived is not None:
                return archived_streams.output(self._log.archives, archived, step, after)
            return live_streams.output(self._followers, run_id, step, after, follow=follow)

        return EventStream(frames, self._closing, self._stall)

    async def history(self, run_id: str) -> Response:
        """Stream the history of a run as JSON lines.

        Raises:
            NotFoundError: the run does not exist.
        """
        request = await self._reader.request(run_id)
        headers = {
            "content-type": run_history.MEDIA_TYPE,
            "content-disposition": f'attachment; filename="{run_id}.jsonl"',
            "cache-control": "no-store",
        }
        archived = await self._log.archived(run_id)
        if archived is not None:
            return StreamedResponse(lambda: self._log.archives.history(archived), 200, headers, self._stall)
        if request.version == script_runs.VERSION:
            pipeline = script_runs.pipeline(request.pipeline)
        else:
            pipeline = (await self._versions.get(request.pipeline, request.version)).pipeline
        header = HistoryHeader(run_id=run_id, project=request.project, pipeline=pipeline, version=request.version)
        return StreamedResponse(
            lambda: live_streams.history(self._followers, header, self._stall), 200, headers, self._stall
        )
