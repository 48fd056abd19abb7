"""The state of a model: the fold of its facts.

`evolve` is total (facts that do not apply only advance the revision), idempotent (a revision is folded once) and takes
ownership of its argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from penstock_core.registry.errors import NotFoundError
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

Source = tuple[str, str, int, str]
"""Where a version comes from: run, step, attempt, and the digest of the artifact."""

_NAMED = 20


@dataclass(slots=True)
class Model:
    """The state of a model. Read its attributes; change it through `evolve` only.

    Attributes:
        revision: the last revision of its log that is folded.
        versions: by number; the numbers have no gaps.
        archived: the reasons of archived versions, by number.
        aliases: the promotions that the aliases come from.
        gates: the gates of aliases.
        history: all facts, in order.
        by_source: the number of the version with this source.
        answered: aliases that ends of attempts requested and that were decided: cause, alias, version.
    """

    project: str
    name: str
    revision: int = 0
    versions: dict[int, ModelRegistered] = field(default_factory=dict[int, ModelRegistered])
    archived: dict[int, str] = field(default_factory=dict[int, str])
    aliases: dict[str, ModelPromoted] = field(default_factory=dict[str, ModelPromoted])
    gates: dict[str, GateSet] = field(default_factory=dict[str, GateSet])
    history: list[ModelFact] = field(default_factory=list[ModelFact])
    by_source: dict[Source, int] = field(default_factory=dict[Source, int])
    answered: set[tuple[str, str, int]] = field(default_factory=set[tuple[str, str, int]])

    @property
    def exists(self) -> bool:
        """Whether it has a version: a gate may be set before."""
        return bool(self.versions)

    @property
    def latest(self) -> ModelRegistered | None:
        """The published version with the highest number that is not archived; experiments are never the latest."""
        numbers = sorted(self.versions.keys() - self.archived.keys(), reverse=True)
        return next((self.versions[n] for n in numbers if not self.versions[n].experiment), None)

    @property
    def experiments(self) -> list[int]:
        """The numbers of the versions that experiments registered, except archived ones."""
        return [n for n in sorted(self.versions) if self.versions[n].experiment and n not in self.archived]

    def standing(self) -> dict[str, ModelRegistered]:
        """The versions that the aliases point at."""
        return {alias: self.versions[move.version] for alias, move in self.aliases.items()}

    def aliases_of(self, version: int) -> list[str]:
        """Return the aliases that point at a version, by name."""
        return sorted(alias for alias, move in self.aliases.items() if move.version == version)

    def find(self, reference: Reference) -> ModelRegistered:
        """Return the version that a reference resolves to.

        Raises:
            NotFoundError: it does not exist.
        """
        if not self.exists:
            raise no_model(self.name)
        if reference.version is not None:
            return self.numbered(reference.version)
        if reference.alias is not None:
            move = self.aliases.get(reference.alias)
            if move is None:
                raise no_alias(self, reference.alias)
            return self.versions[move.version]
        latest = self.latest
        if latest is None:
            raise no_latest(self)
        return latest

    def numbered(self, version: int) -> ModelRegistered:
        """Return a version by its number.

        Raises:
            NotFoundError: it does not exist.
        """
        if not self.exists:
            raise no_model(self.name)
        if version not in self.versions:
            raise NotFoundError(
                f"model {self.name!r} has no version {version}", f"it has versions 1 to {len(self.versions)}"
            )
        return self.versions[version]


def no_model(name: str) -> NotFoundError:
    """Return the error that a model does not exist."""
    return NotFoundError(f"there is no model {name!r}", "list models with `penstock models list`")


def no_latest(model: Model) -> NotFoundError:
    """No version of a model is published, or all are archived."""
    numbers = model.experiments
    if not numbers:
        return NotFoundError(f"every version of model {model.name!r} is archived", "name one by its number, such as :1")
    named = [f"{model.name}:{n}" for n in numbers]
    listed = ", ".join(named) if len(named) < 3 else f"{named[0]} … {named[-1]}"
    count = "1 version comes from an experiment" if len(named) == 1 else f"{len(named)} versions come from experiments"
    unarchived = " that is not archived" if any(not fact.experiment for fact in model.versions.values()) else ""
    return NotFoundError(
        f"model {model.name!r} has no published version{unarchived} ({count}: {listed})",
        "name one by number or alias, or train with a registered pipeline (penstock register)",
    )


def no_alias(model: Model, alias: str) -> NotFoundError:
    """Return the error that an alias does not exist."""
    known = ", ".join(sorted(model.aliases)[:_NAMED]) or "none"
    return NotFoundError(f"model {model.name!r} has no alias {alias!r}", f"its aliases: {known}")


def fold(project: str, name: str, facts: Iterable[tuple[int, ModelFact | None]]) -> Model:
    """Fold the facts of a model, by revision; None is an unreadable fact."""
    model = Model(project, name)
    for revision, fact in facts:
        model = evolve(model, revision, fact)
    return model


def evolve(model: Model, revision: int, fact: ModelFact | None) -> Model:
    """Fold one revision. Takes ownership of `model` and returns it."""
    if revision <= model.revision:
        return model
    model.revision = revision
    if fact is not None and (fact.project, fact.model) == (model.project, model.name) and _apply(model, fact):
        model.history.append(fact)
    return model


def _apply(model: Model, fact: ModelFact) -> bool:
    """Fold a fact; False if it does not apply."""
    if isinstance(fact, ModelPromoted | PromotionRefused | VersionArchived) and fact.version not in model.versions:
        return False
    match fact:
        case ModelRegistered():
            if fact.version != len(model.versions) + 1:
                return False
            model.versions[fact.version] = fact
            source = (fact.run_id, fact.key, fact.attempt, fact.artifact.sha256)
            model.by_source.setdefault(source, fact.version)
        case ModelPromoted() | PromotionRefused():
            if isinstance(fact, ModelPromoted):
                model.aliases[fact.alias] = fact
            if fact.cause:
                model.answered.add((fact.cause, fact.alias, fact.version))
        case AliasRemoved():
            return model.aliases.pop(fact.alias, None) is not None
        case GateSet():
            if fact.gate:
                model.gates[fact.alias] = fact
            else:
                return model.gates.pop(fact.alias, None) is not None
        case VersionArchived():
            model.archived.pop(fact.version, None)
            if fact.archived:
                model.archived[fact.version] = fact.reason
    return True


def held(models: Iterable[Model]) -> set[str]:
    """Return the digests of the artifacts of all versions of these models, including archived ones.

    The object of a folder is its manifest, which lists the files that must be kept with it.
    """
    return {version.artifact.sha256 for model in models for version in model.versions.values()}
