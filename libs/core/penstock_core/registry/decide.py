"""Decisions on a model: which facts follow from a wish, or why none does.

In: a model as it stands, a wish, who has it and when. Out: facts for the places that follow, none where all is so
already. A wish is repeated as often as anybody likes: what it asked for is then there, and nothing follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from penstock_core.registry import gates, verdicts
from penstock_core.registry.errors import Contradicts, GateError, GateRefused
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
from penstock_core.values import ArtifactRef


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

    @property
    def attempt_id(self) -> str:
        """The attempt as text."""
        return f"{self.run_id}/{self.key}/{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is said of a version when it is registered; see `ModelRegistered`."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    odd: dict[str, str] = field(default_factory=dict[str, str])
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
class Who:
    """Who has a wish, and when, in Unix seconds."""

    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows: facts (none where all is so already), for which version, and what came of a gate."""

    facts: tuple[ModelFact, ...] = ()
    version: int = 0
    refused: PromotionRefused | None = None


def register(model: Model, origin: Origin, about: About, who: Who, wish: Promotion | None = None) -> Decision:
    """A version made of an artifact; the same artifact of the same attempt is the same version.

    Args:
        model: as it stands.
        origin: the artifact and where it comes from.
        about: what is said of it.
        who: who registers it.
        wish: an alias for it; its version is filled in here. A refusal is a fact, too: the version is there all the
            same, and whoever asked may have gone.
    """
    known = model.made_of.get((origin.run_id, origin.key, origin.attempt, origin.artifact.sha256))
    facts: tuple[ModelFact, ...] = ()
    if known is None:
        known = len(model.versions) + 1
        fields = {name: getattr(origin, name) for name in Origin.__slots__}
        fields |= {name: getattr(about, name) for name in About.__slots__}
        facts = (
            ModelRegistered(
                project=model.project,
                model=model.name,
                place=model.place + 1,
                by=who.by,
                at=who.at,
                version=known,
                **fields,
            ),
        )
    if wish is None or (wish.cause and (wish.cause, wish.alias, known) in model.answered):
        return Decision(facts, known)
    return _with_alias(model, facts, replace(wish, version=known), who)


def _with_alias(model: Model, facts: tuple[ModelFact, ...], wish: Promotion, who: Who) -> Decision:
    version = next((fact for fact in facts if isinstance(fact, ModelRegistered)), None)
    place = model.place + len(facts) + 1
    try:
        move = _move(model, version or model.versions[wish.version], wish, who, place)
    except (GateRefused, Contradicts, GateError) as refusal:
        refused = PromotionRefused(
            project=model.project,
            model=model.name,
            place=place,
            by=who.by,
            at=who.at,
            alias=wish.alias,
            version=wish.version,
            gate=_asked(model, wish),
            clauses=refusal.clauses if isinstance(refusal, GateRefused) else (str(refusal),),
            cause=wish.cause,
        )
        return Decision((*facts, refused), wish.version, refused)
    return Decision((*facts, *move), wish.version)


def promote(model: Model, wish: Promotion, who: Who) -> Decision:
    """An alias stands for a version from now on.

    Raises:
        NotThere: there is no such model or version.
        Contradicts: the version is archived, the alias stands elsewhere than `replaces` says, or force has no reason.
        GateRefused: the version does not pass.
        GateError: the gate cannot be read.
    """
    version = model.numbered(wish.version)
    return Decision(_move(model, version, wish, who, model.place + 1), wish.version)


def _move(model: Model, version: ModelRegistered, wish: Promotion, who: Who, place: int) -> tuple[ModelPromoted, ...]:
    check_alias(wish.alias)
    now = model.aliases.get(wish.alias)
    before = now.version if now is not None else None
    if wish.force and not wish.reason.strip():
        raise Contradicts("a gate is passed by for a reason only", "say why, with --reason TEXT")
    gate = gates.parse(wish.gate) if wish.gate else None
    if before == wish.version:
        return ()
    if wish.replaces is not None and wish.replaces != (before or 0):
        stands = f"stands for version {before}" if before else "stands for nothing"
        raise Contradicts(
            f"alias {wish.alias!r} of model {model.name!r} {stands}, not for version {wish.replaces}",
            "somebody else has moved it: look at its history, then decide anew",
        )
    if version.version in model.archived:
        raise Contradicts(
            f"version {version.version} of model {model.name!r} is archived", "take it back first: --undo"
        )
    asked = _asked(model, wish)
    clauses, forced = _judged(model, version, wish, gate)
    return (
        ModelPromoted(
            project=model.project,
            model=model.name,
            place=place,
            by=who.by,
            at=who.at,
            alias=wish.alias,
            version=version.version,
            before=before,
            reason=wish.reason,
            gate=asked,
            clauses=clauses,
            forced=forced,
            cause=wish.cause,
        ),
    )


def _judged(
    model: Model, version: ModelRegistered, wish: Promotion, own: gates.Gate | None
) -> tuple[tuple[str, ...], bool]:
    """What came of the alias's gate and of the wish's own, and whether one was passed by.

    Raises:
        GateRefused: the version does not pass.
    """
    policy = model.gates.get(wish.alias)
    asked = [gate for gate in (gates.parse(policy.gate) if policy else None, own) if gate is not None]
    found = [verdicts.judge(gate, version, model.standing()) for gate in asked]
    clauses = tuple(text for one in found for text in one.texts)
    passed = all(one.holds for one in found)
    if not passed and not wish.force:
        raise GateRefused(
            f"version {version.version} of model {model.name!r} does not pass the gate of {wish.alias!r}",
            "register a better one, or pass the gate by with --force and a reason",
            clauses,
        )
    return clauses, not passed


def _asked(model: Model, wish: Promotion) -> str:
    policy = model.gates.get(wish.alias)
    both = [text for text in (policy.gate if policy else "", wish.gate) if text]
    return both[0] if len(both) == 1 else " and ".join(f"({text})" for text in both)


def remove_alias(model: Model, alias: str, reason: str, who: Who) -> Decision:
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
        place=model.place + 1,
        by=who.by,
        at=who.at,
        alias=alias,
        before=move.version,
        reason=reason,
    )
    return Decision((fact,), move.version)


def set_gate(model: Model, alias: str, gate: str, reason: str, who: Who) -> Decision:
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
        place=model.place + 1,
        by=who.by,
        at=who.at,
        alias=alias,
        gate=gate,
        reason=reason,
    )
    return Decision((fact,))


def archive(model: Model, version: int, reason: str, who: Who, *, archived: bool = True) -> Decision:
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
        raise Contradicts(
            f"version {version} of model {model.name!r} is {', '.join(aliases)}", "move or remove that alias first"
        )
    fact = VersionArchived(
        project=model.project,
        model=model.name,
        place=model.place + 1,
        by=who.by,
        at=who.at,
        version=version,
        archived=archived,
        reason=reason,
    )
    return Decision((fact,), version)
