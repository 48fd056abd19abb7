"""Bodies and responses of the HTTP API about runs of scripts that are recorded on another machine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import INTEGER_LIMIT, Number, RequestBody

POINTS_LIMIT = 2_000
ENTRIES_LIMIT = 2_000
"""Most points and entries in one request."""

Time = Annotated[float, Field(strict=True, ge=0, lt=1e11, description="Unix time in seconds")]
Index = Annotated[int, Field(strict=True, ge=0, lt=INTEGER_LIMIT)]


class ScriptEnvironment(RequestBody):
    """The interpreter and the packages of a script."""

    implementation: str = Field(default="", max_length=100)
    version: str = Field(default="", max_length=100)
    digest: str = Field(default="", max_length=64)
    packages: dict[str, str] = Field(default_factory=dict[str, str], max_length=10_000)


class ScriptSource(RequestBody):
    """The file of a script, which was put as an artifact."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, lt=INTEGER_LIMIT)
    filename: str = Field(max_length=255)


class ScriptRunBody(RequestBody):
    """A run of a script that has started. `name` is that of the experiment, `inputs` are JSON values."""

    name: str = Field(min_length=1, max_length=200)
    began_at: Time
    inputs: dict[str, Any] = Field(default_factory=dict[str, Any], max_length=1000)
    host: str = Field(default="", max_length=200)
    file: str = Field(default="", max_length=4096)
    environment: ScriptEnvironment = Field(default_factory=ScriptEnvironment)
    git: dict[str, str | bool] | None = Field(default=None, max_length=20)
    source: ScriptSource | None = None


class ScriptPoints(RequestBody):
    """Metrics of a script, in the order in which it logged them: `[name, step, Unix time, value]`.

    A value is a number, or `nan`, `inf` or `-inf`.
    """

    first: Index = Field(description="index of the first of these points among all points of the run")
    items: list[tuple[str, int | None, float, float | str]] = Field(max_length=POINTS_LIMIT)


class ScriptEntries(RequestBody):
    """Parameters, tags and artifacts of a script, in the order in which it logged them."""

    first: Index = Field(description="index of the first of these entries among all entries of the run")
    items: list[dict[str, Any]] = Field(max_length=ENTRIES_LIMIT)


class ScriptProgress(RequestBody):
    """What a script reported last about its progress."""

    at: Time
    done: Number
    total: Number
    text: str = Field(default="", max_length=200)


class ScriptRecordsBody(RequestBody):
    """What a running script has logged since the last request. Sending the same again is idempotent."""

    points: ScriptPoints | None = None
    entries: ScriptEntries | None = None
    progress: ScriptProgress | None = None
    artifacts: list[dict[str, Any]] = Field(
        default_factory=list[dict[str, Any]], max_length=ENTRIES_LIMIT, description="stored artifacts, put before"
    )


class ScriptEndBody(RequestBody):
    """The end of a script, with its last values."""

    outcome: Literal["succeeded", "failed", "cancelled"]
    finished_at: Time
    error: dict[str, Any] | None = None
    metrics: dict[str, Number] = Field(default_factory=dict[str, float], max_length=500)
    non_finite: dict[str, str] = Field(default_factory=dict[str, str], max_length=500)
    params: dict[str, Any] = Field(default_factory=dict[str, Any], max_length=500)
    tags: dict[str, str] = Field(default_factory=dict[str, str], max_length=100)
    artifacts: dict[str, Any] = Field(default_factory=dict[str, Any], max_length=500)
    environment: ScriptEnvironment = Field(default_factory=ScriptEnvironment)
    source: ScriptSource | None = None


class ScriptRunState(BaseModel):
    """The state of a run of a script. After its end, records are ignored."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: Literal["running", "succeeded", "failed", "cancelled"]
