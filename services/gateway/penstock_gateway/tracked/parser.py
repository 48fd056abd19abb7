"""Parses what a script recorded about its run into facts. The files are not trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson
import pydantic
from pydantic import BaseModel, ConfigDict, Field

from penstock_adapters.files.growing_file import tail_of
from penstock_contracts.script_runs import ScriptEnvironment, ScriptRunBody, ScriptSource
from penstock_core.facts import AttemptFinished, Fact, RunRequested
from penstock_core.ids import NAME_PATTERN
from penstock_core.pipeline.values import Value
from penstock_core.shipping import script_end
from penstock_gateway.file_owner import owner
from penstock_gateway.tracked import script_facts
from penstock_gateway.tracked.script_facts import InvalidRecordingError

_LIMIT = 16 * 1024 * 1024

Json = dict[str, Any]


class _Begin(BaseModel):
    model_config = ConfigDict(frozen=True)

    penstock_tracked: Literal[1]
    run_id: str = Field(max_length=100)
    name: str = Field(max_length=200)
    began_at: float = Field(ge=0, lt=1e11)
    inputs: dict[str, Any] = Field(default_factory=dict, max_length=1000)
    host: str = Field(default="", max_length=200)
    file: str = Field(default="", max_length=4096)
    project: str = Field(default="", pattern=f"{NAME_PATTERN}|^$")


class _About(BaseModel):
    environment: ScriptEnvironment = Field(default_factory=ScriptEnvironment)
    git: dict[str, str | bool] | None = None
    source: ScriptSource | None = None


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
        return [*script_facts.begin(self.request), *script_facts.end(self.end)]


def read(folder: Path, project: str) -> RecordedRun:
    """Return the run in the folder of a finished script; in `project`, if the script names none. Blocks.

    Raises:
        InvalidRecordingError: the folder does not contain one.
        OSError: it cannot be read.
    """
    begin = _json(_Begin, folder / "begin.json")
    if begin is None or begin.run_id != folder.name:
        raise InvalidRecordingError("begin.json is missing, or belongs to another run")
    about = _json(_About, folder / "about.json") or _About()
    body = ScriptRunBody(**begin.model_dump(exclude={"penstock_tracked", "run_id", "project"}), **dict(about))
    request = script_facts.request(begin.run_id, begin.project or project, body, str(owner(folder)))
    end = _end(folder, begin)
    about_it = script_facts.about(about.environment, about.source)
    return RecordedRun(request, replace(end, artifacts={**end.artifacts, **about_it}))


def _end(folder: Path, begin: _Begin) -> AttemptFinished:
    given = _read(folder / "end.json")
    if given is None:
        return _killed(folder, begin)
    end = script_facts.read_end(begin.run_id, begin.began_at, given)
    return replace(end, finished_at=max(end.finished_at, begin.began_at))


def _killed(folder: Path, begin: _Begin) -> AttemptFinished:
    """Return the end of a script that recorded none, with everything that it had logged."""
    times = [path.stat().st_mtime for path in folder.iterdir()]
    found = script_end.killed(tail_of(str(folder / "run")), max([begin.began_at, *times]))
    return script_facts.read_end(begin.run_id, begin.began_at, found)


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
