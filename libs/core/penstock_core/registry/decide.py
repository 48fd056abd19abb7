"""Decisions on a model: which facts follow from a wish, or why none does.

In: a model as it stands, a wish, who has it and when. Out: facts for the places that follow, none where all is so
already. A wish is repeated as often as anybody likes: what it asked for is then there, and nothing follows.
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
    """What a version is made of: an artifact of an attempt, and what is known of both."""

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
        """The attempt as text."""
        return f"{self.run_id}/{self.key}/{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetails:
    """What is said of a version when it is registered; see `ModelRegistered`."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    non_finite: dict[str, str] = field(default_factory=dict[str, str])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A wish that an alias stands for a version.

    Attributes:
        version: its number.
        gate: what it has to pass, besides the alias's own gate.
        force: whether it passes without either; that takes a reason.
        replaces: the version that the alias has to stand for now, 0 for none; None: whichever.
        cause: the attempt whose end asks for it.
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
    """Who has a wish, and when, in Unix seconds."""

    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows: facts (none where all is so already), for which version, and what came of a gate."""

    facts: tuple[ModelFact, ...] = ()
    version: int = 0
    refused: PromotionRefused | None = None


def register(
    model: Model, origin: Origin, about: VersionDetails, who: Actor, promotion: Promotion | None = None
) -> Decision:
    """A version made of an artifact; the same artifact of the same attempt is the same version.

    Args:
        model: as it stands.
        origin: the artifact and where it comes from.
        about: what is said of it.
        who: who registers it.
        promotion: an alias for it; its version is filled in here. A refusal is a fact, too: the version is there all
        the
            same, and whoever asked may have gone.
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
    """An alias stands for a version from now on.

    Raises:
        NotThere: there is no such model or version.
        Contradicts: the version is archived, the alias stands elsewhere than `replaces` says, or force has no reason.
        GateRefused: the version does not pass.
        GateError: the gate cannot be read.
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
        raise ConflictError("a gate is passed by for a reason only", "say why, with --reason TEXT")
    gate = gates.parse(promotion.gate) if promotion.gate else None
    if previous == promotion.version:
        return ()
    if promotion.replaces is not None and promotion.replaces != (previous or 0):
        stands = f"stands for version {previous}" if previous else "stands for nothing"
        raise ConflictError(
            f"alias {promotion.alias!r} of model {model.name!r} {stands}, not for version {promotion.replaces}",
            "somebody else has moved it: look at its history, then decide anew",
        )
    if version.version in model.archived:
        raise ConflictError(
            f"version {version.version} of model {model.name!r} is archived", "take it back first: --undo"
        )
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
    """What came of the alias's gate and of the wish's own, and whether one was passed by.

    Raises:
        GateRefused: the version does not pass.
    """
    policy = model.gates.get(promotion.alias)
    asked = [gate for gate in (gates.parse(policy.gate) if policy else None, own) if gate is not None]
    found = [gate_evaluation.judge(gate, version, model.standing()) for gate in asked]
    clauses = tuple(text for one in found for text in one.texts)
    passed = all(one.holds for one in found)
    if not passed and not promotion.force:
        raise GateRefusedError(
            f"version {version.version} of model {model.name!r} does not pass the gate of {promotion.alias!r}",
            "register a better one, or pass the gate by with --force and a reason",
            clauses,
        )
    return clauses, not passed


def _asked(model: Model, promotion: Promotion) -> str:
    policy = model.gates.get(promotion.alias)
    both = [text for text in (policy.gate if policy else "", promotion.gate) if text]
    return both[0] if len(both) == 1 else " and ".join(f"({text})" for text in both)


def remove_alias(model: Model, alias: str, reason: str, who: Actor) -> Decision:
    """An alias stands for nothing any more.

    Raises:
        NotThere: it stands for nothing.
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
    """Every move of an alias has to pass a gate from now on; an empty one removes it. A model need not be there yet.

    Raises:
        GateError: the gate cannot be read.
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
    """A version is not offered any more, or is again.

    Raises:
        NotThere: there is no such version.
        Contradicts: an alias stands for it.
    """
    model.numbered(version)
    if (version in model.archived) == archived:
        return Decision((), version)
    aliases = model.aliases_of(version)
    if archived and aliases:
        raise ConflictError(
            f"version {version} of model {model.name!r} is {', '.join(aliases)}", "move or remove that alias first"
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
