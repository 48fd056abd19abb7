"""Registered models over HTTP, and the data of events about them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictFloat, StrictInt

from penstock_contracts.bodies import RequestBody
from penstock_core.ids import NAME_PATTERN
from penstock_core.registry.facts import TAGS_LIMIT, TEXT_LIMIT

NAMES_LIMIT = 500

Text = Annotated[str, Field(max_length=TEXT_LIMIT)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Body(RequestBody):
    reason: Text = ""


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    for name, value in metrics.items():
        if not 1 <= len(name) <= 200:
            raise ValueError("the name of a metric must have 1 to 200 characters")
        if not math.isfinite(value):
            raise ValueError(f"metric {name[:100]!r} is {value}, which is not a finite number")
    return metrics


def _short(tags: dict[str, str]) -> dict[str, str]:
    for name, text in tags.items():
        if not 1 <= len(name) <= 100 or len(text) > 1000:
            raise ValueError("the name of a tag must have 1 to 100 characters, its text at most 1000")
    return tags


Metrics = Annotated[dict[str, StrictFloat | StrictInt], Field(max_length=NAMES_LIMIT), AfterValidator(_finite)]
Tags = Annotated[dict[str, str], Field(max_length=TAGS_LIMIT), AfterValidator(_short)]


class RegisterModelBody(_Body):
    """Register an output, or a logged artifact, of a step as a model version."""

    run_id: str = Field(pattern=NAME_PATTERN)
    step: str = Field(min_length=1, max_length=240, description="key of the step")
    output: str = Field(default="result", min_length=1, max_length=200)
    metrics: Metrics | None = Field(default=None, description="null: the metrics that the step logged")
    tags: Tags = Field(default_factory=dict)
    description: Text = ""
    alias: Name | None = Field(default=None, description="alias to point at the version if it passes the gates")
    gate: Text = Field(default="", description="gate for the alias, in addition to the alias's own gate")
    force: bool = Field(
        default=False, description="bypass the gates; requires a reason, which is recorded in the history"
    )


class PromoteBody(_Body):
    """Point an alias at a version."""

    version: int = Field(ge=1)
    gate: Text = Field(default="", description="gate, in addition to the alias's own gate")
    force: bool = Field(
        default=False, description="bypass the gates; requires a reason, which is recorded in the history"
    )
    replaces: int | None = Field(
        default=None, ge=0, description="precondition: the version that the alias points at now; 0: none"
    )


class GateBody(_Body):
    """Set the gate that every move of an alias has to pass; an empty one deletes it."""

    gate: str = Field(max_length=TEXT_LIMIT)


class ArchiveBody(_Body):
    """Archive a version, or unarchive it."""

    archived: bool = True


class ModelVersionView(_Model):
    """A model version with its origin and its metadata. Times are Unix seconds."""

    model: str
    version: int
    reference: str = Field(description="such as churn:3")
    aliases: list[str] = Field(default_factory=list, description="aliases that point at it")
    archived: bool = False
    artifact: dict[str, Any] = Field(description="an artifact reference: sha256, size, format, …")
    run_id: str
    step: str
    attempt: int
    output: str = ""
    pipeline: str = ""
    pipeline_version: int = 0
    code: str = Field(default="", description="digest of the step's code, if known")
    metrics: dict[str, float] = Field(default_factory=dict)
    non_finite: dict[str, str] = Field(default_factory=dict, description="non-finite metrics as text")
    params: dict[str, Any] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    description: str = ""
    experiment: bool = Field(
        default=False, description="registered by a version of a pipeline that was not published then"
    )
    by: str = ""
    at: float = 0.0


class AliasView(_Model):
    """An alias: the version that it points at, since when, and its gate."""

    alias: str
    version: int | None = Field(default=None, description="null: none; only the gate exists")
    since: float = 0.0
    by: str = ""
    reason: str = ""
    forced: bool = False
    gate: str = ""


class ModelSummary(_Model):
    """A model in a list: number of versions, the latest published one that is not archived, aliases."""

    name: str
    versions: int
    latest: int | None = Field(default=None, description="null: every version is archived or from an experiment")
    experiments: int = Field(default=0, description="versions from experiments that are not archived")
    aliases: dict[str, int] = Field(default_factory=dict)
    changed_at: float = 0.0


class ModelList(_Model):
    """All models by name."""

    models: list[ModelSummary]


class ModelView(_Model):
    """A model with its versions, newest first, and its aliases by name."""

    name: str
    versions: list[ModelVersionView] = Field(default_factory=list)
    aliases: list[AliasView] = Field(default_factory=list)


class Refusal(_Model):
    """Why an alias was not moved: the gate, and the result of each comparison."""

    alias: str
    gate: str = ""
    clauses: list[str] = Field(default_factory=list)


class RegisteredModel(_Model):
    """The version; `created` says whether it is new, `refused` why the alias was not moved."""

    version: ModelVersionView
    created: bool
    refused: Refusal | None = None


class PromotionResult(_Model):
    """The alias; `moved` says whether it changed. `clauses` are the results of the gates."""

    alias: AliasView
    previous: int | None = None
    moved: bool
    clauses: list[str] = Field(default_factory=list)


class HistoryEntry(_Model):
    """A change of a model. Fields that do not apply to its kind are null or empty."""

    revision: int
    kind: Literal["registered", "promoted", "promotion-refused", "alias-removed", "gate-set", "archived", "restored"]
    at: float
    by: str = ""
    version: int | None = None
    alias: str | None = None
    previous: int | None = None
    reason: str = ""
    gate: str = ""
    clauses: list[str] = Field(default_factory=list)
    forced: bool = False
    cause: str = ""


class ModelHistory(_Model):
    """The history of a model, oldest change first."""

    name: str
    history: list[HistoryEntry]


class ModelChange(_Model):
    """The data of an event about a model. The type of the event says what happened.

    `reference` refers to the version in inputs of runs; `metrics` are omitted if they are too many.
    """

    project: str
    model: str
    revision: int
    by: str = ""
    at: float = 0.0
    reason: str = ""
    version: int | None = None
    reference: str | None = None
    alias: str | None = None
    previous: int | None = None
    gate: str = ""
    clauses: list[str] = Field(default_factory=list)
    forced: bool = False
    archived: bool | None = None
    artifact: dict[str, Any] | None = None
    run_id: str | None = None
    step: str | None = None
    attempt: int | None = None
    experiment: bool | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
