"""The facts of a model: what happened to it, in the past tense, never changed.

The facts of one model have the revisions 1, 2, 3 … of its log, each written at most once. So every decision is made
with all earlier ones known: a gate that compares two aliases cannot be bypassed by moving both at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from penstock_core import ids
from penstock_core.errors import InvalidFactError, InvalidIdError
from penstock_core.pipeline.values import ArtifactRef

LATEST = "latest"
"""No alias can have this name: it refers to the newest published version."""

TEXT_LIMIT = 4_000
"""Longest description or reason, in characters."""

TAGS_LIMIT = 100

MOST = 1_000_000
"""Most facts, and so versions, of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfModel:
    """The fields of all facts: the model, the revision, who caused it and when, in Unix seconds."""

    append_once: ClassVar[bool] = True

    project: str
    model: str
    revision: int
    by: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.project, "project")
        ids.check_name(self.model, "model")
        if not 1 <= self.revision <= MOST:
            raise InvalidFactError(f"revision {self.revision} of model {self.model!r} is out of range")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity."""
        return f"{self.project}.{self.model}.{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRegistered(_OfModel):
    """The model has a new version, made of an artifact of an attempt.

    Attributes:
        version: its number, from 1, without gaps.
        output: the name of the output or artifact.
        code: digest of the code of the step, if known.
        metrics: the metrics for gates; `non_finite` are those that are not finite numbers, as text.
        params: parameters that the attempt logged.
        experiment: whether the version of the pipeline was an experiment at the time of the registration. Publishing it
            later changes nothing here.
    """

    ce_type: ClassVar[str] = "penstock.model.registered.v1"

    version: int
    artifact: ArtifactRef
    run_id: str
    key: str
    attempt: int
    output: str = ""
    pipeline: str = ""
    pipeline_version: int = 0
    code: str = ""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    non_finite: dict[str, str] = field(default_factory=dict[str, str])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    description: str = ""
    experiment: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfAlias(_OfModel):
    """The fields of all facts about an alias."""

    alias: str

    def __post_init__(self) -> None:
        _OfModel.__post_init__(self)
        check_alias(self.alias)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPromoted(_OfAlias):
    """An alias points at a version from now on; `previous` is the one before.

    Attributes:
        gate: the gate; `clauses` the result of each comparison.
        forced: whether the gate was bypassed, for the `reason`.
        cause: the attempt whose end requested it, if one did.
    """

    ce_type: ClassVar[str] = "penstock.model.promoted.v1"

    version: int
    previous: int | None = None
    reason: str = ""
    gate: str = ""
    clauses: tuple[str, ...] = ()
    forced: bool = False
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRefused(_OfAlias):
    """A step requested an alias for the version that it registered, and the gate refused it; `clauses` say why."""

    ce_type: ClassVar[str] = "penstock.model.promotion-refused.v1"

    version: int
    gate: str = ""
    clauses: tuple[str, ...] = ()
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasRemoved(_OfAlias):
    """An alias was deleted; it pointed at `previous`."""

    ce_type: ClassVar[str] = "penstock.model.alias-removed.v1"

    previous: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSet(_OfAlias):
    """Every move of an alias has to pass a gate from now on; an empty one removes the gate."""

    ce_type: ClassVar[str] = "penstock.model.gate-set.v1"

    gate: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionArchived(_OfModel):
    """A version was archived, or unarchived if `archived` is false."""

    ce_type: ClassVar[str] = "penstock.model.archived.v1"

    version: int
    archived: bool = True
    reason: str = ""


ModelFact = ModelRegistered | ModelPromoted | PromotionRefused | AliasRemoved | GateSet | VersionArchived

MODEL_FACTS: tuple[type[ModelFact], ...] = get_args(ModelFact)


def check_alias(alias: str) -> str:
    """Return `alias` if it is a valid name of an alias.

    Raises:
        InvalidIdError: it is no valid name, a number, or `latest`.
    """
    ids.check_name(alias, "alias")
    if alias.isdecimal() or alias == LATEST:
        what = "this name means the latest version" if alias == LATEST else "it would be read as a version number"
        raise InvalidIdError(f"alias {alias!r} is not valid: {what}")
    return alias
