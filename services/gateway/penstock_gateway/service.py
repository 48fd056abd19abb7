"""What the gateway does, without HTTP: runs asked for and cancelled, versions registered, schedules kept.

In: bodies of the API. Out: facts in the log, requests to other services, entries in buckets. Everything may be
repeated: a run asked for twice with the same key is one run, and an append that was known counts as done.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pydantic

from penstock_adapters.nats.archived_log import ArchivedLog, Archives
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.follower import Followers
from penstock_adapters.nats.results import Results, is_reference
from penstock_contracts import api, commands, fact_codec, subjects
from penstock_contracts.run_history import HistoryHeader
from penstock_core import ids, requests, script_runs
from penstock_core.errors import InvalidIdError
from penstock_core.facts import CacheMode, CancelRequested, RunFinished, RunRequested
from penstock_core.pipeline.ir import Pipeline
from penstock_core.pipeline.tagged import NoSuchPartError
from penstock_core.pipeline.values import Collected, Value
from penstock_core.ports import UnavailableError
from penstock_core.requests import Inputs, Options, Target
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.http import problems
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.limits.limits_service import LimitsService
from penstock_gateway.read_model import feeds
from penstock_gateway.read_model.archived_rows import ArchivedRows
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector
from penstock_gateway.registry.announcer import ModelAnnouncer
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.retention.retention_service import RetentionService, check_not_deleted
from penstock_gateway.runs.run_states import FoldedRun, RunStates
from penstock_gateway.tracked import importer
from penstock_gateway.waits.event_receiver import EventReceiver
from penstock_gateway.waits.open_questions import OpenQuestions
from penstock_servicekit.service_context import ServiceContext

PROJECT = "default"
REGISTER_TIMEOUT = 30.0
_LONG_LIST = 10_000
"""Results of items from which a list in the view of a run is only named."""

_PIPELINE: pydantic.TypeAdapter[Pipeline] = pydantic.TypeAdapter(Pipeline)


class Accepted(NamedTuple):
    """A run that the log holds. `created` is False when the same request was made before."""

    run_id: str
    pipeline: str
    version: int
    created: bool


class GatewayService:
    """The uses of the API."""

    def __init__(self, context: ServiceContext, artifacts: Artifacts, model: ReadModel, keep: int, home: Path) -> None:
        bus = context.bus
        self.bus = bus
        self.artifacts = artifacts
        self.log = context.log
        self.closing = asyncio.Event()
        self.runs = ArchivedLog(bus, f"penstock/gateway/{context.name}", Archives(artifacts.opened))
        self.versions = Versions(bus)
        self.schedules = Bucket(bus, subjects.SCHEDULES_BUCKET)
        self.limits = LimitsService(bus)
        self.limit_sizes = LimitSizes(bus)
        self.retention = RetentionService(bus, self.versions, PROJECT)
        self.followers = Followers(bus)
        self.states = RunStates(self.runs, self.versions, keep)
        self.model = model
        past = ArchivedRows(self.runs.archives, model, context.log)
        self.projector = Projector(context, self.followers, model, feeds.FACTS, past)
        self.series_projector = Projector(context, self.followers, model, feeds.SERIES)
        self.questions = OpenQuestions(self.followers, self.runs, context.log)
        self.event_receiver = EventReceiver(bus, self.runs, PROJECT)
        self.registry = Registry(bus, f"penstock/gateway/{context.name}", PROJECT)
        self.model_events = ModelAnnouncer(context, self.event_receiver)
        self.scripts = importer.TrackedRunImporter(home, PROJECT, bus, self.runs, context.log)

    async def close(self) -> None:
        """End open streams and the read model."""
        self.closing.set()
        await self.model_events.close()
        await self.questions.close()
        await self.projector.close()
        await self.series_projector.close()
        await self.model.close()

    # ------------------------------------------------------------------------------------------------------- runs

    async def request_run(self, body: api.RunBody, key: str | None) -> Accepted:
        """Ask for a run; with a key, the same key is the same run.

        Raises:
            ProblemError: 404 no such version; 409 the key was used for another request; 422 wrong inputs or labels.
            InvalidInputs: the inputs do not fit the parameters.
        """
        ids.check_name(body.pipeline, "pipeline")
        request = fingerprint(body.model_dump())
        run_id, known = await self.claim(body.pipeline, key, request)
        if known is not None:
            return known
        version = await self.version(body.pipeline, body.version)
        inputs = await self.run_inputs(version, body.inputs)
        options = Options(
            trigger={"type": "manual", "request": request},
            labels=body.labels,
            priority=body.priority,
            deadline=body.deadline,
            cache=CacheMode(body.cache),
            refresh=body.refresh,
        )
        wanted = requests.build(run_id, await self.target(version), inputs, options, time.time())
        await self.artifacts.check_inputs(wanted.inputs)
        return await self.admit(wanted)

    async def target(self, version: commands.Version) -> Target:
        """A version as the target of a run request."""
        return Target(
            project=PROJECT,
            pipeline=version.pipeline,
            version=version.version,
            limited_pools=await self.limit_sizes.limited_pools(),
        )

    async def run_inputs(
        self, version: commands.Version, given: dict[str, Any], earlier: dict[str, Value] | None = None
    ) -> Inputs:
        """The inputs of a run, with references to registered models resolved."""
        names = requests.model_references(version.pipeline.params, given)
        return Inputs(given=given, earlier=earlier, models=await self.registry.log.resolve(PROJECT, names))

    async def claim(self, pipeline: str, key: str | None, request: str) -> tuple[str, Accepted | None]:
        """The id for a run that is asked for with a key, and the run itself where the key stands for it already.

        Raises:
            ProblemError: 409 the key was used for a request of another fingerprint.
        """
        if key is None:
            return ids.run_id(time.time_ns() // 1_000_000, os.urandom(10)), None
        run_id = ids.run_id_from_key(PROJECT, pipeline, key)
        known = await self._requested(run_id)
        if known is None:
            await check_not_deleted(self.runs, run_id)
        return run_id, _same_request(known, request) if known is not None else None

    async def admit(self, fact: RunRequested) -> Accepted:
        """Append the request of a run; the fingerprint of what was asked for is `request` in its trigger.

        Raises:
            ProblemError: 409 the run's id stands for another request; 413, 422 it cannot be stored.
        """
        self._check_readable(fact)
        written = (await self.runs.append([fact]))[0]
        if written:
            return Accepted(fact.run_id, fact.pipeline, fact.version, created=True)
        # Somebody with the same key was faster.
        known = await self._requested(fact.run_id)
        if known is None:
            raise ProblemError(409, "This run's place in the log holds something unreadable", "use another key")
        return _same_request(known, fact.trigger["request"])

    async def cancel(self, run_id: str, reason: str, by: str = "") -> RunFinished | None:
        """Ask to cancel a run. Returns how it ended when it was over before, so that nothing was asked.

        Raises:
            ProblemError: 404 no such run.
        """
        await self.check_known(run_id)
        end = await self.finished(run_id)
        if end is None:
            fact = CancelRequested(run_id=run_id, by=by, reason=reason, requested_at=time.time())
            await self.runs.append([fact])
        return end[1] if end else None

    async def folded(self, run_id: str) -> FoldedRun:
        """A run as it stands.

        Raises:
            ProblemError: 404 no such run.
        """
        _check_run_id(run_id)
        await self.scripts.import_runs(run_id)
        found = await self.states.get(run_id)
        if found is None:
            raise _no_run(run_id)
        if found.state.finished is not None and found.outputs is None:
            found.outputs = {name: await self._short(found, one) for name, one in found.state.finished.outputs.items()}
        return found

    async def whole(self, folded: FoldedRun, value: Value) -> Value:
        """A value with all that it names read from the log."""
        if not is_reference(value):
            return value
        try:
            return await Results(folded.requested.run_id, self.runs.last).value(value)
        except NoSuchPartError as error:
            raise ProblemError(404, "A part of the value is not there", str(error)) from error

    async def _short(self, folded: FoldedRun, value: Value) -> Value:
        """The same, but a long list stays named."""
        long = isinstance(value, Collected) and value.collected.count > _LONG_LIST
        return value if long else await self.whole(folded, value)

    async def history(self, run_id: str) -> HistoryHeader:
        """The head of a run's history, with the pipeline that ran.

        Raises:
            ProblemError: 404 no such run.
        """
        request = await self.requested(run_id)
        by_script = request.version == script_runs.VERSION
        version = None if by_script else await self.version(request.pipeline, request.version)
        pipeline = version.pipeline if version is not None else script_runs.pipeline(request.pipeline)
        return HistoryHeader(run_id=run_id, project=request.project, pipeline=pipeline, version=request.version)

    async def check_known(self, run_id: str) -> None:
        """Raises ProblemError 404 unless the log holds a request for the run."""
        await self.requested(run_id)

    async def requested(self, run_id: str) -> RunRequested:
        """The request of a run.

        Raises:
            ProblemError: 404 no such run.
        """
        _check_run_id(run_id)
        await self.scripts.import_runs(run_id)
        found = await self._requested(run_id)
        if found is None:
            raise _no_run(run_id)
        return found

    async def finished(self, run_id: str) -> tuple[int, RunFinished] | None:
        """How a run ended, with the place of that in the log; None while it goes on."""
        place = subjects.run(run_id, "finished")
        record = (await self.runs.last([place])).get(place)
        return (record.seq, record.fact) if record and isinstance(record.fact, RunFinished) else None

    async def _requested(self, run_id: str) -> RunRequested | None:
        place = subjects.run(run_id, "requested")
        record = (await self.runs.last([place])).get(place)
        return record.fact if record and isinstance(record.fact, RunRequested) else None

    def _check_readable(self, fact: RunRequested) -> None:
        """What cannot be read back must not be written: its place in the log would be lost for good."""
        body = fact_codec.encode(fact)
        read = fact_codec.decode(fact_codec.subject(fact), body)
        if isinstance(read, fact_codec.UnreadableFact):
            raise ProblemError(422, "The inputs cannot be stored", f"{read.why}: pass a file or an artifact instead")
        self._check_payload(len(body), "pass large inputs as files or artifacts")

    def _check_payload(self, size: int, advice: str) -> None:
        limit = self.bus.client.max_payload - 4096
        if size > limit:
            raise ProblemError(413, "The request is too large", f"{size} bytes; the bus takes {limit}: {advice}")

    # --------------------------------------------------------------------------------------------------- versions

    async def register(self, body: api.RegisterBody, by: str) -> commands.VersionReply:
        """Have the builder register a version; `by` is who publishes it.

        Raises:
            ProblemError: 422 with what is wrong with the pipeline.
        """
        try:
            _PIPELINE.validate_python(body.pipeline)
        except pydantic.ValidationError as error:
            errors = [(f"pipeline.{field}", message) for field, message in problems.from_validation(error)]
            raise ProblemError(
                422, "The pipeline is not of the form of any", problems.sentence(errors), errors=errors
            ) from error
        message = orjson.dumps({"project": PROJECT, **body.model_dump(), "by": by})
        self._check_payload(len(message), "pass large constants as files or artifacts, or split the pipeline")
        answer = await self.bus.request(subjects.BUILDER_REGISTER, message, timeout=REGISTER_TIMEOUT)
        try:
            reply = commands.VersionReply.model_validate_json(answer.data)
        except pydantic.ValidationError as error:
            raise ProblemError(
                502, "The builder gave an unreadable answer", problems.sentence(problems.from_validation(error))
            ) from error
        if reply.unavailable:
            raise UnavailableError(reply.error or "the builder cannot work now")
        if reply.version is None:
            raise ProblemError(422, "The pipeline cannot be registered", reply.error or "the builder gave no reason")
        return reply

    async def version(self, pipeline: str, number: int | None) -> commands.Version:
        """A version, by default the latest published one.

        Raises:
            ProblemError: 404 no such pipeline or version, or none is published.
        """
        ids.check_name(pipeline, "pipeline")
        if number == script_runs.VERSION:
            raise importer.no_pipeline(pipeline)
        latest = await self.versions.latest(PROJECT, pipeline) if number is None else number
        if latest is None:
            raise await self._unpublished(pipeline)
        found = await self.versions.get(PROJECT, pipeline, latest) if 0 < latest < 2**53 else None
        if found is None:
            raise ProblemError(
                404, f"Pipeline {pipeline!r} has no version {latest}", f"see /v1/versions?pipeline={pipeline}"
            )
        return found

    async def _unpublished(self, pipeline: str) -> ProblemError:
        if not await self.versions.exists(PROJECT, pipeline):
            return ProblemError(
                404, f"There is no pipeline {pipeline!r}", "register it first: `penstock register FILE` publishes it"
            )
        return ProblemError(
            404,
            f"Pipeline {pipeline!r} has no published version",
            "`penstock register FILE` publishes one; versions made by `penstock run` are experiments, which run by "
            "their number only",
        )

    # -------------------------------------------------------------------------------------------------- readiness

    async def readiness(self) -> dict[str, bool]:
        """What the gateway needs, and whether it is there."""
        connected = self.bus.client.is_connected
        return {"nats": connected, "log": connected and await self._log_answers()}

    async def _log_answers(self) -> bool:
        try:
            await self.bus.api(f"STREAM.INFO.{subjects.RUNS}", timeout=1.0)
        except Exception:
            return False
        return True


def fingerprint(wanted: Any) -> str:
    """A digest of JSON data: equal for equal requests."""
    return hashlib.sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _check_run_id(run_id: str) -> None:
    try:
        ids.check_name(run_id, "run id")
    except InvalidIdError as error:
        raise ProblemError(404, "There is no such run", str(error)) from error


def _no_run(run_id: str) -> ProblemError:
    return ProblemError(404, f"There is no run {run_id!r}", "`penstock runs list` shows those that there are")


def _same_request(known: RunRequested, request: str) -> Accepted:
    if known.trigger.get("request") != request:
        raise ProblemError(
            409,
            "The idempotency key was used for another request",
            f"it stands for run {known.run_id}, which was asked for with another body: use a new key",
        )
    return Accepted(known.run_id, known.pipeline, known.version, created=False)
