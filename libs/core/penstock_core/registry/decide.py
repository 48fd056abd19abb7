"""Decisions about a model: which facts follow from a request, or why none does.

In: the state of a model, a request, who makes it and when. Out: facts for the next revisions; none if the model is in
the requested state already, so requests are idempotent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from penstock_core.pipeline.values import ArtifactRef
from penstock_core.registry import gate_evaluation, gates
from penstock_core.registry.errors import ConflictError, GateError, GateRefusedError
from penstock_core.registry.facts import (
    AliasRemoved,
    GateSet,
    ModelFact,
    ModelPromoted,
    ModelRegistered,
    PromotionRefused,
    VersionArchived,
    check_alias,
)
from penstock_core.registry.state import Model, no_alias, no_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The artifact of a version and the attempt that made it."""

    artifact: ArtifactRef
    run_id: str
    key: str
    attempt: int
    output: str = ""
    pipeline: str = ""
    pipeline_version: int = 0
    code: str = ""
    experiment: bool = False

    @property
    def attempt_id(self) -> str:
        """The identifier of the attempt."""
        return f"{self.run_id}/{self.key}/{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetails:
    """The details of a version to register; see `ModelRegistered`."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    non_finite: dict[str, str] = field(default_factory=dict[str, str])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A request to point an alias at a version.

    Attributes:
        version: its number.
        gate: a gate to pass, besides the alias's own gate.
        force: whether to bypass both gates, which requires a reason.
        replaces: the version that the alias must point at now, 0 for none; None: any.
        cause: the attempt whose end requests it.
    """

    alias: str
    version: int
    reason: str = ""
    gate: str = ""
    force: bool = False
    replaces: int | None = None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a request, and when, in Unix seconds."""

    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The facts that follow (none if nothing changes), the version, and the result of the gate."""

    facts: tuple[ModelFact, ...] = ()
    version: int = 0
    refused: PromotionRefused | None = None


def register(
    model: Model, origin: Origin, about: VersionDetails, who: Actor, promotion: Promotion | None = None
) -> Decision:
    """Register a version; the same artifact of the same attempt is the same version.

    Args:
        model: the present state.
        origin: the artifact and where it comes from.
        about: the details of the version.
        who: who registers it.
        promotion: an alias for the version, whose number is filled in here. If a gate refuses it, that is recorded as a
            fact, because the version is registered all the same and the caller may be gone.
    """
    known = model.by_source.get((origin.run_id, origin.key, origin.attempt, origin.artifact.sha256))
    facts: tuple[ModelFact, ...] = ()
    if known is None:
        known = len(model.versions) + 1
        fields = {name: getattr(origin, name) for name in Origin.__slots__}
        fields |= {name: getattr(about, name) for name in VersionDetails.__slots__}
        facts = (
            ModelRegistered(
                project=model.project,
                model=model.name,
                revision=model.revision + 1,
                by=who.by,
                at=who.at,
                version=known,
                **fields,
            ),
        )
    if promotion is None or (promotion.cause and (promotion.cause, promotion.alias, known) in model.answered):
        return Decision(facts, known)
    return _with_alias(model, facts, replace(promotion, version=known), who)


def _with_alias(model: Model, facts: tuple[ModelFact, ...], promotion: Promotion, who: Actor) -> Decision:
    version = next((fact for fact in facts if isinstance(fact, ModelRegistered)), None)
    revision = model.revision + len(facts) + 1
    try:
        move = _move(model, version or model.versions[promotion.version], promotion, who, revision)
    except (GateRefusedError, ConflictError, GateError) as refusal:
        refused = PromotionRefused(
            project=model.project,
            model=model.name,
            revision=revision,
            by=who.by,
            at=who.at,
            alias=promotion.alias,
            version=promotion.version,
            gate=_asked(model, promotion),
            clauses=refusal.clauses if isinstance(refusal, GateRefusedError) else (str(refusal),),
            cause=promotion.cause,
        )
        return Decision((*facts, refused), promotion.version, refused)
    return Decision((*facts, *move), promotion.version)


def promote(model: Model, promotion: Promotion, who: Actor) -> Decision:
    """Point an alias at a version.

    Raises:
        NotFoundError: the model or the version does not exist.
        ConflictError: the version is archived, the alias does not point at `replaces`, or `force` has no reason.
        GateRefusedError: the version does not pass a gate.
        GateError: the gate is invalid.
    """
    version = model.numbered(promotion.version)
    return Decision(_move(model, version, promotion, who, model.revision + 1), promotion.version)


