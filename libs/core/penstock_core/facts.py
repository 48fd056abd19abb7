"""The facts of a run: what happened, in the past tense, never changed.

Each fact names its place in the run's log (`tail`, the end of its subject). A place of an append-once fact is written
at most once: the first fact that takes it is the one that happened. So the tail is the fact's identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from penstock_core import ids
from penstock_core.errors import InvalidFact
from penstock_core.ir import Port, Resources
from penstock_core.values import Value


class Outcome(StrEnum):
    """How an attempt or a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    CACHED = "cached"


GOOD = frozenset({Outcome.SUCCEEDED, Outcome.CACHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """Why an attempt ended badly.

    Attributes:
        type: the exception's class name, or a reason such as `Exit`, `Signal`, `OutOfMemory`, `Timeout`, `Lost`.
        bases: class names of the exception's bases, for `retry_on`.
        message: one line for people.
        traceback: the user's traceback without platform frames.
    """

    type: str
    message: str
    traceback: str = ""
    bases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequested:
    """A run was asked for. `inputs` are whole: defaults are already filled in. Times are Unix seconds."""

    ce_type: ClassVar[str] = "penstock.run.requested.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    project: str
    pipeline: str
    version: int
    inputs: dict[str, Value] = field(default_factory=dict[str, Value])
    trigger: dict[str, str] = field(default_factory=dict[str, str])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    requested_at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")
        ids.check_name(self.project, "project")
        ids.check_name(self.pipeline, "pipeline")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRequested:
    """Attempt n of a step shall run. Holds all that an executor needs; `not_before` is a Unix time in seconds."""

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
    priority: int = 0
    not_before: float | None = None

    def __post_init__(self) -> None:
        _check_attempt(self.run_id, self.key, self.attempt)
        ids.check_name(self.pool, "pool")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.requested.{self.pool}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """Attempt n started. Informative: no decision waits for it."""

    ce_type: ClassVar[str] = "penstock.attempt.started.v1"
    append_once: ClassVar[bool] = False

    run_id: str
    key: str
    attempt: int
    executor: str
    host: str = ""
    pid: int = 0
    started_at: float = 0.0

    def __post_init__(self) -> None:
        _check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.started"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """Attempt n ended, in whichever way; the first end wins. `metrics` and `params` are the last logged values.

    `started_at` and `finished_at` enclose the user's function and are Unix times in seconds, 0 where it never began.
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

    def __post_init__(self) -> None:
        _check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped:
    """A step will not run: `reason` for people, `because` the key of the step that caused it, if one did."""

    ce_type: ClassVar[str] = "penstock.step.skipped.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    reason: str
    because: str | None = None

    def __post_init__(self) -> None:
        _check_attempt(self.run_id, self.key, 1)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """Someone asked to cancel the run."""

    ce_type: ClassVar[str] = "penstock.run.cancel_requested.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    by: str = ""
    reason: str = ""
    requested_at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run ended: `succeeded`, `failed` or `cancelled`; `error` names the step that failed first, for people."""

    ce_type: ClassVar[str] = "penstock.run.finished.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    outcome: Outcome
    outputs: dict[str, Value] = field(default_factory=dict[str, Value])
    error: str | None = None

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "finished"


Fact = RunRequested | AttemptRequested | AttemptStarted | AttemptFinished | StepSkipped | CancelRequested | RunFinished

FACTS: tuple[type[Fact], ...] = (
    RunRequested,
    AttemptRequested,
    AttemptStarted,
    AttemptFinished,
    StepSkipped,
    CancelRequested,
    RunFinished,
)


def _check_attempt(run_id: str, key: str, attempt: int) -> None:
    ids.check_name(run_id, "run id")
    ids.check_step_key(key)
    if not 1 <= attempt <= 1_000_000:
        raise InvalidFact(f"attempt {attempt} of step {key!r} is out of range")
