"""Environments that pipelines declare, and their builds: `Client.environments`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from penstock.client import views
from penstock.client.http.transport import Transport
from penstock.errors import EnvironmentFailedError
from penstock_core.environments.declaration import EnvironmentDeclaration

_WAIT = 20
"""Seconds that one request waits for news of a build."""


@dataclass(frozen=True, slots=True)
class LockedEnvironment:
    """An environment with exact versions.

    Attributes:
        name: in its pipeline.
        digest: SHA-256 of its lock.
        python: minor version of Python.
        packages: versions by name of distribution.
        resolved: the environment as the API returns it.
    """

    name: str
    digest: str
    python: str
    packages: dict[str, str]
    resolved: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)


class Environments:
    """`Client.environments`: build declared environments."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def build(
        self,
        declaration: EnvironmentDeclaration,
        *,
        refresh: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> LockedEnvironment:
        """Resolve a declared environment to exact versions, have it installed, and return it.

        A declaration that was resolved before keeps its versions. This waits until the build has ended.

        Args:
            declaration: `Environment(…).declaration()`.
            refresh: resolve it again, so that newer versions of its distributions are found.
            log: receives the lines that the build prints.

        Raises:
            EnvironmentFailedError: it cannot be resolved or installed; in the words of the resolver.
        """
        view = self._transport.json("POST", "/v1/environments", body={**asdict(declaration), "refresh": refresh})
        address, after = f"/v1/environments/{view['id']}", 0
        if view["state"] == "building" and log is not None:
            log(f"building environment {declaration.name!r}")
        while view["state"] == "building":
            view = self._transport.json("GET", address, query={"after": after, "wait": _WAIT})
            after = view["after"]
            if log is not None:
                for line in view["log"]:
                    log(f"  {line}")
        if view["state"] == "failed":
            raise EnvironmentFailedError(f"environment {declaration.name!r} cannot be built: {view['error']}")
        return locked(declaration.name, view["environment"])

    def lock(self, digest: str) -> str:
        """Return the lock of an environment: a requirements file with hashes, for pip and uv.

        Args:
            digest: of the environment.

        Raises:
            NotFoundError: there is no such lock.
        """
        return self._transport.json("GET", f"/v1/environments/locks/{digest}")["text"]


def locked(name: str, resolved: dict[str, Any]) -> LockedEnvironment:
    """Return an environment of the API."""
    return views.build(LockedEnvironment, resolved, name=name, python=resolved["version"], resolved=resolved)
