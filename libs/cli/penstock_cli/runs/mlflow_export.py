"""`penstock runs export-mlflow`: export runs to an MLflow tracking server or store.

Each finished run becomes an MLflow run in the experiment of the pipeline's name, with all points of its metrics. A tag
identifies it, so a repeated export is a no-op; an incomplete export is deleted and repeated.

MLflow is an optional dependency, imported only by this command.
"""

from __future__ import annotations

import hashlib
import importlib
import json as codec
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from penstock.errors import ClientError
from penstock_cli.arguments import Json, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.runs.metrics import Series
    from penstock.client.views import Run

_RUN = "penstock.run_id"
_EXPORTED = "penstock.exported"
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED"}
_BATCH = 1000
_PARAMS = 100
_KEY_LIMIT = 250
_PARAM_LIMIT = 6000
_TAG_LIMIT = 5000
_INVALID = re.compile(r"[^\w.\- /]")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MlflowRun:
    """The fields of an MLflow run except its metrics; times are Unix milliseconds."""

    experiment: str
    name: str
    status: str
    start_time: int
    end_time: int
    params: dict[str, str]
    tags: dict[str, str]


def export_mlflow(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run ids, their first characters, or `last`.")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="Tracking URI of MLflow; default $PENSTOCK_MLFLOW_URL or $MLFLOW_TRACKING_URI."),
    ] = None,
    json: Json = False,
) -> None:
    """Export runs to MLflow.

    Exports parameters, metrics with all points, tags and times. Idempotent.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    address = to or os.environ.get("PENSTOCK_MLFLOW_URL") or os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        raise UsageError("no tracking URI: pass --to, or set PENSTOCK_MLFLOW_URL")
    mlflow = Mlflow(address)
    finished: list[dict[str, object]] = []
    with session.connect() as connected:
        for name in runs:
            run = connected.client.runs.get(resolve_run(connected.client, name))
            if not run.finished:
                raise UsageError(f"run {run.run_id} is {run.state}: export it when it has finished")
            mlflow_run, new = mlflow.export(connected.client, run)
            finished.append({"run_id": run.run_id, "mlflow_run_id": mlflow_run, "created": new})
            if not json:
                output.line(f"run {run.run_id} is MLflow run {mlflow_run}" + ("" if new else ", exported already"))
    if json:
        output.as_json(finished)


class Mlflow:
    """An MLflow tracking server or store.

    Raises:
        UsageError: mlflow is not installed.
        ClientError: MLflow rejects a request, or does not answer.
    """

    def __init__(self, address: str) -> None:
        try:
            self._entities: Any = importlib.import_module("mlflow.entities")
            tracking: Any = importlib.import_module("mlflow.tracking")
            self._refused: Any = importlib.import_module("mlflow.exceptions").MlflowException
        except ImportError as error:
            raise UsageError(
                f"mlflow cannot be imported ({error}): install it beside this command, for example "
                "with `pip install 'penstock[mlflow]'`"
            ) from error
        self._address = address
        self._client: Any = self._call(lambda: tracking.MlflowClient(tracking_uri=address))

    def export(self, client: Client, run: Run) -> tuple[str, bool]:
        """Export a run; return the id of its MLflow run, and whether it was created."""
        return self._call(lambda: self._export(client, run))

    def _export(self, client: Client, run: Run) -> tuple[str, bool]:
        wanted = to_mlflow_run(run)
        experiment = self._experiment(wanted.experiment)
        for found in self._client.search_runs([experiment], f"tags.`{_RUN}` = '{run.run_id}'"):
            if _EXPORTED in found.data.tags:
                return found.info.run_id, False
            self._client.delete_run(found.info.run_id)  # an incomplete export
        made = self._client.create_run(experiment, wanted.start_time, wanted.tags, wanted.name)
        run_id: str = made.info.run_id
        params = [self._entities.Param(name, value) for name, value in wanted.params.items()]
        for part in _batches(params, _PARAMS):
            self._client.log_batch(run_id, params=part)
        for part in _batches(self._metrics(client, run), _BATCH):
            self._client.log_batch(run_id, metrics=part)
        self._client.set_tag(run_id, _EXPORTED, run.state)
        self._client.set_terminated(run_id, wanted.status, wanted.end_time)
        return run_id, True

    def _metrics(self, client: Client, run: Run) -> Iterator[Any]:
        known = client.runs.metrics(run.run_id)
        for one, key in zip(known, metric_names(known), strict=True):
            points = client.runs.metric_history(run.run_id, one.name, step=one.step, attempt=one.attempt)
            for number, point in enumerate(points):
                step = number if point.step is None else point.step
                yield self._entities.Metric(key, point.value, int(point.at * 1000), step)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except self._refused:
                found = self._client.get_experiment_by_name(name)  # created concurrently
                if found is None:
                    raise
        return found.experiment_id

    def _call(self, ask: Any) -> Any:
        try:
            return ask()
        except self._refused as error:
            raise ClientError(
                f"MLflow at {self._address} rejected a request: {' '.join(str(error).split())[:500]}"
            ) from error


def to_mlflow_run(run: Run) -> MlflowRun:
    """Convert a run to the fields of an MLflow run."""
    several = len([step for step in run.steps.values() if step.params]) > 1
    given = [(name, _text(value)) for name, value in run.inputs.items()]
    for key, step in run.steps.items():
        given += [
            (f"{key}/{name}" if several else name, _text({"value": value})) for name, value in step.params.items()
        ]
    names = unique([name for name, _ in given])
    tags = dict(run.labels) | {name: text for step in run.steps.values() for name, text in step.tags.items()}
    about = {"pipeline": run.pipeline, "version": str(run.version), "state": run.state, "error": run.error or ""}
    tags |= {f"penstock.{name}": text for name, text in about.items() if text} | {_RUN: run.run_id}
    if "commit" in run.trigger:
        tags["mlflow.source.git.commit"] = run.trigger["commit"]
    return MlflowRun(
        experiment=run.trigger.get("name") or run.pipeline,
        name=run.run_id,
        status=_STATUS.get(run.state, "KILLED"),
        start_time=int(run.created_at * 1000),
        end_time=int((run.finished_at or run.created_at) * 1000),
        params={name: text[:_PARAM_LIMIT] for name, (_, text) in zip(names, given, strict=True)},
        tags={name: text[:_TAG_LIMIT] for name, text in zip(unique(list(tags)), tags.values(), strict=True)},
    )


def metric_names(known: Iterable[Series]) -> list[str]:
    """Return the MLflow names of series; prefixed with the step if several steps have a series of that name."""
    found = list(known)
    names = [one.name for one in found]
    return unique([f"{one.step}/{one.name}" if names.count(one.name) > 1 else one.name for one in found])


def unique(names: list[str]) -> list[str]:
    """Return valid MLflow names; those that would collide get a suffix from their digest."""
    made: list[str] = []
    for name in names:
        parts = [part if part.strip(". ") else "_" for part in _INVALID.sub("_", name).split("/") if part]
        key = "/".join(parts)[:_KEY_LIMIT].rstrip("/ ") or "_"
        if key in made:
            key = f"{key[: _KEY_LIMIT - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        made.append(key)
    return made


def _text(value: Any) -> str:
    match value:
        case {"value": str(text)}:
            return text
        case {"value": plain}:
            return codec.dumps(plain, ensure_ascii=False)
        case {"artifact": {"sha256": str(sha256)}}:
            return sha256
        case _:
            return codec.dumps(value, ensure_ascii=False)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while part := list(islice(left, size)):
        yield part
