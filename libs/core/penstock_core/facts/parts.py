"""Parts of facts: outcomes, errors, cache reports, limits, registrations of models, events of steps."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import Any

from penstock_core import ids
from penstock_core.errors import InvalidFactError
from penstock_core.frozen import frozen
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.registry.facts import check_alias


class Outcome(StrEnum):
    """How an attempt or a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    CACHED = "cached"
    SKIPPED = "skipped"


SUCCESSFUL = frozenset({Outcome.SUCCEEDED, Outcome.CACHED})


@frozen(kw_only=True)
class ErrorInfo:
    """Why an attempt did not succeed.

    Attributes:
        type: the exception's class name, or a reason such as `Exit`, `Signal`, `OutOfMemory`, `Timeout`, `Lost`.
        bases: class names of the exception's bases, for `retry_on`.
        message: one line to be shown.
        traceback: the user's traceback without frames of the platform.
    """

    type: str
    message: str
    traceback: str = ""
    bases: tuple[str, ...] = ()


class CacheMode(StrEnum):
    """What a run does with cached results: use them, ignore and overwrite them, or neither read nor write any."""

    USE = "use"
    REFRESH = "refresh"
    OFF = "off"


@frozen(kw_only=True)
class CacheRule:
    """What the cache key of an attempt is made of besides its inputs and environment.

    Attributes:
        code: digest of the project modules that the step's module imports.
        dynamic_code: why `code` does not cover all code that the step runs (`file:line: reason`), so that the whole
            source bundle counts; empty where it does.
        salt: the user's part of the key.
        ttl: how old a result may be, in seconds; None without limit.
        refresh: whether to ignore an earlier result and overwrite it.
    """

    code: str
    dynamic_code: str = ""
    salt: str = ""
    ttl: float | None = None
    refresh: bool = False


@frozen(kw_only=True)
class CacheReport:
    """What the cache did for an attempt.

    Attributes:
        key: the key; empty if it could not be computed.
        hit: whether a cached result was used.
        parts: digests of the parts of the key: `code`, `environment`, `salt`, `input NAME`, and `bundle` if it counts.
        differs: parts in which the nearest cached result differs; empty after a hit or if there is none.
        from_run: the run whose result was used, or the run of the nearest one.
        from_step: the step there.
        stored_at: when that result was stored, in Unix seconds.
        note: why there is no key, or why an existing result was not used.
    """

    key: str = ""
    hit: bool = False
    parts: dict[str, str] = field(default_factory=dict[str, str])
    differs: tuple[str, ...] = ()
    from_run: str = ""
    from_step: str = ""
    stored_at: float = 0.0
    note: str = ""


@frozen(kw_only=True)
class Limit:
    """A limit of which an attempt needs a slot. `most`: its slots by the step's definition; None: as configured."""

    name: str
    most: int | None = None


@frozen(kw_only=True)
class Caller:
    """The attempt of another run that waits for the end of this run."""

    run_id: str
    key: str
    attempt: int


@frozen(kw_only=True)
class Registration:
    """A model version to register if the attempt succeeds and its end counts.

    Attributes:
        model: name of the model.
        artifact: the artifact of the version.
        output: the name of that artifact in the attempt.
        metrics: its metrics; None: those that the attempt logged. `non_finite` are those that are not finite numbers.
        alias: an alias to point at the version if it passes `gate` and the alias's own gate.
    """

    model: str
    artifact: ArtifactRef
    output: str = ""
    metrics: dict[str, float] | None = None
    non_finite: dict[str, str] = field(default_factory=dict[str, str])
    alias: str = ""
    gate: str = ""
    reason: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        ids.check_name(self.model, "model")
        if self.alias:
            check_alias(self.alias)


@frozen(kw_only=True)
class StepEvent:
    """An event that a step sends if the attempt succeeds and its end counts.

    Attributes:
        type: such as `com.acme.report.ready`.
        data: its payload as JSON.
        key: distinguishes events of one type for steps that wait for them.
    """

    type: str
    data: Any = None
    key: str = ""


def check_attempt(run_id: str, key: str, attempt: int) -> None:
    """Check the subject of a fact about a step. Raises `InvalidIdError` or `InvalidFactError`."""
    ids.check_name(run_id, "run id")
    ids.check_step_key(key)
    if not 1 <= attempt <= 1_000_000:
        raise InvalidFactError(f"attempt {attempt} of step {key!r} is out of range")
