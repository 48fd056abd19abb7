"""Projects: their records and quotas."""

from __future__ import annotations

from penstock_core import ids
from penstock_core.access import DEFAULT_PROJECT
from penstock_core.frozen import frozen


@frozen(kw_only=True)
class Quotas:
    """What a project may use; None: no quota.

    Attributes:
        artifact_bytes: size of the largest artifact that can be uploaded.
        events_per_second: events that each gateway accepts, those of webhooks among them.
    """

    artifact_bytes: int | None = None
    events_per_second: float | None = None


@frozen(kw_only=True)
class ProjectRecord:
    """A project. Times are in Unix seconds.

    Attributes:
        archived_at: since when it can be read only; None: it is not archived.

    Raises:
        InvalidIdError: the name is not the name of a project.
    """

    name: str
    created_at: float = 0.0
    created_by: str = ""
    archived_at: float | None = None
    quotas: Quotas = Quotas()

    def __post_init__(self) -> None:
        ids.check_name(self.name, "project")


DEFAULT = ProjectRecord(name=DEFAULT_PROJECT)
"""The default project while it has no record: it always exists."""
