"""Commands between services: requests on NATS with one reply, not stored. Imperative and idempotent."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from penstock_core.capacity import DeclaredEnvironment
from penstock_core.ids import NAME_PATTERN
from penstock_core.pipeline.ir import Pipeline
from penstock_core.queries import series
from penstock_core.queries.series import Point


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class GitInfo(_Model):
    """The commit of a source bundle, if its folder is a Git work tree."""

    commit: str = Field(max_length=64)
    branch: str = Field(default="", max_length=255)
    remote: str = Field(default="", max_length=1000, description="URL of the remote without credentials")
    dirty: bool = False


class EnvironmentInfo(_Model):
    """The environment that a version was compiled in and runs in, without any path."""

    implementation: str = Field(default="cpython", max_length=50)
    version: str = Field(max_length=100, description="version of Python; major and minor are part of the identity")
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 over Python and the installed distributions")
    packages: dict[str, str] = Field(default_factory=dict, description="versions by normalized name of distribution")


class Offer(_Model):
    """What an executor offers to steps: see `penstock_core.capacity.Capacity`."""

    pool: str = Field(max_length=100)
    slots: int
    cpu: float | None = None
    memory: int | None = None
    gpu: int | None = None
    pods: bool = False
    problems: list[str] = Field(default_factory=list[str])


class LeaseHolder(_Model):
    """The value of the lease of an executor: its fencing number, the process that holds it, and what it offers."""

    fence: int = 0
    machine: str
    pid: int
    began: str
    work: str
    duration: float
    offer: Offer


class LockedEnvironment(EnvironmentInfo):
    """An environment that a pipeline declares, after it was resolved: `digest` is the SHA-256 of its lock."""

    image: str = Field(default="", max_length=1000, description="its image by digest, for pods; empty: none was built")
    image_only: bool = Field(default=False, description="whether it is in the image only, and cannot be installed")

    index: str = Field(default="", max_length=1000, description="URL of the package index, if it is not the default")
    extra_indexes: list[str] = Field(default_factory=list[str], max_length=100)

    def content(self) -> str:
        """Return the SHA-256 that identifies what steps find in it: the digest of its image, or that of its lock."""
        return self.image.rpartition("@sha256:")[2] or self.digest


class InterpreterHint(_Model):
    """Where an environment is installed on the registrant's machine; no part of a version's identity."""

    python: str = Field(max_length=4096, description="path of the interpreter")
    folders: dict[str, int] = Field(
        default_factory=dict, max_length=100, description="its package folders with their times of change in ns"
    )


class InterpreterHints(_Model):
    """The interpreters that registrants had for one environment digest, newest first."""

    interpreters: list[InterpreterHint] = Field(default_factory=list[InterpreterHint])


class RegisterVersion(_Model):
    """Register a pipeline version. Equal pipeline, code and environment are the same version.

    Without `publish` the version is an experiment: it has a number and can be run by it, but is never `latest`.
    """

    project: str = Field(default="default", pattern=NAME_PATTERN)
    pipeline: Pipeline
    source: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the source bundle, already stored")
    code: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the project modules that the pipeline imports; null: the whole bundle",
    )
    environment: EnvironmentInfo
    environments: dict[str, LockedEnvironment] = Field(
        default_factory=dict, max_length=100, description="what the environments that the pipeline declares resolve to"
    )
    interpreter: InterpreterHint | None = None
    git: GitInfo | None = None
    publish: bool = False
    by: str = Field(default="", max_length=500, description="principal that registers or publishes it")


class Version(_Model):
    """An immutable, numbered version of a pipeline. Of equal registrations, the first one's source is used."""

    project: str
    name: str
    version: int
    digest: str = Field(description="SHA-256 over pipeline, code and environment")
    source: str
    code: str | None = None
    environment: EnvironmentInfo
    environments: dict[str, LockedEnvironment] = Field(
        default_factory=dict, description="by name, for steps that name it"
    )
    git: GitInfo | None = None
    pipeline: Pipeline
    registered_at: float
    registered_by: str = Field(default="", description="principal")

    def declared(self) -> dict[str, DeclaredEnvironment]:
        """Return where its environments can be used, by name."""
        return {
            name: DeclaredEnvironment(image=bool(one.image), installable=not one.image_only)
            for name, one in self.environments.items()
        }


class Publication(_Model):
    """When a version was published last, as Unix seconds, and by whom."""

    at: float
    by: str = ""


class Publications(_Model):
    """The published versions of one pipeline by number; `latest` is the one that was published last."""

    latest: int
    versions: dict[int, Publication]


class VersionReply(_Model):
    """Reply to `RegisterVersion`: the version, or why there is none."""

    version: int | None = None
    created: bool = False
    published: bool = Field(default=False, description="whether it is published, by this registration or before")
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether a retry may succeed")


class IssueCredential(_Model):
    """Issue a credential of NATS to the runner of an attempt, or to the pod `worker` if no attempt is given."""

    pool: str = Field(min_length=1, max_length=100)
    run_id: str = Field(default="", max_length=100)
    key: str = Field(default="", max_length=300)
    attempt: int = Field(default=0, ge=0)
    worker: str = Field(default="", max_length=253)
    lifetime: float = Field(gt=0, le=366 * 86400, description="seconds until it is refused")


class IssuedCredential(_Model):
    """A credential, or why there is none."""

    token: str = ""
    error: str | None = None
    unavailable: bool = False


