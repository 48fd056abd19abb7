"""The state of a deployment: the fold of its facts, and the changes that may be appended.

`evolve` is total (facts that do not apply only advance the revision), idempotent, and takes ownership of its argument.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from penstock_core.deployments.definition import Definition
from penstock_core.deployments.definition_problems import problems
from penstock_core.deployments.facts import (
    REASON_LIMIT,
    DeploymentApplied,
    DeploymentDeleted,
    DeploymentFact,
    DeploymentPaused,
    DeploymentResumed,
)
from penstock_core.errors import InvalidInputsError, PenstockError
from penstock_core.frozen import frozen


class DeploymentError(PenstockError):
    """A change of a deployment is refused. `advice` says what to do."""

    user_fault: ClassVar[bool] = True

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(f"{message}: {advice}" if advice else message)


class NoDeploymentError(DeploymentError):
    """The deployment, or the revision, does not exist."""


class ConflictError(DeploymentError):
    """The deployment was changed meanwhile."""


@frozen(kw_only=True)
class Snapshot:
    """What is in force after a revision. `definition` is None if the deployment is deleted.

    `owner` is the principal that applied the definition: the triggers start runs only while it may do so itself.
    """

    revision: int
    at: float
    definition: Definition | None
    paused: bool
    owner: str = ""


@frozen(kw_only=True)
class Actor:
    """Who changes a deployment, and when, in Unix seconds."""

    by: str
    at: float


@dataclass(slots=True)
class Deployment:
    """The state of a deployment. Read its attributes; change it through `evolve` only.

    Attributes:
        revision: the last revision of its log that is folded.
        snapshots: what was in force after each revision, oldest first.
        facts: by revision.
    """

    project: str
    name: str
    revision: int = 0
    snapshots: list[Snapshot] = field(default_factory=list[Snapshot])
    facts: dict[int, DeploymentFact] = field(default_factory=dict[int, DeploymentFact])

    @property
    def current(self) -> Snapshot | None:
        """What is in force now; None before the first revision."""
        return self.snapshots[-1] if self.snapshots else None

    @property
    def exists(self) -> bool:
        """Whether it is defined and not deleted."""
        return self.current is not None and self.current.definition is not None

    def at(self, when: float) -> Snapshot | None:
        """Return what was in force at a Unix time; None before the first revision."""
        found = bisect.bisect_right(self.snapshots, when, key=lambda snapshot: snapshot.at)
        return self.snapshots[found - 1] if found else None

    def definition(self, revision: int) -> Definition:
        """Return the definition that was in force after a revision.

        Raises:
            NoDeploymentError: there is none.
        """
        found = next((one for one in self.snapshots if one.revision == revision), None)
        if found is None or found.definition is None:
            raise NoDeploymentError(
                f"deployment {self.name!r} has no definition at revision {revision}",
                f"list its revisions with `penstock deployments history {self.name}`",
            )
        return found.definition

    def require(self) -> Definition:
        """Return the definition in force.

        Raises:
            NoDeploymentError: it does not exist, or is deleted.
        """
        if self.current is None or self.current.definition is None:
            deleted = " (it was deleted)" if self.current else ""
            raise NoDeploymentError(
                f"there is no deployment {self.name!r}{deleted}", "list deployments with `penstock deployments list`"
            )
        return self.current.definition


def fold(project: str, name: str, facts: Iterable[tuple[int, DeploymentFact | None]]) -> Deployment:
    """Fold the facts of a deployment, by revision; None is an unreadable fact."""
    deployment = Deployment(project, name)
    for revision, fact in facts:
        evolve(deployment, revision, fact)
    return deployment


def evolve(deployment: Deployment, revision: int, fact: DeploymentFact | None) -> Deployment:
    """Fold one revision. Takes ownership of `deployment` and returns it."""
    if revision <= deployment.revision:
        return deployment
    deployment.revision = revision
    if fact is None or (fact.project, fact.deployment) != (deployment.project, deployment.name):
        return deployment
    before = deployment.current
    definition = before.definition if before else None
    paused = before.paused if before else False
    owner = before.owner if before else ""
    match fact:
        case DeploymentApplied():
            # A deleted deployment that is applied again is a new one.
            definition, paused, owner = fact.definition, paused and definition is not None, fact.by
        case _ if definition is None:
            return deployment
        case DeploymentPaused():
            paused = True
        case DeploymentResumed():
            paused = False
        case DeploymentDeleted():
            definition, paused = None, False
    # The clocks of two writers may differ; what is in force must not go back.
    at = max(fact.at, before.at) if before else fact.at
    deployment.facts[revision] = fact
    deployment.snapshots.append(Snapshot(revision=revision, at=at, definition=definition, paused=paused, owner=owner))
    return deployment


# --------------------------------------------------------------------------------------------------------------- decide


def apply(
    deployment: Deployment, definition: Definition, actor: Actor, expected: int | None = None, restores: int = 0
) -> list[DeploymentFact]:
    """Return the facts that give the deployment a definition; none if it has it already, from the same principal.

    Args:
        deployment: the deployment.
        definition: the new definition.
        actor: who changes it.
        expected: the revision that the caller has seen, 0 for a new deployment; None: whichever is current.
        restores: the revision that it is rolled back to.

    Raises:
        InvalidInputsError: with everything that is wrong in the definition.
        ConflictError: the deployment is at another revision.
    """
    found = problems(definition)
    if found:
        raise InvalidInputsError(f"Invalid deployment {deployment.name!r}", found)
    _check_revision(deployment, expected)
    current = deployment.current
    if current is not None and (current.definition, current.owner) == (definition, actor.by):
        return []
    return [DeploymentApplied(**_next(deployment, actor), definition=definition, restores=restores)]


def roll_back(deployment: Deployment, revision: int, actor: Actor, expected: int | None = None) -> list[DeploymentFact]:
    """Return the facts that restore the definition of an earlier revision.

    Raises:
        NoDeploymentError: there is no such revision.
        ConflictError: the deployment is at another revision than `expected`.
    """
    return apply(deployment, deployment.definition(revision), actor, expected, restores=revision)


def change(
    deployment: Deployment,
    kind: type[DeploymentPaused] | type[DeploymentResumed] | type[DeploymentDeleted],
    reason: str,
    actor: Actor,
    expected: int | None = None,
) -> list[DeploymentFact]:
    """Return the facts that pause, resume or delete the deployment; none if it is paused or resumed already.

    Raises:
        NoDeploymentError: it does not exist.
        ConflictError: the deployment is at another revision than `expected`.
        DeploymentError: the reason is too long.
    """
    deployment.require()
    _check_revision(deployment, expected)
    if len(reason) > REASON_LIMIT:
        raise DeploymentError(f"the reason has {len(reason)} characters; the limit is {REASON_LIMIT}")
    paused = deployment.current is not None and deployment.current.paused
    if (kind is DeploymentPaused and paused) or (kind is DeploymentResumed and not paused):
        return []
    return [kind(**_next(deployment, actor), reason=reason)]


def _next(deployment: Deployment, actor: Actor) -> dict[str, Any]:
    """The fields that all facts have, for the next revision."""
    return {
        "project": deployment.project,
        "deployment": deployment.name,
        "revision": deployment.revision + 1,
        "by": actor.by,
        "at": actor.at,
    }


def _check_revision(deployment: Deployment, expected: int | None) -> None:
    current = deployment.revision if deployment.exists else 0
    if expected is not None and expected not in (current, deployment.revision):
        raise ConflictError(
            f"deployment {deployment.name!r} is at revision {deployment.revision}, not {expected}",
            "read it again, and apply your change to what it is now",
        )