def _move(
    model: Model, version: ModelRegistered, promotion: Promotion, who: Actor, revision: int
) -> tuple[ModelPromoted, ...]:
    check_alias(promotion.alias)
    now = model.aliases.get(promotion.alias)
    previous = now.version if now is not None else None
    if promotion.force and not promotion.reason.strip():
        raise ConflictError("bypassing a gate requires a reason", "give one with --reason TEXT")
    gate = gates.parse(promotion.gate) if promotion.gate else None
    if previous == promotion.version:
        return ()
    if promotion.replaces is not None and promotion.replaces != (previous or 0):
        stands = f"points at version {previous}" if previous else "points at no version"
        raise ConflictError(
            f"alias {promotion.alias!r} of model {model.name!r} {stands}, not at version {promotion.replaces}",
            "it was changed in the meantime: check its history and try again",
        )
    if version.version in model.archived:
        raise ConflictError(f"version {version.version} of model {model.name!r} is archived", "unarchive it first")
    asked = _asked(model, promotion)
    clauses, forced = _judged(model, version, promotion, gate)
    return (
        ModelPromoted(
            project=model.project,
            model=model.name,
            revision=revision,
            by=who.by,
            at=who.at,
            alias=promotion.alias,
            version=version.version,
            previous=previous,
            reason=promotion.reason,
            gate=asked,
            clauses=clauses,
            forced=forced,
            cause=promotion.cause,
        ),
    )


def _judged(
    model: Model, version: ModelRegistered, promotion: Promotion, own: gates.Gate | None
) -> tuple[tuple[str, ...], bool]:
    """Evaluate the alias's gate and the request's own; returns the clauses, and whether a gate was bypassed.

    Raises:
        GateRefusedError: the version does not pass.
    """
    policy = model.gates.get(promotion.alias)
    asked = [gate for gate in (gates.parse(policy.gate) if policy else None, own) if gate is not None]
    found = [gate_evaluation.judge(gate, version, model.standing()) for gate in asked]
    clauses = tuple(text for one in found for text in one.texts)
    passed = all(one.holds for one in found)
    if not passed and not promotion.force:
        raise GateRefusedError(
            f"version {version.version} of model {model.name!r} does not pass the gate of {promotion.alias!r}",
            "register a better version, or bypass the gate with --force and a reason",
            clauses,
        )
    return clauses, not passed


def _asked(model: Model, promotion: Promotion) -> str:
    policy = model.gates.get(promotion.alias)
    both = [text for text in (policy.gate if policy else "", promotion.gate) if text]
    return both[0] if len(both) == 1 else " and ".join(f"({text})" for text in both)


def remove_alias(model: Model, alias: str, reason: str, who: Actor) -> Decision:
    """Delete an alias.

    Raises:
        NotFoundError: it does not exist.
    """
    if not model.exists:
        raise no_model(model.name)
    move = model.aliases.get(alias)
    if move is None:
        raise no_alias(model, alias)
    fact = AliasRemoved(
        project=model.project,
        model=model.name,
        revision=model.revision + 1,
        by=who.by,
        at=who.at,
        alias=alias,
        previous=move.version,
        reason=reason,
    )
    return Decision((fact,), move.version)


def set_gate(model: Model, alias: str, gate: str, reason: str, who: Actor) -> Decision:
    """Set the gate of an alias, or remove it with an empty one. The model need not exist yet.

    Raises:
        GateError: the gate is invalid.
    """
    check_alias(alias)
    if gate:
        gates.parse(gate)
    known = model.gates.get(alias)
    if (known.gate if known else "") == gate:
        return Decision()
    fact = GateSet(
        project=model.project,
        model=model.name,
        revision=model.revision + 1,
        by=who.by,
        at=who.at,
        alias=alias,
        gate=gate,
        reason=reason,
    )
    return Decision((fact,))


def archive(model: Model, version: int, reason: str, who: Actor, *, archived: bool = True) -> Decision:
    """Archive a version, or unarchive it.

    Raises:
        NotFoundError: the version does not exist.
        ConflictError: an alias points at it.
    """
    model.numbered(version)
    if (version in model.archived) == archived:
        return Decision((), version)
    aliases = model.aliases_of(version)
    if archived and aliases:
        raise ConflictError(
            f"version {version} of model {model.name!r} has an alias: {', '.join(aliases)}", "move or delete it first"
        )
    fact = VersionArchived(
        project=model.project,
        model=model.name,
        revision=model.revision + 1,
        by=who.by,
        at=who.at,
        version=version,
        archived=archived,
        reason=reason,
    )
    return Decision((fact,), version)
