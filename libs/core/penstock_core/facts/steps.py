"""Facts about steps, of which each step has one."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

from penstock_core.facts.parts import ErrorInfo, check_attempt
from penstock_core.frozen import frozen
from penstock_core.pipeline.ir import Kind
from penstock_core.pipeline.values import Value


@frozen(kw_only=True)
class StepExpanded:
    """A mapped step has `count` items, or failed because of `error`."""

    ce_type: ClassVar[str] = "penstock.step.expanded.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    count: int = 0
    error: ErrorInfo | None = None

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, 1)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.expanded"


@frozen(kw_only=True)
class StepReused:
    """A step reuses its result in another run. `count` is the number of items of a mapped step.

    The log holds it before the request of the run. The `outputs` of a mapped step are `Collected` from that run.
    """

    ce_type: ClassVar[str] = "penstock.step.reused.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    from_run: str
    outputs: dict[str, Value] = field(default_factory=dict[str, Value])
    count: int | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: dict[str, Value] = field(default_factory=dict[str, Value])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    non_finite: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, 1)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.reused"


@frozen(kw_only=True)
class StepCancelRequested:
    """Somebody requested to cancel one step, or one item of a mapped step."""

    ce_type: ClassVar[str] = "penstock.step.cancel_requested.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    by: str = ""
    reason: str = ""
    requested_at: float = 0.0

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, 1)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.cancel"


@frozen(kw_only=True)
class StepSkipped:
    """A step does not run. `reason` is to be shown; `cause` is the key of the step that caused it, if any.

    Attributes:
        expected: whether the pipeline itself skips it (condition, rule), so that the run can still succeed.
        error: why it cannot run; the step then counts as failed.
    """

    ce_type: ClassVar[str] = "penstock.step.skipped.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    reason: str
    cause: str | None = None
    expected: bool = False
    error: ErrorInfo | None = None

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, 1)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.skipped"


@frozen(kw_only=True)
class StepSuspended:
    """Attempt n waits without a process; `AttemptFinished` ends it as any other attempt.

    Attributes:
        kind: what it waits for: `ask`, `event`, `sleep` or `run` (see `ir.Kind`).
        inputs: its inputs, as values.
        until: when it times out or wakes up, in Unix seconds.
        target: pipeline of its child run, in version `version` (None: the latest).
    """

    ce_type: ClassVar[str] = "penstock.step.suspended.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    key: str
    attempt: int
    kind: Kind
    project: str = "default"
    inputs: dict[str, Value] = field(default_factory=dict[str, Value])
    until: float | None = None
    target: str = ""
    version: int | None = None

    def __post_init__(self) -> None:
        check_attempt(self.run_id, self.key, self.attempt)

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"step.{self.key}.{self.attempt}.suspended"
