"""Requests and responses of the HTTP API under `/v1`. States are in lower case; times are Unix seconds."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from penstock_contracts.bodies import Number, RequestBody
from penstock_contracts.commands import (
    EnvironmentInfo,
    GitInfo,
    InterpreterHint,
    LockedEnvironment,
    StoreInfo,
    Version,
)
from penstock_contracts.waits import WaitView
from penstock_core.facts import CacheReport
from penstock_core.frozen import frozen

Json = Any

MAX_DEADLINE = 1e9
"""Largest deadline in seconds."""


_VERSION_CHOICE: dict[str, Json] = {
    "anyOf": [{"enum": ["same", "latest"], "type": "string"}, {"minimum": 1, "type": "integer"}, {"type": "null"}]
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class EnvironmentBody(EnvironmentInfo, RequestBody):
    """The environment that the pipeline was compiled in and runs in, without any path."""


class LockedEnvironmentBody(LockedEnvironment, RequestBody):
    """An environment that the pipeline declares, as `POST /v1/environments` resolved it."""


class InterpreterBody(InterpreterHint, RequestBody):
    """Where the environment is installed on this machine; no part of a version's identity."""


class GitBody(GitInfo, RequestBody):
    """The commit of the source bundle, if its folder is a Git work tree."""


class RegisterBody(RequestBody):
    """Register a version of a pipeline. `pipeline` is the IR; put `source` to `/v1/artifacts/{sha256}` first.

    Without `publish` the version is an experiment: it is listed and can be run by its number, but it is never `latest`.
    """

    pipeline: dict[str, Json]
    source: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the source bundle")
    code: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the project modules that the pipeline imports; null: the whole bundle",
    )
    environment: EnvironmentBody
    environments: dict[str, LockedEnvironmentBody] = Field(
        default_factory=dict, max_length=100, description="by name, for steps that name it"
    )
    interpreter: InterpreterBody | None = None
    git: GitBody | None = None
    publish: bool = False


class VersionRegistered(_Model):
    """The version's number; `created` is False when an equal version existed."""

    project: str
    pipeline: str
    version: int
    created: bool
    published: bool


class VersionSummary(_Model):
    """A version without its IR. `latest` marks the version that was published last."""

    project: str
    pipeline: str
    version: int
    digest: str
    source: str
    registered_at: float
    registered_by: str = ""
    published: bool = False
    published_at: float | None = None
    published_by: str = ""
    latest: bool = False
    git: GitInfo | None = None
    steps: int


class VersionView(Version):
    """A version with its IR. `latest` marks the version that was published last."""

    published: bool = False
    published_at: float | None = None
    published_by: str = ""
    latest: bool = False


class VersionList(_Model):
    """Versions, oldest first. `unreadable` names those whose stored bytes are damaged, such as `train v3`."""

    versions: list[VersionSummary]
    unreadable: list[str] = []


class RunBody(RequestBody):
    """Submit a run. `inputs` are JSON values by parameter name; `version` null is the latest published one.

    `cache` applies to steps with a cache: `use` reads and writes cached results, `refresh` ignores and overwrites them,
    `off` does neither. `refresh` lists steps, by key or name, whose cached results are ignored and overwritten.
    `deadline` is in seconds from now: a run that has not finished by then fails. Null: as the pipeline defines it.
    """

    pipeline: str
    version: int | None = None
    inputs: dict[str, Json] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    priority: int = Field(default=0, ge=-1000, le=1000)
    cache: Literal["use", "refresh", "off"] = "use"
    refresh: list[str] = Field(default_factory=list, max_length=1000)
    deadline: Number | None = Field(default=None, gt=0, le=MAX_DEADLINE)


