"""The platform from Python: register, run, follow, read results. The `penstock` command is made of this.

    from penstock.client.client import Client

    client = Client()                                   # the platform of this folder, or $PENSTOCK_URL
    version = client.register("examples/training")
    run = client.run(version, inputs={"depth": 3}, wait=True)
    run.steps["train"].metrics
    model = client.value(run.run_id, "select")

Standard library only. Everything is safe to repeat and is repeated when a connection breaks: a request for a run
always carries an idempotency key, so that it is one run however often it is sent.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

from penstock.client import run_options, search, uploads, views
from penstock.client.errors import ClientError, RunFailedError
from penstock.client.limits import LimitsMixin
from penstock.client.lineage import LineageMixin
from penstock.client.metrics import MetricsMixin
from penstock.client.models import Models
from penstock.client.platform import Address, locator, state_folder
from penstock.client.retention import RetentionMixin
from penstock.client.run_options import CacheMode
from penstock.client.search import RunFilters
from penstock.client.sse import Message
from penstock.client.transport import Transport
from penstock.client.views import Event, LogLine, Preview, Reasons, Run, Schedule, Version
from penstock.client.waits import WaitsMixin

if TYPE_CHECKING:
    from penstock import Pipeline
    from penstock.sources import PreparedPipeline
    from penstock_core.folders import File

AnyPath = str | os.PathLike[str]
_VIEW_LAG = 10.0
"""Seconds that the view of a run may lag behind its last event."""


class Client(WaitsMixin, MetricsMixin, Models, LineageMixin, LimitsMixin, RetentionMixin):
    """Talks to one platform.

    Args:
        url: address of the platform; default `$PENSTOCK_URL`, else the one that is up for the state folder.
        token: its token; default `$PENSTOCK_TOKEN`, else the state folder's.
        home: the state folder; default `$PENSTOCK_HOME`, else `.penstock`.
        timeout: seconds that one answer, or silence on a stream, may take.
        patience: seconds that a platform that was met before may be away until an error is raised.
        locate: says where the platform is, instead of all of the above; it is waited for when it is not there yet.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        home: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 30.0,
        patience: float = 60.0,
        locate: Callable[[], Address] | None = None,
    ) -> None:
        self.home = state_folder(home)
        self.transport = Transport(locate or locator(url, token, home), timeout, patience, expected=locate is not None)

    def __repr__(self) -> str:
        return f"Client(home={str(self.home)!r})"

    def platform(self) -> dict[str, Any]:
        """What the platform says about itself.

        Raises:
            NoPlatform: none is running here.
        """
        return self.transport.json("GET", "/v1/platform") or {}

    # --------------------------------------------------------------------------------------------------- versions

    def register(self, pipeline: Pipeline | PreparedPipeline | str | os.PathLike[str]) -> Version:
        """Register a version of a pipeline: compile, upload its source, give it a number.

        The same pipeline, source and environment give the same version again.

        Args:
            pipeline: a `Pipeline` object, or a file or folder (`FILE` or `FILE:PIPELINE`) that holds one.

        Raises:
            DefinitionError: the pipeline does not compile; with the user's file and line.
            SourceError: the file cannot be imported.
        """
        # Only those who register need the compiler.
        from penstock import sources

        prepared = pipeline if isinstance(pipeline, sources.PreparedPipeline) else sources.prepare(pipeline)
        self.upload(prepared.source.data, prepared.source.digest)
        body = {
            "pipeline": prepared.ir,
            "source": prepared.source.digest,
            "environment": prepared.environment,
            "git": prepared.git,
        }
        return views.build(Version, self.transport.json("POST", "/v1/versions", body=body))

    def versions(self, pipeline: str | None = None) -> list[Version]:
        """Registered versions, of one pipeline or all."""
        answer = self.transport.json("GET", "/v1/versions", query={"pipeline": pipeline})
        rows = answer.get("versions", []) if isinstance(answer, dict) else answer
        return [views.build(Version, row) for row in rows]

    def compiled(self, pipeline: str, version: int) -> dict[str, Any]:
        """The compiled pipeline of a registered version, as JSON: its parameters, steps, nodes and outputs.

        Raises:
            NotFound: there is no such version.
        """
        return self.transport.json("GET", f"/v1/versions/{quote(pipeline)}/{version}")["pipeline"]

    def upload(self, content: Path | bytes, sha256: str) -> bool:
        """Put a file, or bytes, into the artifact store under its digest; False when it was there."""
        path = f"/v1/artifacts/{sha256}"
        if self.transport.exists(path):
            return False
        self.transport.upload(path, content)
        return True

    # ------------------------------------------------------------------------------------------------------- runs

    def run(
        self,
        pipeline: Pipeline | Version | str,
        version: int | None = None,
        inputs: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        cache: CacheMode = "use",
        refresh: Sequence[str] = (),
        deadline: float | None = None,
        wait: bool = False,
    ) -> Run:
        """Ask for a run.

        Args:
            pipeline: a registered pipeline's name, a `Version`, or a `Pipeline` object (registered first).
            version: number of the version; default the latest.
            inputs: values by parameter name. Plain data travels as JSON; files, tables, arrays and whatever else
                a step can give are uploaded as artifacts. Left out ones take their defaults.
            idempotency_key: the same key is the same run; default a new one.
            labels: texts to find the run by.
            priority: higher ones are served first.
            cache: `use` earlier results of steps that keep them, make them anew and keep these (`refresh`), or neither
                use nor keep any (`off`).
            refresh: steps that are made anew, by key or name.
            deadline: seconds after which the run is ended as failed; default as the pipeline says.
            wait: return when the run is over, with its steps.

        Raises:
            Refused: the inputs do not fit, or there is no such pipeline.
        """
        if not isinstance(pipeline, str | Version):
            pipeline = self.register(pipeline)
        if isinstance(pipeline, Version):
            name, version = pipeline.pipeline, version or pipeline.version
        else:
            name = pipeline
        body = {
            "pipeline": name,
            "version": version,
            "inputs": uploads.inputs(self, inputs or {}),
            "labels": dict(labels or {}),
            "priority": priority,
            **run_options.options(cache, refresh, deadline),
        }
        headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)}
        accepted = self.transport.json("POST", "/v1/runs", body=body, headers=headers)
        if wait:
            return self.wait(accepted["run_id"])
        return views.build(Run, accepted, state="queued")

    def rerun(
        self,
        run_id: str,
        version: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        *,
        cache: CacheMode = "use",
        refresh: Sequence[str] = (),
        deadline: float | None = None,
        resume: bool = False,
        from_step: str | None = None,
        wait: bool = False,
    ) -> Run:
        """Run an earlier run's pipeline again, as a new run with the same labels and priority, or only the rest of it.

        Args:
            run_id: the earlier run; the new one names it as `parent` in its trigger.
            version: `same` or `latest`; may be left out while the earlier run's version is the latest.
            inputs: what changes, as in `run`; all others are those of the earlier run.
            idempotency_key: the same key is the same run; default a new one.
            cache: as in `run`; that of the earlier run does not matter.
            refresh: as in `run`.
            deadline: as in `run`; that of the earlier run does not matter.
            resume: take over the results of the earlier run that still count, and run the other steps.
            from_step: resume, but run again what this key or name means, with all that follows.
            wait: return when the run is over, with its steps.

        Raises:
            NotFound: there is no such run.
            Refused: the version must be chosen, inputs or step are wrong, the run to resume is not over.
        """
        headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)}
        body = run_options.rerun_fields(version, uploads.inputs(self, inputs or {}), resume=resume, from_step=from_step)
        body |= run_options.options(cache, refresh, deadline)
        answer = self.transport.json("POST", f"/v1/runs/{quote(run_id)}/rerun", body=body, headers=headers)
        return self.wait(answer["run_id"]) if wait else views.accepted(answer)

    def runs(
        self, pipeline: str | None = None, state: str | None = None, limit: int = 20, **filters: Unpack[RunFilters]
    ) -> list[Run]:
        """The newest runs, at most `limit`, newest first unless sorted otherwise; see `RunFilters` for what chooses.

        Raises:
            Refused: a filter cannot be read.
        """
        return search.runs(self.transport, pipeline, state, limit, filters)

    def get(self, run_id: str) -> Run:
        """A run with its steps, as it stands.

        Raises:
            NotFound: there is no such run.
        """
        return views.parse_run(self.transport.json("GET", f"/v1/runs/{quote(run_id)}"))

    def explain(self, run_id: str, step: str | None = None) -> Reasons:
        """Why each step of a run, or one step or item, stands where it stands; `NotFound` where there is none."""
        only = f"?step={quote(step)}" if step is not None else ""
        return views.parse_reasons(self.transport.json("GET", f"/v1/runs/{quote(run_id)}/explain{only}"))

    def wait(self, run_id: str, timeout: float | None = None, *, check: bool = False) -> Run:
        """Return a run when it is over.

        Args:
            run_id: the run.
            timeout: seconds to wait at most; None waits for as long as the platform answers.
            check: raise `RunFailedError` unless it succeeded.

        Raises:
            ClientError: it was not over in time. The run goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        run, last = self.get(run_id), 0
        while not run.finished:
            if deadline is not None and time.monotonic() > deadline:
                raise ClientError(f"run {run_id} is still {run.state} after {timeout:g} s; it goes on")
            for event in self.events(run_id, after=last, deadline=deadline):
                last = event.seq
            run = self.get(run_id)
        if check and not run.succeeded:
            raise RunFailedError(run_id, run.state, run.error)
        return run

    def get_finished(self, run_id: str) -> Run:
        """A run whose `run.get_finished` was seen, once its view says so too."""
        deadline = time.monotonic() + _VIEW_LAG
        run = self.get(run_id)
        while not run.finished and time.monotonic() < deadline:
            time.sleep(0.02)
            run = self.get(run_id)
        return run

    # ---------------------------------------------------------------------------------------------------- streams

    def events(
        self, run_id: str, after: int = 0, until: int | None = None, *, deadline: float | None = None
    ) -> Iterator[Event]:
        """The facts of a run as they happen, from the first with a number above `after` to `run.get_finished`.

        With `until`, to that number: what has happened so far ends at `Run.last_seq`. At `deadline`, a time of
        `time.monotonic()`, the stream ends in any case.
        Survives broken connections and a restarted platform without a gap or a repetition.
        """

        def is_last(message: Message | None) -> bool:
            return message is not None and (message.event == "run.finished" or message.id >= (until or 1 << 62))

        path = f"/v1/runs/{quote(run_id)}/events"
        for message in self.transport.follow(path, after=after, is_last=is_last, deadline=deadline):
            data = message.data
            at = float(data.get("at") or 0.0)
            yield Event(message.id or int(data.get("seq") or 0), message.event, at, data)

    def logs(self, run_id: str, step: str | None = None, follow: bool = True, after: int = 0) -> Iterator[LogLine]:
        """What steps wrote and measured, in order; with `follow`, until the run is over."""
        path = f"/v1/runs/{quote(run_id)}/logs"
        last = after
        if follow and not self._logs_complete(run_id):
            query = {"step": step}
            for message in self.transport.follow(
                path, query=query, after=after, is_last=lambda m: not m and self.get(run_id).finished
            ):
                last = message.id or last
                yield from views.parse_log_lines(message)
        # A platform that stops ends its streams, too: this asks whether something was left.
        query = {"step": step, "follow": "false"}
        for message in self.transport.follow(path, query=query, after=last, is_last=lambda m: not m):
            yield from views.parse_log_lines(message)

    def _logs_complete(self, run_id: str) -> bool:
        """Whether a run has been over for so long that no line of it can still be on its way."""
        run = self.get(run_id)
        return run.finished and run.finished_at is not None and time.time() - run.finished_at > _VIEW_LAG

    # ----------------------------------------------------------------------------------------------------- values

    def value(self, run_id: str, step: str | None = None, output: str = "result") -> Any:
        """A result as a Python object: an output of a step, or of the run when no step is named.

        Pickles are loaded here, in your own process: only use it on runs whose code you trust.

        Raises:
            NotFound: there is no such output (yet).
        """
        # Serializers are needed by those who read values only.
        from penstock.client import value_reader

        return value_reader.load(self, self.get(run_id), step, output)

    def preview(self, run_id: str, step: str | None = None, output: str = "result") -> Preview:
        """What a result looks like: first rows, a thumbnail, the beginning of a text. Nothing is loaded here.

        Raises:
            NotFound: there is no such output (yet).
        """
        from penstock.client import value_reader

        return value_reader.preview(self, self.get(run_id), step, output)

    def download(
        self, run_id: str, step: str | None = None, output: str = "result", to: AnyPath = ".", file: str | None = None
    ) -> Path:
        """Write a result to a file: into the folder `to`, or as the file `to`. Returns where it lies.

        With `file`, a path within a result that is a folder, only that file is fetched.
        """
        from penstock.client import value_reader

        return value_reader.download(self, self.get(run_id), step, output, Path(to), file)

    def files(self, run_id: str, step: str | None = None, output: str = "result") -> list[File]:
        """The files of a result that is a folder, with their sizes in bytes and digests. Nothing else is fetched."""
        from penstock.client import value_reader

        return value_reader.listing(self, self.get(run_id), step, output)

    def export(self, run_id: str, to: AnyPath | None = None) -> Path:
        """Write the history of a run, its pipeline and the facts that it has now, as JSON lines.

        It is the file `to`, or `RUN.jsonl` in the folder `to` (default: the working directory), and appears whole or
        not at all. Returns where it lies. `penstock_testkit.histories` replays it without a platform.
        """
        from penstock.client import value_reader

        return value_reader.export(self, run_id, Path(to) if to is not None else Path())

    # -------------------------------------------------------------------------------------------------- schedules

    def schedules(self) -> list[Schedule]:
        """All schedules."""
        answer = self.transport.json("GET", "/v1/schedules")
        rows = answer.get("schedules", []) if isinstance(answer, dict) else answer
        return [views.build(Schedule, row) for row in rows]

    def apply_schedule(self, schedule: Schedule) -> Schedule:
        """Make or replace a schedule."""
        body = {name: getattr(schedule, name) for name in Schedule.__slots__}
        answer = self.transport.json("PUT", f"/v1/schedules/{quote(schedule.name)}", body=body)
        return views.build(Schedule, answer) if answer else schedule

    def delete_schedule(self, name: str) -> None:
        """Remove a schedule.

        Raises:
            NotFound: there is none of this name.
        """
        self.transport.json("DELETE", f"/v1/schedules/{quote(name)}")
