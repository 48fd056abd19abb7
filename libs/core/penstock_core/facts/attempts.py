"""Facts about attempts: the n-th try of a step in a run."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

from penstock_core import ids
from penstock_core.facts.parts import (
    CacheReport,
    CacheRule,
    ErrorInfo,
    Limit,
    Outcome,
    Registration,
    StepEvent,
    check_attempt,
)
from penstock_core.frozen import frozen
from penstock_core.pipeline.ir import Port, Resources
from penstock_core.pipeline.values import Value


@frozen(kw_only=True)
class AttemptQueued:
    """Attempt n is queued until it has a slot of each of `limits`. Times are Unix seconds."""

    ce_type: ClassVar[str] = "penstock.attempt.queued.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    attempt: int
    limits: tuple[Limit, ...] = ()
    priority: int = 0
    since: float = 0.0
    start_by: float | None = None

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.queued"


@frozen(kw_only=True)
class SlotGranted:
    """Attempt n has its slots, until it ends."""

    ce_type: ClassVar[str] = "penstock.attempt.granted.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    attempt: int

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.granted"


@frozen(kw_only=True)
class AttemptRequested:
    """Attempt n of a step is to be executed. Holds everything that an executor needs; times are Unix seconds.

    Attributes:
        not_before: earliest start.
        start_by: latest start; the attempt times out if it has not started by then.
        cache: what the cache key of its result is made of; None if its result is not cached.
        seed: what random generators start from, together with `key`; None: from entropy.
        closing: whether it runs after the main phase of the run, so that a cancel of the run does not stop it.
        limited: whether it has slots of limits, which are released when no process of it is left.
        environment: name of the environment of the version that it runs in; empty: that which compiled the pipeline.
        nodes: how many processes run it together, each with `resources`.
        fresh_pod: whether its pod runs no other attempt before or after it.
        trace: the trace that its run continues (see `penstock_core.trace_context`); empty: it begins with the run.
    """

    ce_type: ClassVar[str] = "penstock.attempt.requested.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    attempt: int
    pool: str
    project: str
    pipeline: str
    version: int
    entrypoint: str
    inputs: dict[str, Value] = field(default_factory=dict[str, Value])
    outputs: tuple[Port, ...] = ()
    timeout: float | None = None
    resources: Resources = field(default_factory=Resources)
    env: dict[str, str] = field(default_factory=dict[str, str])
    secrets: tuple[str, ...] = ()
    seed: int | None = None
    priority: int = 0
    not_before: float | None = None
    start_by: float | None = None
    cache: CacheRule | None = None
    closing: bool = False
    limited: bool = False
    environment: str = ""
    nodes: int = 1
    fresh_pod: bool = False
    trace: str = ""

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)
        ids.check_name(self.pool, "pool")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.requested.{self.pool}"


@frozen(kw_only=True)
class AttemptStarted:
    """An executor owns attempt n, and runs it. The first one counts, so an attempt has one owner.

    Attributes:
        executor: name of the executor.
        fence: fencing number of the executor's lease, see `penstock_core.ownership`.
        pid: id of the process; 0 if the fact was written before the process existed.
    """

    ce_type: ClassVar[str] = "penstock.attempt.started.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    attempt: int
    executor: str
    fence: int = 0
    host: str = ""
    pid: int = 0
    started_at: float = 0.0

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.started"


@frozen(kw_only=True)
class AttemptStopped:
    """No process of attempt n is left.

    Written for an attempt that holds slots of limits, where another service than its executor recorded its end.
    """

    ce_type: ClassVar[str] = "penstock.attempt.stopped.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    attempt: int

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.stopped"


@frozen(kw_only=True)
class ArtifactCommitted:
    """Attempt n stored an artifact while running. Informative; the latest of a name counts. `at` is in Unix seconds.

    `name` is a token of the subject. `display_name` is the name that the step gave it, if that cannot be such a token
    (see `penstock_core.artifacts.committed`).
    """

    ce_type: ClassVar[str] = "penstock.artifact.committed.v1"
    append_once: ClassVar[bool] = False

    run_id: str
    key: str
    attempt: int
    name: str
    value: Value
    at: float = 0.0
    display_name: str = ""

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)
        ids.check_name(self.name, "artifact name")

    @property
    def effective_name(self) -> str:
        """The name that the step gave it."""
        return self.display_name or self.name

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.artifact.{self.name}"


@frozen(kw_only=True)
class AttemptFinished:
    """Attempt n ended; the first end counts. `metrics` and `params` are the last logged values.

    `non_finite` are the metrics that are NaN or infinite, as `nan`, `inf` or `-inf`: JSON has no such numbers.
    `tags` are texts to search the run by. `started_at` and `finished_at` enclose the user's function, in Unix seconds;
    0 if it never started. `load_seconds` passed before, from when an executor began with the attempt: it fetched the
    source and the inputs, imported the module and created the process. `save_seconds` passed afterwards, while outputs
    were stored. `models` are the model versions to register, `events` the events to publish.
    """

    ce_type: ClassVar[str] = "penstock.attempt.finished.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    attempt: int
    outcome: Outcome
    outputs: dict[str, Value] = field(default_factory=dict[str, Value])
    error: ErrorInfo | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: dict[str, Value] = field(default_factory=dict[str, Value])
    executor: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    cache: CacheReport | None = None
    tags: dict[str, str] = field(default_factory=dict[str, str])
    models: tuple[Registration, ...] = ()
    events: tuple[StepEvent, ...] = ()
    load_seconds: float = 0.0
    save_seconds: float = 0.0
    non_finite: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.finished"