class RerunBody(RequestBody):
    """Run an earlier run's pipeline again, as a new run with the same labels and priority.

    `version` is that of the earlier run (`same`), the `latest` published one, or a number. It may be omitted unless the
    earlier run's version is published and a later one was published since.
    `inputs` override those of the earlier run. `cache`, `refresh` and `deadline` are those of the new run, as when a
    run is submitted.

    With `resume`, valid results of the earlier run are reused, and the other steps run. With `from_step` the run is
    resumed, and that step and all its dependents run again: a key, an item such as `train[3]`, the name of a step for
    all its calls, or of a sub-pipeline for all its steps. Steps in `refresh` run again, too.
    """

    version: Annotated[str | int | None, WithJsonSchema(_VERSION_CHOICE)] = None
    inputs: dict[str, Json] = Field(default_factory=dict)
    cache: Literal["use", "refresh", "off"] = "use"
    refresh: list[str] = Field(default_factory=list, max_length=1000)
    deadline: Number | None = Field(default=None, gt=0, le=MAX_DEADLINE)
    resume: bool = False
    from_step: str | None = Field(default=None, min_length=1, max_length=1000)

    @field_validator("version")
    @classmethod
    def _is_choice(cls, value: str | int | None) -> str | int | None:
        if value in (None, "same", "latest") or (isinstance(value, int) and value >= 1):
            return value
        raise ValueError("must be 'same', 'latest' or the number of a version")


class CancelBody(RequestBody):
    """Cancel a run or a step: why."""

    reason: str = Field(default="", max_length=1000)


class CancelResult(_Model):
    """The run; `state` is that of a finished run, and null if the cancel was requested."""

    run_id: str
    state: str | None = None


class Resumed(_Model):
    """What a resumed run reuses: number of steps, and of items by mapped step that runs again.

    `rerun_steps` has the reason for each step that runs again; empty for an existing run (idempotency key).
    """

    from_run: str
    steps: int
    items: dict[str, int] = Field(default_factory=dict)
    rerun_steps: dict[str, str] = Field(default_factory=dict)


class RunAccepted(_Model):
    """The submitted run; `created` is false if the idempotency key belongs to an existing run."""

    run_id: str
    pipeline: str
    version: int
    created: bool
    resumed: Resumed | None = None
    warnings: list[str] | None = Field(default=None, description="such as steps whose pool has no executor yet")


@frozen(kw_only=True)
class StepError:
    """Why a step failed: type and message of the exception or reason, and the user's traceback."""

    type: str
    message: str
    traceback: str = ""


@frozen(kw_only=True)
class FailedItem:
    """An item of a mapped step that failed, with type and message of its error."""

    key: str
    type: str
    message: str


@frozen(kw_only=True)
class ProgressView:
    """How far an attempt is, as its step reported it at `at`: `done` of `total`."""

    done: float
    total: float
    text: str = ""
    at: float = 0.0


@frozen(kw_only=True)
class CheckpointView:
    """The last checkpoint of a step: which attempt saved it, when, and the value."""

    attempt: int
    at: float
    value: Json


# A dataclass: a run may have thousands of steps, and pydantic takes ten times as long to create models of them.
@frozen(kw_only=True)
class StepView:
    """A step of a run in its present state."""

    state: str
    attempts: int
    started_at: float | None = None
    finished_at: float | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    non_finite: Annotated[
        dict[str, str], Field(description="metrics that are NaN or infinite, as `nan`, `inf` or `-inf`")
    ] = field(default_factory=dict[str, str])
    params: dict[str, Json] = field(default_factory=dict[str, Any])
    tags: Annotated[dict[str, str], Field(description="searchable like labels")] = field(default_factory=dict[str, str])
    reason: str | None = None
    error: StepError | None = None
    executor: str | None = None
    outputs: Annotated[dict[str, Json], Field(description="values: inline JSON, or an artifact reference")] = field(
        default_factory=dict[str, Any]
    )
    artifacts: Annotated[
        dict[str, Json],
        Field(description="logged artifacts; of a running step, those that the attempt has stored so far"),
    ] = field(default_factory=dict[str, Any])
    checkpoint: CheckpointView | None = None
    cache: CacheReport | None = None
    waits_for: Annotated[WaitView | None, Field(description="of a suspended step")] = None
    from_run: Annotated[str | None, Field(description="the run whose result is reused")] = None
    depends_on: list[str] = field(default_factory=list[str])
    items: Annotated[
        dict[str, int] | None,
        Field(description="of a mapped step: `count`, how many have `finished`, and the number of items per state"),
    ] = None
    progress: Annotated[
        ProgressView | None, Field(description="the latest that the present attempt reported; null once it succeeded")
    ] = None
    last_failed: Annotated[FailedItem | None, Field(description="of a mapped step: the item that failed last")] = None
    item_of: Annotated[str | None, Field(description="of an item: the mapped step")] = None


