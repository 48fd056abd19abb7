"""The facts of a deployment: its numbered revisions, each written at most once, so that all changes are ordered."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from penstock_core import ids
from penstock_core.deployments.definition import Definition
from penstock_core.errors import InvalidFactError
from penstock_core.frozen import frozen

REVISIONS_LIMIT = 1_000_000
"""Maximum number of revisions of a deployment."""

REASON_LIMIT = 4_000
"""Maximum length of a reason, in characters."""


@frozen(kw_only=True)
class _Revision:
    """The fields of all facts: deployment, revision, principal, and time in Unix seconds."""

    append_once: ClassVar[bool] = True

    project: str
    deployment: str
    revision: int
    by: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        ids.check_name(self.project, "project")
        ids.check_name(self.deployment, "deployment")
        if not 1 <= self.revision <= REVISIONS_LIMIT:
            raise InvalidFactError(f"revision {self.revision} of deployment {self.deployment!r} is out of range")

    @property
    def tail(self) -> str:
        """End of the subject, and the fact's identity."""
        return f"{self.project}.{self.deployment}.{self.revision}"


@frozen(kw_only=True)
class DeploymentApplied(_Revision):
    """The deployment has a definition from now on. `restores` is the revision that it was rolled back to, or 0."""

    ce_type: ClassVar[str] = "penstock.deployment.applied.v1"

    definition: Definition
    restores: int = 0


@frozen(kw_only=True)
class DeploymentPaused(_Revision):
    """Its triggers start no runs until it is resumed."""

    ce_type: ClassVar[str] = "penstock.deployment.paused.v1"

    reason: str = ""


@frozen(kw_only=True)
class DeploymentResumed(_Revision):
    """Its triggers start runs again."""

    ce_type: ClassVar[str] = "penstock.deployment.resumed.v1"

    reason: str = ""


@frozen(kw_only=True)
class DeploymentDeleted(_Revision):
    """It is deleted; its history stays. A deployment of the same name may be applied again."""

    ce_type: ClassVar[str] = "penstock.deployment.deleted.v1"

    reason: str = ""


DeploymentFact: TypeAlias = DeploymentApplied | DeploymentPaused | DeploymentResumed | DeploymentDeleted

DEPLOYMENT_FACTS: tuple[type[DeploymentFact], ...] = (
    DeploymentApplied,
    DeploymentPaused,
    DeploymentResumed,
    DeploymentDeleted,
)
