"""Runs of scripts on other machines, which send what they record while they run.

In: the start of a run, what it logged since, its end. Out: facts, metrics, output and progress, as executors write
them. Each request can be repeated: facts are appended once, and messages have the index of their first entry.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.bus import Bus
from penstock_contracts import fact_codec, subjects
from penstock_contracts.script_runs import ScriptEndBody, ScriptRecordsBody, ScriptRunBody, ScriptRunState
from penstock_core import ids, script_runs
from penstock_core.errors import InvalidIdError, PenstockError
from penstock_core.facts import (
    ArtifactCommitted,
    AttemptStarted,
    Fact,
    RunRequested,
)
from penstock_core.pipeline import values
from penstock_core.pipeline.values import Value
from penstock_core.queries import series
from penstock_core.shipping import progress, tail
from penstock_core.shipping.messages import Message, Messages, stored_artifact
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.errors import ConflictError, ContentTooLargeError, NotFoundError, UnprocessableError
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.tracked import script_ends, script_facts
from penstock_gateway.tracked.script_facts import ATTEMPT, InvalidRecordingError

_ENTRIES_BYTES = 512 * 1024
"""Largest JSON of the entries of one request: they are one message."""


class ScriptRuns:
    """Records runs of scripts in one project."""

    def __init__(self, bus: Bus, log: ArchivedLog, reader: RunReader, artifacts: Artifacts, project: str) -> None:
        self._bus = bus
        self._project = project
        self._log = log
        self._reader = reader
        self._artifacts = artifacts

    async def begin(self, run_id: str, body: ScriptRunBody, by: str) -> ScriptRunState:
        """Start a run. Idempotent.

        Raises:
            ConflictError: another run has this ID.
            UnprocessableError: the run is not valid.
        """
        try:
            made = script_facts.request(ids.check_name(run_id, "run ID"), self._project, body, by)
        except (InvalidRecordingError, InvalidIdError) as error:
            raise UnprocessableError("The run of the script is not valid", str(error)) from error
        if ids.is_from_key(run_id):
            # It could take the place of a run that a trigger is about to start.
            text = "its ID has the form of those that the platform computes: choose a random one"
            raise UnprocessableError("The run of the script is not valid", text)
        await self._check_artifacts(script_facts.about(body.environment, body.source).values())
        started = AttemptStarted(
            run_id=run_id,
            key=script_runs.STEP,
            attempt=ATTEMPT,
            executor=script_runs.STEP,
            host=body.host,
            started_at=body.began_at,
        )
        known = await self._reader.find_request(run_id)
        # Nothing is appended to a run before it is known to be this one: its ID may be that of another project's run.
        if known is None and not all(await self._log.append([made])):
            known = await self._reader.find_request(run_id)
            if known is None:
                raise _other_run(run_id)
        known = known or made
        if (known.version, known.pipeline, known.requested_at) != (made.version, made.pipeline, made.requested_at):
            raise _other_run(run_id)
        await self._log.append([*script_facts.begin(known)[1:], started])
        return await self._state(run_id)

    async def record(self, run_id: str, body: ScriptRecordsBody) -> ScriptRunState:
        """Record what a script has logged. Ignored after the end of the run.

        Raises:
            NotFoundError: there is no such run of a script.
            UnprocessableError: something that was logged is not valid.
            ContentTooLargeError: the entries are too large for one request.
        """
        await self._request(run_id)
        state = await self._state(run_id)
        if state.state != "running":
            return state
        commits = [_commit(run_id, entry) for entry in body.artifacts]
        await self._check_artifacts(fact.value for fact in commits)
        for message in _messages(run_id, body):
            rollup = {"Nats-Rollup": "sub"} if message.latest else {}
            await self._bus.publish(message.subject, message.body, {"Nats-Msg-Id": message.message_id, **rollup})
        await self._log.append(commits)
        return state

    async def end(self, run_id: str, body: ScriptEndBody) -> ScriptRunState:
        """End a run. The first end counts.

        Raises:
            NotFoundError: there is no such run of a script.
            UnprocessableError: the end is not valid.
        """
        request = await self._request(run_id)
        fields = body.model_dump(exclude={"environment", "source"}, exclude_none=True)
        try:
            fact = script_facts.read_end(run_id, request.requested_at, fields)
        except InvalidRecordingError as error:
            raise UnprocessableError("The end of the script is not valid", str(error)) from error
        fact.artifacts.update(script_facts.about(body.environment, body.source))
        await self._check_artifacts(fact.artifacts.values())
        await script_ends.append(self._log, fact)
        return await self._state(run_id)

    async def _request(self, run_id: str) -> RunRequested:
        try:
            request = await self._reader.find_request(ids.check_name(run_id, "run ID"))
        except InvalidIdError as error:
            raise NotFoundError("The run does not exist", str(error)) from error
        if request is None or request.version != script_runs.VERSION:
            raise NotFoundError(f"There is no run {run_id!r} of a script")
        return request

    async def _state(self, run_id: str) -> ScriptRunState:
        end = await self._reader.finished(run_id)
        return ScriptRunState.model_validate({"run_id": run_id, "state": end[1].outcome.value if end else "running"})

    async def _check_artifacts(self, given: Iterable[Value]) -> None:
        for ref in [ref for value in given for ref in values.references(value)]:
            if await self._artifacts.size(ref.sha256, keep=True) != ref.size:
                raise UnprocessableError(f"Artifact {ref.sha256} is not in the store", "put it before you refer to it")
            if not await self._artifacts.has_files(ref):
                raise UnprocessableError(f"Files of the folder {ref.sha256} are not in the store", "put them before it")


def _other_run(run_id: str) -> ConflictError:
    return ConflictError(f"Run {run_id!r} is another run", "a script sends each run with a new ID")


def _messages(run_id: str, body: ScriptRecordsBody) -> list[Message]:
    attempt = (run_id, script_runs.STEP, ATTEMPT)
    found: list[Message] = []
    if body.points is not None and body.points.items:
        points = [tail.read_point(list(item)) for item in body.points.items]
        known = [point for point in points if point is not None]
        if len(known) < len(points):
            raise UnprocessableError("A metric is not valid", "a point is [name, step, Unix time, value]")
        if body.points.first + len(known) > series.POINTS:
            raise UnprocessableError("The run has too many metrics", f"the limit is {series.POINTS} points")
        found += Messages(attempt, points=body.points.first).metrics(known)
    if body.entries is not None and body.entries.items:
        if not all(isinstance(entry.get("at"), int | float) for entry in body.entries.items):
            raise UnprocessableError("An entry is not valid", "its time, 'at', is missing")
        if not all(isinstance(entry.get("text", ""), str) for entry in body.entries.items):
            raise UnprocessableError("An entry is not valid", "its 'text' must be a string")
        if len(orjson.dumps(body.entries.items)) > _ENTRIES_BYTES:
            raise ContentTooLargeError("The entries are too large", f"send at most {_ENTRIES_BYTES} bytes at once")
        found += Messages(attempt, entries=body.entries.first).output(body.entries.items)
    if body.progress is not None:
        report = progress.Report(**body.progress.model_dump())
        if progress.decode(progress.encode(report)) is None:
            raise UnprocessableError("The progress is not valid", "`done` is from 0 to `total`, and `total` above 0")
        found.append(Messages(attempt, reports=int(report.at * 1000)).progress(report))
    return found


def _commit(run_id: str, entry: dict[str, object]) -> ArtifactCommitted:
    try:
        body = stored_artifact((run_id, script_runs.STEP, ATTEMPT), entry)
        place = subjects.committed(run_id, script_runs.STEP, ATTEMPT, str(body["name"]))
        fact: Fact | fact_codec.UnreadableFact | None = fact_codec.decode(place, orjson.dumps(body))
    except (KeyError, PenstockError, TypeError) as error:
        raise UnprocessableError("A stored artifact is not valid", str(error)) from error
    if not isinstance(fact, ArtifactCommitted):
        why = fact.why if isinstance(fact, fact_codec.UnreadableFact) else ""
        raise UnprocessableError("A stored artifact is not valid", why)
    return fact
