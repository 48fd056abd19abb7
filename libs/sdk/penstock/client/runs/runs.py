"""Runs: submit, list, watch, cancel, rerun, compare: `Client.runs`."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

from penstock.client import views
from penstock.client.artifacts.artifacts import Artifacts
from penstock.client.artifacts.atomic_files import write_atomically
from penstock.client.http.sse import Message
from penstock.client.http.transport import Transport
from penstock.client.retention import JanitorReport, wait_for_job
from penstock.client.runs import frame, requests
from penstock.client.runs.comparison import Comparison, parse_comparison
from penstock.client.runs.inputs import encode_inputs
from penstock.client.runs.metrics import Point, Series, parse_series
from penstock.client.runs.requests import RerunOptions, RunFilters, SubmitOptions
from penstock.client.views import AttemptInputs, Event, Item, LogLine, Reasons, Run, StepDetail
from penstock.errors import ClientError, RunFailedError

if TYPE_CHECKING:
    from pandas import DataFrame

_VIEW_LAG = 10.0
"""Seconds that the view of a run may lag behind its last event."""

_RUNS_PAGE = 200
_POINTS_PAGE = 20_000


class Runs:
    """`Client.runs`: submit runs, follow them and read their results."""

    def __init__(self, transport: Transport, artifacts: Artifacts) -> None:
        self._transport = transport
        self._artifacts = artifacts

    # --------------------------------------------------------------------------------------------------- requests

    def submit(self, pipeline: str, inputs: Mapping[str, Any] | None = None, **options: Unpack[SubmitOptions]) -> Run:
        """Submit a run of a registered pipeline; return it without waiting for it.

        Args:
            pipeline: name of the pipeline.
            inputs: values by parameter name. Plain data is sent as JSON; files, tables, arrays and other objects are
                uploaded as artifacts. Parameters without a value take their defaults.
            options: see `SubmitOptions`.

        Raises:
            RefusedError: the inputs do not fit, or there is no such pipeline or version.
        """
        body = {
            "pipeline": pipeline,
            "version": options.get("version"),
            "inputs": encode_inputs(self._artifacts, inputs or {}),
            "labels": dict(options.get("labels") or {}),
            "priority": options.get("priority", 0),
            **requests.cache_fields(options),
        }
        answer = self._transport.json("POST", "/v1/runs", body=body, headers=_idempotency(options))
        return views.parse_accepted(answer)

    def rerun(
        self,
        run_id: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        wait: bool = False,
        **options: Unpack[RerunOptions],
    ) -> Run:
        """Submit a new run with the pipeline, inputs, labels and priority of an earlier run.

        Args:
            run_id: the earlier run; the new run has it as `parent` in its trigger.
            inputs: inputs that change; the others are those of the earlier run.
            wait: return when the run has finished, with its steps.
            options: see `RerunOptions`. The cache mode and deadline of the earlier run do not apply.

        Raises:
            NotFoundError: there is no such run.
            RefusedError: the inputs do not fit, or `version` is required.
        """
        return self._rerun(run_id, inputs, {}, wait, options)

    def resume(
        self,
        run_id: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        from_step: str | None = None,
        wait: bool = False,
        **options: Unpack[RerunOptions],
    ) -> Run:
        """Submit a new run that reuses the results of an earlier run which are still valid, and runs the other steps.

        Args:
            run_id: the earlier run, which must have finished.
            inputs: inputs that change; the others are those of the earlier run.
            from_step: key or name of a step that runs again, with everything downstream of it.
            wait: return when the run has finished, with its steps.
            options: see `RerunOptions`.

        Raises:
            NotFoundError: there is no such run.
            RefusedError: the inputs or the step do not fit, `version` is required, or the earlier run is unfinished.
        """
        return self._rerun(run_id, inputs, {"resume": True, "from_step": from_step}, wait, options)

    def _rerun(
        self,
        run_id: str,
        inputs: Mapping[str, Any] | None,
        resume: Mapping[str, object],
        wait: bool,
        options: RerunOptions,
    ) -> Run:
        body = {
            "version": options.get("version"),
            "inputs": encode_inputs(self._artifacts, inputs or {}),
            **resume,
            **requests.cache_fields(options),
        }
        answer = self._transport.json("POST", f"{_path(run_id)}/rerun", body=body, headers=_idempotency(options))
        return self.wait(answer["run_id"]) if wait else views.parse_accepted(answer)

    def cancel(self, run_id: str, reason: str = "", *, step: str | None = None) -> str | None:
        """Request the cancellation of a run, or of one step or item: running attempts are stopped, the rest is skipped.

        Returns:
            The terminal state of a run or step that had already finished, in which case nothing was done; else None.

        Raises:
            NotFoundError: there is no such run or step.
        """
        path = f"{_path(run_id)}/steps/{quote(step)}" if step is not None else _path(run_id)
        body = {"reason": reason}
        return self._transport.json("POST", f"{path}/cancel", body=body)["state"]

    # ---------------------------------------------------------------------------------------------------- reading

    def get(self, run_id: str) -> Run:
        """Return the current view of a run, with its steps.

        Raises:
            NotFoundError: there is no such run.
        """
        return views.get_run(self._transport, run_id)

    def explain(self, run_id: str, step: str | None = None) -> Reasons:
        """Return why each step of a run, or one step or item, is in its state.

        Raises:
            NotFoundError: there is no such run or step.
        """
        query = {"step": step}
        return views.parse_reasons(self._transport.json("GET", f"{_path(run_id)}/explain", query=query))

    def step(self, run_id: str, step: str) -> StepDetail:
        """Return a step or item of a run with its inputs and attempts.

        Args:
            run_id: the run.
            step: key of the step, such as `train[3]`.

        Raises:
            NotFoundError: there is no such run or step.
        """
        return views.parse_detail(self._transport.json("GET", f"{_path(run_id)}/step", query={"step": step}))

    def items(self, run_id: str, step: str, state: str | None = None) -> Iterator[Item]:
        """Return the started items of a mapped step by index; pages are fetched as they are consumed.

        Args:
            run_id: the run.
            step: key of the mapped step.
            state: only items in this state.

        Raises:
            NotFoundError: there is no such run or step.
            RefusedError: the step is not mapped.
        """
        return views.get_items(self._transport, run_id, step, state)

    def attempt(self, run_id: str, step: str, number: int | None = None) -> AttemptInputs:
        """Return what an attempt of a step or item was given: inputs, checkpoint, source and environment.

        Args:
            run_id: the run.
            step: key of the step, such as `train[3]`.
            number: of the attempt, from 1; default the last one.

        Raises:
            NotFoundError: there is no such run, step or attempt.
            RefusedError: the step calls no function: it waits, is mapped, or reuses the result of another run.
        """
        query = {"step": step, "attempt": None if number is None else str(number)}
        found = self._transport.json("GET", f"{_path(run_id)}/attempt", query=query)
        return views.build(AttemptInputs, found, interpreters=tuple(found["interpreters"]))

    def wait(self, run_id: str, timeout: float | None = None, *, check: bool = False) -> Run:
        """Return a run when it has finished.

        Args:
            run_id: the run.
            timeout: seconds to wait at most; None waits for as long as the platform answers.
            check: raise `RunFailedError` unless the run succeeded.

        Raises:
            ClientError: it did not finish in time. The run continues.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        run, last = self.get(run_id), 0
        while not run.finished:
            if deadline is not None and time.monotonic() > deadline:
                raise ClientError(f"run {run_id} is still {run.state} after {timeout:g} s; it continues")
            for event in self.events(run_id, after=last, deadline=deadline):
                last = event.seq
            run = self.get(run_id)
        if check and not run.succeeded:
            raise RunFailedError(run_id, run.state, run.error)
        return run

    def get_finished(self, run_id: str) -> Run:
        """Return the view of a run whose `run.finished` event was received, once the view includes it."""
        deadline = time.monotonic() + _VIEW_LAG
        run = self.get(run_id)
        while not run.finished and time.monotonic() < deadline:
            time.sleep(0.02)
            run = self.get(run_id)
        return run

    def events(
        self, run_id: str, after: int = 0, until: int | None = None, *, deadline: float | None = None
    ) -> Iterator[Event]:
        """Stream the facts of a run as they are recorded, until `run.finished`.

        Survives broken connections and a restarted platform without gaps or duplicates.

        Args:
            run_id: the run.
            after: sequence after which to start.
            until: last sequence to return; `Run.last_seq` ends the stream at the current state.
            deadline: time of `time.monotonic()` at which the stream ends in any case.
        """

        def is_last(message: Message | None) -> bool:
            return message is not None and (message.event == "run.finished" or message.id >= (until or 1 << 62))

        path = f"{_path(run_id)}/events"
        for message in self._transport.follow(path, after=after, is_last=is_last, deadline=deadline):
            data = message.data
            at = float(data.get("at") or 0.0)
            yield Event(message.id or int(data.get("seq") or 0), message.event, at, data)

    def logs(self, run_id: str, step: str | None = None, follow: bool = True, after: int = 0) -> Iterator[LogLine]:
        """Stream what steps print, their metrics and progress, in order; with `follow`, until the run has finished.

        Of the progress of a step, only what was reported last is kept.
        """
        path = f"{_path(run_id)}/logs"
        last = after
        if follow and not self._logs_complete(run_id):
            query = {"step": step}
            for message in self._transport.follow(
                path, query=query, after=after, is_last=lambda m: not m and self.get(run_id).finished
            ):
                last = message.id or last
                yield from views.parse_log_lines(message)
        # A platform that stops ends its streams, too: this request returns what is left.
        query = {"step": step, "follow": "false"}
        for message in self._transport.follow(path, query=query, after=last, is_last=lambda m: not m):
            yield from views.parse_log_lines(message)

    def _logs_complete(self, run_id: str) -> bool:
        """Whether a run finished so long ago that all its lines have arrived."""
        run = self.get(run_id)
        return run.finished and run.finished_at is not None and time.time() - run.finished_at > _VIEW_LAG

    # ---------------------------------------------------------------------------------------------------- metrics

    def metrics(
        self,
        run_id: str,
        name: str | None = None,
        *,
        step: str | None = None,
        attempt: int | None = None,
        points: int | None = None,
    ) -> list[Series]:
        """Return the metrics of a run by name and step: at most 1,000 series, or 50 with points.

        Of each step the series of its last attempt that logged metrics are returned.

        Args:
            run_id: the run.
            name: only the series of this name, with points.
            step: only the series of this step, by its key.
            attempt: the series of this attempt.
            points: maximum number of points of each series, at least 5, default 500; the first, last, smallest and
                largest are included.

        Raises:
            NotFoundError: there is no such run or series.
        """
        query = {"name": name, "step": step, "attempt": attempt, "points": points}
        found = self._transport.json("GET", f"{_path(run_id)}/metrics", query=query)
        return [parse_series(row) for row in found["series"]]

    def metric_history(
        self, run_id: str, name: str, *, step: str | None = None, attempt: int | None = None
    ) -> Iterator[Point]:
        """Return all points of one series, in order; pages are fetched as they are consumed.

        Raises:
            NotFoundError: there is no such run or series.
            RefusedError: several steps have a series of this name: pass `step`.
        """
        after: str | None = None
        while True:
            query = {"name": name, "step": step, "attempt": attempt, "limit": _POINTS_PAGE, "after": after}
            page = self._transport.json("GET", f"{_path(run_id)}/metrics", query=query)
            for row in page["series"]:
                yield from parse_series(row).points
            after = page.get("next")
            if after is None:
                return

    def compare(self, run_ids: Sequence[str], *, include_equal: bool = False) -> Comparison:
        """Compare runs: inputs, parameters, tags, metrics, outputs, code, environment, durations.

        Args:
            run_ids: 2 to 20 runs.
            include_equal: include the properties that are the same in all of them.

        Raises:
            NotFoundError: there is no such run.
            RefusedError: one run, or too many.
        """
        query = {"runs": ",".join(run_ids), "all": "true" if include_equal else None}
        return parse_comparison(self._transport.json("GET", "/v1/compare", query=query))

    # ---------------------------------------------------------------------------------------------------- history

    def export(self, run_id: str, to: str | os.PathLike[str] = ".") -> Path:
        """Write the history of a run, its pipeline and all its facts, as JSON lines; return the path of the file.

        The file is `to`, or `RUN.jsonl` in the folder `to`, and appears complete or not at all.
        `penstock_testkit.histories` replays it without a platform.
        """
        folder = Path(to)
        target = folder / f"{run_id}.jsonl" if folder.is_dir() else folder

        def fetch(part: Path) -> None:
            with part.open("wb") as file:
                self._transport.download(f"{_path(run_id)}/history", file)

        write_atomically(target, fetch)
        return target

    def archive(self, run_id: str) -> JanitorReport:
        """Move the facts of a finished run from the log to the archive now.

        Raises:
            NotFoundError: there is no such run.
            JobFailedError: the artifact store does not answer.
        """
        return wait_for_job(self._transport, self._transport.json("POST", f"{_path(run_id)}/archive"))

    def delete(self, run_id: str) -> None:
        """Delete a finished run. Later garbage collections remove the artifacts that only it refers to.

        Raises:
            NotFoundError: there is no such run.
            RefusedError: the run is unfinished, or another run needs it.
        """
        self._transport.json("DELETE", _path(run_id))

    def list(
        self,
        pipeline: str | None = None,
        state: str | None = None,
        limit: int = 20,
        *,
        values: bool = False,
        **filters: Unpack[RunFilters],
    ) -> list[Run]:
        """Return at most `limit` runs, newest first unless sorted otherwise; see `RunFilters`.

        With `values`, the runs have their `inputs`, `input_models` and `outputs`.

        Raises:
            RefusedError: a filter is not valid.
        """
        query = requests.list_query(pipeline, state, filters)
        found: list[Run] = []
        cursor: str | None = None
        while len(found) < limit:
            part = {
                "limit": min(limit - len(found), _RUNS_PAGE),
                "cursor": cursor,
                "values": "true" if values else None,
            }
            page = self._transport.json("GET", "/v1/runs", query=query | part)
            found += [views.parse_run(row) for row in page["runs"]]
            cursor = page.get("next")
            if not cursor or not page["runs"]:
                break
        return found[:limit]

    def frame(
        self, pipeline: str | None = None, state: str | None = None, limit: int = 100, **filters: Unpack[RunFilters]
    ) -> DataFrame:
        """Return runs as a `pandas.DataFrame`, one row for each; the arguments are those of `list`.

        Columns: `run` (id), `pipeline`, `version`, `state`, `created` (UTC), `duration` (seconds; NaN while the run is
        unfinished), then `inputs.NAME`, `metrics.NAME` and `labels.NAME`. An input that is an artifact is its digest. A
        metric that several steps log has a column for each, `metrics.STEP.NAME`; items of mapped steps are left out.
        Each run is fetched by one request.

        Raises:
            ClientError: pandas is not installed.
            RefusedError: a filter is not valid.
        """
        return frame.frame([self.get(run.run_id) for run in self.list(pipeline, state, limit, **filters)])


def _path(run_id: str) -> str:
    return f"/v1/runs/{quote(run_id)}"


def _idempotency(options: SubmitOptions | RerunOptions) -> dict[str, str]:
    return {"idempotency-key": options.get("idempotency_key") or secrets.token_hex(16)}
