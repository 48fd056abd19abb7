"""Projects of a platform: `Client.projects`."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport


@dataclass(frozen=True, slots=True)
class Project:
    """A project. Times are in Unix seconds.

    Attributes:
        archived_at: since when it can be read only; None: it is not archived.
        quotas: `artifact_bytes`, `events_per_second`; None: no quota.
    """

    name: str
    created_at: float = 0.0
    created_by: str = ""
    archived_at: float | None = None
    quotas: dict[str, float | None] = field(default_factory=dict[str, "float | None"])

    def __repr__(self) -> str:
        return f"Project({self.name!r})"


class Projects:
    """`Client.projects`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[Project]:
        """Return the projects in which the principal has a role, by name."""
        return [views.build(Project, row) for row in self._transport.json("GET", "/v1/projects")["projects"]]

    def get(self, name: str) -> Project:
        """Return a project.

        Raises:
            NotFoundError: it does not exist.
        """
        return views.build(Project, self._transport.json("GET", _path(name), headers=_header(name)))

    def create(
        self,
        name: str,
        *,
        artifact_bytes: int | None = None,
        events_per_second: float | None = None,
    ) -> Project:
        """Create a project, or replace the quotas of one that exists. Needs the role admin in all projects.

        Args:
            name: of the project.
            artifact_bytes: size of the largest artifact.
            events_per_second: events that each gateway accepts, also of webhooks.

        Raises:
            RefusedError: a name or a quota is invalid.
        """
        quotas = {
            "artifact_bytes": artifact_bytes,
            "events_per_second": events_per_second,
        }
        made = self._transport.json("PUT", _path(name), body={"quotas": quotas}, headers=_header(name))
        return views.build(Project, made)

    def archive(self, name: str, *, archived: bool = True) -> Project:
        """Archive a project, which can then be read only, or unarchive it.

        Raises:
            NotFoundError: it does not exist.
            RefusedError: it is the default project.
        """
        body = {"archived": archived}
        found = self._transport.json("POST", f"{_path(name)}/archive", body=body, headers=_header(name))
        return views.build(Project, found)


def _header(name: str) -> dict[str, str]:
    """The project of the request is that of its path."""
    return {"penstock-project": name}


def _path(name: str) -> str:
    return f"/v1/projects/{quote(name, safe='')}"
