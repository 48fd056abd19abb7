"""Registered models as the API shows them, and the data of the events about their changes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias

from penstock_contracts.models import AliasView, HistoryEntry, ModelChange, ModelSummary, ModelVersionView, ModelView
from penstock_core.pipeline.values import json_weight
from penstock_core.registry.facts import (
    AliasRemoved,
    GateSet,
    ModelFact,
    ModelPromoted,
    ModelRegistered,
    PromotionRefused,
    VersionArchived,
)
from penstock_core.registry.references import Reference
from penstock_core.registry.state import Model

_METRICS_SHOWN = 16 * 1024
"""Largest JSON weight of the metrics in an event; larger ones are left out, since the data of events is bounded."""

_TAGS_SHOWN = 8 * 1024

Kind: TypeAlias = Literal[
    "registered", "promoted", "promotion-refused", "alias-removed", "gate-set", "archived", "restored"
]


def summary(model: Model) -> ModelSummary:
    """Return a model as an entry of the list."""
    latest = model.latest
    return ModelSummary(
        name=model.name,
        versions=len(model.versions),
        latest=latest.version if latest else None,
        experiments=len(model.experiments),
        aliases={name: model.aliases[name].version for name in sorted(model.aliases)},
        changed_at=model.history[-1].at,
    )


def model_view(model: Model) -> ModelView:
    """Return a model with its versions, newest first, and its aliases."""
    return ModelView(
        name=model.name,
        versions=[version(model, model.versions[number]) for number in sorted(model.versions, reverse=True)],
        aliases=[alias(model, name) for name in sorted({*model.aliases, *model.gates})],
    )


def version(model: Model, fact: ModelRegistered) -> ModelVersionView:
    """Return a version."""
    return ModelVersionView(
        model=model.name,
        version=fact.version,
        reference=str(Reference(model.name, version=fact.version)),
        aliases=model.aliases_of(fact.version),
        archived=fact.version in model.archived,
        artifact=dataclasses.asdict(fact.artifact),
        run_id=fact.run_id,
        step=fact.key,
        attempt=fact.attempt,
        output=fact.output,
        pipeline=fact.pipeline,
        pipeline_version=fact.pipeline_version,
        code=fact.code,
        metrics=fact.metrics,
        non_finite=fact.non_finite,
        params=fact.params,
        tags=fact.tags,
        description=fact.description,
        experiment=fact.experiment,
        by=fact.by,
        at=fact.at,
    )


def alias(model: Model, name: str) -> AliasView:
    """Return an alias, or the gate of an alias that does not exist yet."""
    gate = model.gates[name].gate if name in model.gates else ""
    move = model.aliases.get(name)
    if move is None:
        return AliasView(alias=name, gate=gate)
    return AliasView(
        alias=name,
        version=move.version,
        since=move.at,
        by=move.by,
        reason=move.reason,
        forced=move.forced,
        gate=gate,
    )


def entry(fact: ModelFact) -> HistoryEntry:
    """Return an entry of the history of a model."""
    known: dict[str, Any] = {"revision": fact.revision, "at": fact.at, "by": fact.by}
    match fact:
        case ModelRegistered():
            more: dict[str, Any] = {"version": fact.version, "reason": fact.description, "cause": _attempt(fact)}
            return HistoryEntry(kind="registered", **known, **more)
        case ModelPromoted():
            more = {name: getattr(fact, name) for name in ("alias", "version", "previous", "reason", "gate", "forced")}
            return HistoryEntry(kind="promoted", **known, **more, clauses=list(fact.clauses), cause=fact.cause)
        case PromotionRefused():
            more = {name: getattr(fact, name) for name in ("alias", "version", "gate", "cause")}
            return HistoryEntry(kind="promotion-refused", **known, **more, clauses=list(fact.clauses))
        case AliasRemoved():
            return HistoryEntry(
                kind="alias-removed", **known, alias=fact.alias, previous=fact.previous, reason=fact.reason
            )
        case GateSet():
            return HistoryEntry(kind="gate-set", **known, alias=fact.alias, gate=fact.gate, reason=fact.reason)
        case VersionArchived():
            kind: Kind = "archived" if fact.archived else "restored"
            return HistoryEntry(kind=kind, **known, version=fact.version, reason=fact.reason)


def change(fact: ModelFact) -> ModelChange:
    """Return the data of the event about a fact."""
    names = ModelChange.model_fields.keys() & {field.name for field in dataclasses.fields(fact)}
    fields: dict[str, Any] = {name: getattr(fact, name) for name in names - {"artifact", "metrics", "tags", "clauses"}}
    number = fields.get("version")
    if number is not None:
        fields["reference"] = str(Reference(fact.model, version=number))
    if isinstance(fact, ModelPromoted | PromotionRefused):
        fields["clauses"] = list(fact.clauses)
    if isinstance(fact, ModelRegistered):
        fields |= {"artifact": dataclasses.asdict(fact.artifact), "step": fact.key}
        fields["metrics"] = fact.metrics if json_weight(fact.metrics) <= _METRICS_SHOWN else {}
        fields["tags"] = fact.tags if json_weight(fact.tags) <= _TAGS_SHOWN else {}
    return ModelChange(**fields)


def _attempt(fact: ModelRegistered) -> str:
    return f"{fact.run_id}/{fact.key}/{fact.attempt}"