class Locate(_Model):
    """Ask where a process may read (or write) the bytes of an object itself."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    write: bool = False
    size: int | None = None
    parts: bool = Field(default=False, description="whether a large object can be uploaded in parts, then `Complete`d")
    keep: bool = Field(
        default=False, description="whether the object is about to be referred to, so that it must not be collected"
    )
    folder: bool = Field(
        default=False, description="whether it is the manifest of a folder, whose objects are to be kept, too"
    )


class Complete(_Model):
    """Complete an object from its uploaded parts, with the tags that the store returned for them, in order.

    The caller has verified that the parts are the object. Without tags the upload is aborted.
    """

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    upload: str = Field(min_length=1, max_length=1000)
    size: int = Field(ge=0)
    tags: list[str] = Field(default_factory=list, max_length=10_000)


class Location(_Model):
    """Where an object is or goes to, or why there is no location.

    `path` on this machine; or `url` with `headers` for one HTTP GET or PUT; or `parts`, a URL for an HTTP PUT of each
    `part_size` bytes.
    """

    path: str | None = None
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    parts: list[str] = Field(default_factory=list)
    part_size: int = 0
    upload: str = Field(default="", description="identifies the upload when it is completed")
    size: int | None = Field(default=None, description="of the existing object")
    error: str | None = None
    unavailable: bool = Field(default=False, description="whether a retry may succeed")


class StoreInfo(_Model):
    """How attempts access the artifact store: `folder` with its root, or `granted`: request a location per object."""

    kind: str
    root: str | None = None
    limit: int | None = Field(default=None, description="largest object in bytes")
    grace: float = Field(
        default=86400.0, description="grace period: seconds for which an unreferenced object is not removed"
    )


class Parked(_Model):
    """A message that a service could not process: its subject, the error, and its bytes (the first 64 KiB, base64).

    Attributes:
        headers: of the message, if it is an event.
        deployment, trigger: the trigger that rejected an event, or the rule of a notification that was not accepted;
            empty if the message is unreadable.
        invalid: whether it is an event that does not fit the schema of its type.
    """

    service: str
    subject: str
    seq: int = 0
    error: str
    body: str = ""
    headers: dict[str, str] = {}
    deployment: str = ""
    trigger: str = ""
    invalid: bool = False


class AttemptOutput(_Model):
    """Output lines and latest metrics of an attempt, in order; `first` is the index of the first entry in the attempt.

    If there are many metrics, only the latest values are here: `Measurements` has them all.
    """

    run_id: str
    key: str
    attempt: int
    first: int = 0
    entries: list[dict[str, Any]]


class AttemptProgress(_Model):
    """How far an attempt is, as its step reported it at `at`: `done` of `total`."""

    run_id: str
    key: str
    attempt: int
    at: float = Field(allow_inf_nan=False)
    done: float = Field(ge=0, allow_inf_nan=False)
    total: float = Field(gt=0, allow_inf_nan=False)
    text: str = ""


class Measurements(_Model):
    """Points of the metric series of an attempt, in order, as columns: point i is value[i] of names[name[i]].

    `first` is the index of the first point in the attempt. Times are Unix seconds, `after` counts from `start`.
    """

    run_id: str = Field(pattern=NAME_PATTERN)
    key: str = Field(min_length=1, max_length=300)
    attempt: int = Field(ge=1, le=1_000_000)
    first: int = Field(ge=0, le=2**53)
    start: float = Field(allow_inf_nan=False)
    names: list[str] = Field(max_length=series.NAMES)
    name: list[int]
    step: list[int | None]
    after: list[float]
    value: list[float | Literal["nan", "inf", "-inf"]]

    @model_validator(mode="after")
    def _fits(self) -> Measurements:
        if not len(self.name) == len(self.step) == len(self.after) == len(self.value) > 0:
            raise ValueError("its columns have different lengths, or are empty")
        if min(self.name) < 0 or max(self.name) >= len(self.names):
            raise ValueError("a point has an unknown name")
        if any(not name or len(name) > series.NAME_LIMIT for name in self.names):
            raise ValueError(f"a name must have 1 to {series.NAME_LIMIT} characters")
        if any(step is not None and abs(step) > series.STEP_LIMIT for step in self.step):
            raise ValueError("a step is out of range")
        return self

    def points(self) -> list[Point]:
        """Return the points, in order."""
        rows = zip(self.name, self.step, self.after, self.value, strict=True)
        return [
            Point(self.names[name], step, self.start + after, series.unspelled(value))
            for name, step, after, value in rows
        ]


class Replica(_Model):
    """A heartbeat of a replica with its shards: sent about once a second and at every change, not stored.

    `hello` requests the heartbeats of the others, `bye` announces the end.
    """

    name: str = Field(min_length=1, max_length=200)
    shards: list[int] = Field(default_factory=list[int], max_length=1000)
    word: Literal["hello", "here", "bye"] = "here"


class Replicas(_Model):
    """Reply to the question which replicas have which shards, as the answering replica knows it."""

    replicas: list[Replica]


class Problems(_Model):
    """What a process has noticed about the streams, one sentence each."""

    service: str
    problems: list[str]


class Tick(_Model):
    """An armed tick of a cron trigger, for Unix time `at`; `revision` is that of the deployment."""

    project: str
    deployment: str
    trigger: str
    revision: int
    at: float


class Wait(_Model):
    """An attempt that waits for an event."""

    run_id: str
    key: str
    attempt: int
