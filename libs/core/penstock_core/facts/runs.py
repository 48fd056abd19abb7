"""Facts about a run as a whole."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from penstock_core import ids
from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.errors import InvalidFactError
from penstock_core.facts.parts import CacheMode, Caller, Outcome
from penstock_core.frozen import frozen
from penstock_core.pipeline.values import Value


@frozen(kw_only=True)
class RunRequested:
    """A run was requested. `inputs` are complete: defaults are filled in. Times are Unix seconds.

    Attributes:
        deadline: when the run fails if it has not finished.
        cache: what it does with cached results.
        refresh: steps whose cached results are ignored and overwritten, by name or key.
        reuses: the run some of whose results it reuses; the log holds them as `StepReused` before this fact.
        caller: the attempt of another run that waits for its end.
        limited_pools: pools that had a limited size when the run was requested: attempts in them need a slot of
            `pool:NAME`. Recorded here, so that all replicas decide alike whatever they have read of the limits.
        requested_by: the principal that requested it, such as `user:ada` (see `penstock_core.access`).
        models: the registered models among its inputs, by parameter, such as `churn:3`.
        deployment_limit: the limit of active runs of its deployment; None: the deployment has none.
        shadow: it repeats what happened, to be compared: it registers no models, and causes no events.
    """

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
    deadline: float | None = None
    cache: CacheMode = CacheMode.USE
    refresh: tuple[str, ...] = ()
    reuses: str = ""
    caller: Caller | None = None
    requested_by: str = ""
    limited_pools: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict[str, str])
    shadow: bool = False
    deployment_limit: DeploymentLimit | None = None

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")
        ids.check_name(self.project, "project")
        ids.check_name(self.pipeline, "pipeline")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "requested"


@frozen(kw_only=True)
class RunAdmitted:
    """The run was admitted to the active runs of its pipeline, and of its deployment."""

    ce_type: ClassVar[str] = "penstock.run.admitted.v1"
    append_once: ClassVar[bool] = True

    run_id: str

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "admitted"


@frozen(kw_only=True)
class ClockReached:
    """It is `at` or later, in Unix seconds with milliseconds: timers of the run that expire by then have expired."""

    ce_type: ClassVar[str] = "penstock.run.clock_reached.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    at: float

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")
        if not 0 <= self.at < 1e11:
            raise InvalidFactError(f"time {self.at} is out of range")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return f"clock.{round(self.at * 1000)}"


@frozen(kw_only=True)
class CancelRequested:
    """Somebody requested to cancel the run."""

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


@frozen(kw_only=True)
class RunFinished:
    """The run finished: `succeeded`, `failed` or `cancelled`. `error` names the step that failed first.

    `finished_at` is in Unix seconds; 0: when the fact was written.
    """

    ce_type: ClassVar[str] = "penstock.run.finished.v1"
    append_once: ClassVar[bool] = True

    run_id: str
    outcome: Outcome
    outputs: dict[str, Value] = field(default_factory=dict[str, Value])
    error: str | None = None
    finished_at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.run_id, "run id")

    @property
    def tail(self) -> str:
        """End of the subject."""
        return "finished"