@frozen(kw_only=True)
class AttemptView:
    """An attempt of a step. Times are Unix seconds, and null if they are unknown; durations are in seconds.

    An attempt is queued until an executor begins with it, then it loads source and inputs, the function runs, and its
    outputs are saved. These durations are null before the attempt has finished, except that of the queue.
    """

    number: int
    state: Annotated[str, Field(description="`queued`, `running`, `suspended`, or its outcome")]
    executor: str | None = None
    requested_at: float | None = None
    started_at: Annotated[float | None, Field(description="of the function; of a running attempt, its process")] = None
    finished_at: float | None = None
    queue_seconds: float | None = None
    load_seconds: float | None = None
    run_seconds: float | None = None
    save_seconds: float | None = None
    error: StepError | None = None


@frozen(kw_only=True)
class StepDetail(StepView):
    """A step or item with its inputs and attempts.

    Of a step that has not started, the inputs are included that are known. Those of a mapped step are its lists and
    what all items share.
    """

    run_id: str
    key: str
    inputs: Annotated[dict[str, Json], Field(description="values: inline JSON, or an artifact reference")]
    input_models: Annotated[
        dict[str, str], Field(description="the registered models among the inputs, such as churn:3, by name")
    ]
    history: list[AttemptView]


@frozen(kw_only=True)
class ItemView(StepView):
    """An item of a mapped step, with the inputs that differ between items."""

    inputs: dict[str, Json] = field(default_factory=dict[str, Any])


class ItemPage(_Model):
    """A page of items of a mapped step by key, in order; `next` is null on the last page."""

    items: dict[str, ItemView]
    next: int | None = None


class RunSummary(_Model):
    """A run in a list. `metrics` and `params` are those that the list is filtered or sorted by."""

    run_id: str
    project: str
    pipeline: str
    version: int
    state: str
    created_at: float
    finished_at: float | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    trigger: dict[str, str] = Field(default_factory=dict)
    error: str | None = None
    started_at: float | None = None
    duration: float | None = Field(default=None, description="seconds from the request to the end")
    deployment: str | None = None
    requested_by: str = Field(default="", description="principal, such as `user:ada` or `trigger:nightly`")
    metrics: dict[str, float] = Field(default_factory=dict)
    params: dict[str, Json] = Field(default_factory=dict)


class RegisteredByRun(_Model):
    """A model version that a step of the run registered, and what became of the alias that the step requested for it.

    Without a requested alias, `alias` and `promoted` are null. `clauses` are the results of the comparisons of `gate`.
    """

    model: str
    version: int
    reference: str = Field(description="such as churn:3")
    step: str
    alias: str | None = None
    promoted: bool | None = Field(default=None, description="false: the gate refused it")
    gate: str = ""
    clauses: list[str] = Field(default_factory=list)


class RunValues(RunSummary):
    """A run with its inputs and outputs."""

    inputs: dict[str, Json] = Field(default_factory=dict)
    input_models: dict[str, str] = Field(
        default_factory=dict, description="the registered models among the inputs, such as churn:3, by parameter"
    )
    outputs: dict[str, Json] = Field(default_factory=dict)


class RunView(RunValues):
    """A run with its steps by key, in the order of the pipeline; a mapped step is followed by its items.

    Of a mapped step with more than 1,000 items, 1,000 are included: unfinished and unsuccessful ones first.
    """

    models: list[RegisteredByRun] = Field(default_factory=list)
    steps: dict[str, StepView] = Field(default_factory=dict)
    last_seq: int = 0


class AttemptInputs(_Model):
    """What an attempt was given: enough to call its function again.

    `interpreters` are the paths of interpreters that had the environment on the machines of those who registered it.
    """

    request: dict[str, Json] = Field(description="the fact `attempt.requested`, with all references resolved")
    checkpoint: Json = Field(default=None, description="what `context().restore()` returns, as a stored value")
    state: str
    source: str = Field(description="SHA-256 of the source bundle")
    environment: EnvironmentInfo
    interpreters: list[str] = Field(default_factory=list)


class StepReason(_Model):
    """Why a step is in its state.

    `caused_by` lists the responsible steps: unfinished ones that it waits for, or the one that prevented it from
    running, followed by the root cause. `since` is null if unknown.
    """

    key: str
    state: str
    sentence: str
    caused_by: list[str] = Field(default_factory=list)
    since: float | None = None


