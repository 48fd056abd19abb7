"""Parses what a script recorded about its run into facts. The files are not trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from penstock_adapters.files.growing_file import tail_of
from penstock_contracts import fact_codec, subjects
from penstock_core import ids, script_runs
from penstock_core.errors import PenstockError
from penstock_core.facts import (
    AttemptFinished,
    AttemptRequested,
    Fact,
    Outcome,
    RunFinished,
    RunRequested,
)
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored, Value
from penstock_gateway.file_owner import owner

_LIMIT = 16 * 1024 * 1024
_ENDS = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED})
KILLED = "the script was killed, or its machine stopped, before it finished"

Json = dict[str, Any]


class InvalidRecordingError(PenstockError):
    """The folder does not contain a valid run; the message says why."""


class _Begin(BaseModel):
    model_config = ConfigDict(frozen=True)

    penstock_tracked: Literal[1]
    run_id: str = Field(max_length=100)
    name: str = Field(max_length=200)
    pipeline: str = Field(max_length=100)
    began_at: float = Field(ge=0, lt=1e11)
    inputs: dict[str, Any] = Field(default_factory=dict, max_length=1000)
    host: str = Field(default="", max_length=200)
    file: str = Field(default="", max_length=4096)


class _Environment(BaseModel):
    python: str = Field(default="", max_length=4096)
    version: str = Field(default="", max_length=100)
    digest: str = Field(default="", max_length=64)
    packages: dict[str, str] = Field(default_factory=dict)


class _Source(BaseModel):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, lt=2**53)
    filename: str = Field(max_length=255)


class _About(BaseModel):
    environment: _Environment = Field(default_factory=_Environment)
    git: dict[str, str | bool] | None = None
    source: _Source | None = None


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """The run of a script."""

    request: RunRequested
    end: AttemptFinished

    def values(self) -> list[Value]:
        """Return all values that may contain artifacts."""
        return list(self.end.artifacts.values())

    def facts(self) -> list[Fact]:
        """Return all facts of the run."""
        request, end = self.request, self.end
        attempt: Json = {"run_id": request.run_id, "key": end.key, "attempt": end.attempt}
        error = end.error.message if end.error is not None else None
        return [
            request,
            AttemptRequested(
                **attempt,
                pool=script_runs.POOL,
                project=request.project,
                pipeline=request.pipeline,
                version=request.version,
                entrypoint="",
            ),
            end,
            RunFinished(run_id=request.run_id, outcome=end.outcome, error=error, finished_at=end.finished_at),
        ]


def read(folder: Path, project: str) -> RecordedRun:
    """Return the run in the folder of a finished script. Blocks.

    Raises:
        InvalidRecordingError: the folder does not contain one.
        OSError: it cannot be read.
    """
    begin = _json(_Begin, folder / "begin.json")
    if begin is None or begin.run_id != folder.name:
        raise InvalidRecordingError("begin.json is missing, or belongs to another run")
    about = _json(_About, folder / "about.json") or _About()
    request = RunRequested(
        run_id=begin.run_id,
        project=project,
        pipeline=ids.check_name(begin.pipeline, "pipeline"),
        version=script_runs.VERSION,
        inputs={name: Inline(value) for name, value in begin.inputs.items()},
        trigger=_trigger(begin, about),
        requested_at=begin.began_at,
        requested_by=str(owner(folder)),
    )
    _check(request)
    end = _end(folder, begin)
    return RecordedRun(request, replace(end, artifacts={**end.artifacts, **_environment_artifacts(about)}))


def _environment_artifacts(about: _About) -> dict[str, Value]:
    """Return the artifacts beside those that the script logged: its packages and its own file."""
    found: dict[str, Value] = {}
    if about.environment.packages:
        found[script_runs.ENVIRONMENT] = Inline(about.environment.model_dump())
    if about.source is not None:
        file = about.source.model_dump()
        found[script_runs.SOURCE] = Stored(ArtifactRef(**file, media_type="text/x-python", format="file"))
    return found


def _end(folder: Path, begin: _Begin) -> AttemptFinished:
    given = _read(folder / "end.json")
    if given is None:
        return _killed(folder, begin)
    attempt = {"run_id": begin.run_id, "key": script_runs.STEP, "attempt": 1, "started_at": begin.began_at}
    end = _fact(given | attempt | {"executor": script_runs.STEP, "outputs": {}})
    if end.outcome not in _ENDS:
        raise InvalidRecordingError(f"end.json has the outcome {end.outcome}, which a script cannot have")
    return replace(end, finished_at=max(end.finished_at, begin.began_at))


def _killed(folder: Path, begin: _Begin) -> AttemptFinished:
    """Return the end of a script that recorded none, with everything that it had logged."""
    tail = tail_of(str(folder / "run"))
    found: dict[str, Json] = {"metrics": {}, "params": {}, "tags": {}, "artifacts": {}}
    while True:
        for point in tail.points(last=True):
            found["metrics"][point.name] = point.value
        for entry in tail.entries(last=True):
            for what, part in (("param", "params"), ("tag", "tags"), ("artifact", "artifacts")):
                if what in entry:
                    found[part][str(entry[what])] = entry.get("value")
        tail.commits(last=True)
        if tail.exhausted:
            break
    times = [path.stat().st_mtime for path in folder.iterdir()]
    error = {"type": "Lost", "message": KILLED}
    attempt = {"run_id": begin.run_id, "key": script_runs.STEP, "attempt": 1, "executor": script_runs.STEP}
    when = {"started_at": begin.began_at, "finished_at": max([begin.began_at, *times])}
    logged = dict(list(found["metrics"].items())[:500])
    found["metrics"] = {name: value for name, value in logged.items() if math.isfinite(value)}
    found["non_finite"] = {name: str(value) for name, value in logged.items() if not math.isfinite(value)}
    return _fact(found | attempt | when | {"outcome": "failed", "error": error})


def _fact(fields: Json) -> AttemptFinished:
    at = subjects.finished(fields["run_id"], fields["key"], fields["attempt"])
    fact = fact_codec.decode(at, orjson.dumps(fields))
    if not isinstance(fact, AttemptFinished):
        raise InvalidRecordingError(
            fact.why if isinstance(fact, fact_codec.UnreadableFact) else "end.json is not the end of an attempt"
        )
    return fact


def _check(request: RunRequested) -> None:
    """Refuse a fact that cannot be read back."""
    found = fact_codec.decode(fact_codec.subject(request), fact_codec.encode(request))
    if isinstance(found, fact_codec.UnreadableFact):
        raise InvalidRecordingError(found.why)


def _trigger(begin: _Begin, about: _About) -> dict[str, str]:
    git = {
        name: str(value).lower() if value in (True, False) else str(value) for name, value in (about.git or {}).items()
    }
    trigger = {
        "type": script_runs.TRIGGER,
        "name": begin.name,
        "file": begin.file,
        "host": begin.host,
        "source": about.source.sha256 if about.source is not None else "",
        "python": about.environment.version,
        "environment": about.environment.digest,
        **{name: git[name][:1000] for name in ("commit", "branch", "remote", "dirty") if name in git},
    }
    return {name: text for name, text in trigger.items() if text}


def _json(model: Any, path: Path) -> Any:
    given = _read(path)
    if given is None:
        return None
    try:
        return model.model_validate(given)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRecordingError(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _read(path: Path) -> Json | None:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return None
    if len(data) > _LIMIT:
        raise InvalidRecordingError(f"{path.name} is larger than {_LIMIT >> 20} MiB")
    try:
        given = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRecordingError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidRecordingError(f"{path.name} is not a JSON object")
    return given
