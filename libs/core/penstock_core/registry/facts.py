"""The facts of a model: what happened to it, in the past tense, never changed.

The facts of one model lie on the places 1, 2, 3 … of its log, each written at most once. So every decision sees all
that were made before, whatever they are about: a gate that compares two aliases cannot be passed by moving both at the
same time.
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
    """What all facts have: whose they are, their place, who caused them and when, in Unix seconds."""

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
            raise InvalidFactError(f"place {self.revision} of model {self.model!r} is out of range")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity."""
        return f"{self.project}.{self.model}.{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRegistered(_OfModel):
    """The model has a new version, made of an artifact of an attempt.

    Attributes:
        version: its number, from 1, without gaps.
        output: the name of the output or artifact that it was.
        code: digest of the code of the step, where that can be told.
        metrics: measurements that gates compare; `non_finite` are those that are no finite numbers, as text.
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
    """What all facts about an alias have."""

    alias: str

    def __post_init__(self) -> None:
        _OfModel.__post_init__(self)
        check_alias(self.alias)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPromoted(_OfAlias):
    """An alias of the model stands for a version from now on; `previous` is the one that it stood for.

    Attributes:
        gate: what was asked of the version; `clauses` what came of each comparison.
        forced: whether the gate was passed by, for the `reason`.
        cause: the attempt whose end asked for it, where one did.
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
    """A step asked for an alias of a version that it registered, and the gate refused; `clauses` say why."""

    ce_type: ClassVar[str] = "penstock.model.promotion-refused.v1"

    version: int
    gate: str = ""
    clauses: tuple[str, ...] = ()
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasRemoved(_OfAlias):
    """An alias of the model stands for nothing any more; it stood for `previous`."""

    ce_type: ClassVar[str] = "penstock.model.alias-removed.v1"

    previous: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSet(_OfAlias):
    """Every move of an alias has to pass a gate from now on; an empty one removes it."""

    ce_type: ClassVar[str] = "penstock.model.gate-set.v1"

    gate: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionArchived(_OfModel):
    """A version is not offered any more; or is again, where `archived` is false."""

    ce_type: ClassVar[str] = "penstock.model.archived.v1"

    version: int
    archived: bool = True
    reason: str = ""


ModelFact = ModelRegistered | ModelPromoted | PromotionRefused | AliasRemoved | GateSet | VersionArchived

MODEL_FACTS: tuple[type[ModelFact], ...] = get_args(ModelFact)


def check_alias(alias: str) -> str:
    """Return `alias` when it may be one.

    Raises:
        InvalidId: it is no name, a number, or `latest`.
    """
    ids.check_name(alias, "alias")
    if alias.isdecimal() or alias == LATEST:
        what = "the latest version has that name already" if alias == LATEST else "it would be taken for a version"
        raise InvalidIdError(f"alias {alias!r} is not valid: {what}")
    return alias