class RunReasons(_Model):
    """Why the steps of a run are in their states at time `at`, in the order of the pipeline."""

    run_id: str
    pipeline: str
    version: int
    state: str
    at: float
    steps: list[StepReason] = Field(default_factory=list)


class RunPage(_Model):
    """A page of runs; `next` is null on the last page.

    `lag` counts facts of the log that the read model lacks; it is 0 except during a rebuild.
    """

    runs: list[RunValues | RunSummary]
    next: str | None = None
    lag: int = 0


class ArtifactUse(_Model):
    """An artifact, and its name in the step."""

    name: str
    sha256: str


class LineageStep(_Model):
    """An attempt in a lineage, with what it read and made. Without key: the run as a whole.

    `level` is the distance in attempts from the artifact; `source` is the digest of the source bundle.
    """

    run_id: str
    key: str
    attempt: int
    pipeline: str
    version: int
    state: str
    level: int
    reads: list[ArtifactUse] = Field(default_factory=list)
    makes: list[ArtifactUse] = Field(default_factory=list)
    source: str | None = None


class Lineage(_Model):
    """An artifact, the attempts that made it (`up`) and used it (`down`); `whole` is false if the lineage is cut."""

    sha256: str
    size: int
    media_type: str
    format: str
    filename: str = ""
    whole: bool = True
    up: list[LineageStep] = Field(default_factory=list)
    down: list[LineageStep] = Field(default_factory=list)


class RebuildAccepted(_Model):
    """The read model is being rebuilt, up to this sequence of the log."""

    upto: int


class StoredObject(_Model):
    """An object in the artifact store, with its size in bytes."""

    sha256: str
    size: int


class HealthView(_Model):
    """The process runs."""

    status: str


class Readiness(_Model):
    """Whether requests can be served, which parts work, and what an operator must know about the streams."""

    ready: bool
    parts: dict[str, bool]
    problems: list[str] = Field(default_factory=list[str])


class DamageView(_Model):
    """Messages that a stream has lost."""

    stream: str
    kind: Literal["truncated", "replaced", "incomplete", "unreadable"] = Field(
        description="`truncated`: its end is missing; `replaced`: it was created again; `incomplete`: the broker "
        "dropped messages when it read them; `unreadable`: messages are stored, but cannot be read"
    )
    found_at: float
    lost: int = Field(description="messages, as far as known")
    restored: int = Field(description="messages that were appended again")
    accepted: bool
    open: bool = Field(description="messages are missing, and nobody accepted that")
    description: str


class IntegrityView(_Model):
    """Whether the streams have everything that was stored in them."""

    ok: bool = Field(description="no damage is open")
    verifying: bool = Field(description="a verification that was requested is in progress")
    repairing: bool
    damages: list[DamageView]


class ByteLimits(_Model):
    """Limits in bytes: of an inline value, a JSON body, an artifact."""

    inline: int
    json_body: int = Field(alias="json")
    blob: int


class SchedulerView(_Model):
    """A running scheduler, and its shards."""

    name: str
    shards: list[int]


class ExecutorView(_Model):
    """What a connected executor offers: attempts at the same time, cores, bytes of memory, devices.

    The last three are null where a cluster decides.
    """

    name: str
    pool: str = Field(description="`*` for all pools")
    slots: int
    cpu: float | None
    memory: int | None
    gpu: int | None
    problems: list[str] = Field(default_factory=list[str], description="what is wrong with its cluster")


class PlatformView(Readiness):
    """A description of the platform."""

    version: str
    project: str
    store: StoreInfo
    started_at: float
    limits: ByteLimits
    executors: list[ExecutorView] = Field(
        default_factory=list[ExecutorView], description="those that are connected; steps of other pools wait"
    )
    schedulers: list[SchedulerView] = Field(
        default_factory=list[SchedulerView], description="those that answer; if none does, runs make no progress"
    )


class FieldError(_Model):
    """What is wrong with one field: `inputs.depth`, `header.idempotency-key`, `query.limit`."""

    field: str
    message: str


class Problem(_Model):
    """RFC 9457 problem details.

    `title` is the reason of the status, `detail` says what happened and how to fix it, `errors` names invalid fields.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    errors: list[FieldError] = Field(default_factory=list[FieldError])
