"""Builds of versions from Git repositories, and of environments: `Client.builds`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport
from penstock.errors import BuildFailedError
from penstock_core import git_sources

_WAIT = 20
"""Seconds that one request waits for news of a build."""

_PER_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Build:
    """A build.

    Attributes:
        id: of the build.
        kind: `version` or `environment`.
        state: `building`, `ready`, `failed` or `cancelled`.
        source: what is built: a source in Git, or the name of an environment.
        requested_at: in Unix seconds; `requested_by`: the principal.
        commit: that the branch or tag was resolved to.
        pipeline: name of the pipeline, and `version` its number, once it is ready; `created`: whether it is new.
        published: whether the version was published.
        environment: digest of the lock; only of environments.
        warnings: about the source.
        error: why it failed.
        seconds: that it took.
        log: lines of its log after the cursor that was given, and `after`, the next cursor.
    """

    id: str
    kind: str
    state: str
    source: str
    requested_at: float
    requested_by: str = ""
    commit: str = ""
    pipeline: str = ""
    version: int | None = None
    created: bool = False
    published: bool = False
    environment: str = ""
    warnings: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0
    log: tuple[str, ...] = field(default=(), repr=False)
    after: int = field(default=0, repr=False)


class Builds:
    """`Client.builds`: build versions from Git repositories; list, follow and cancel builds."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def start(self, source: str, *, publish: bool = True) -> Build:
        """Request the build of a version, without waiting for it.

        Equal requests share one build until it has resolved the branch or tag.

        Args:
            source: such as `git+https://host/team/repo@main#subdirectory=train:training`.
            publish: make it the version that `latest` resolves to; False: register an experiment.

        Raises:
            InvalidGitSourceError: the source is not valid.
        """
        body = {**asdict(git_sources.parse(source)), "publish": publish}
        return views.build(Build, self._transport.json("POST", "/v1/builds", body=body))

    def wait(self, build: Build | str, *, log: Callable[[str], None] | None = None) -> Build:
        """Wait for the end of a build and return it.

        Args:
            build: the build, or its id.
            log: receives the lines of its log.

        Raises:
            BuildFailedError: it failed, or was cancelled.
            NotFoundError: there is no such build.
        """
        id, after = build if isinstance(build, str) else build.id, 0
        while True:
            found = self.get(id, after=after, wait=_WAIT)
            after = found.after
            for line in found.log:
                if log is not None:
                    log(line)
            if found.state == "ready":
                return found
            if found.state != "building" and not found.log:
                raise BuildFailedError(f"{found.source} cannot be built: {found.error}")

    def list(self) -> list[Build]:
        """Return the newest builds, newest first, without their logs."""
        found = self._transport.json("GET", "/v1/builds", query={"limit": _PER_PAGE})["builds"]
        return [views.build(Build, one) for one in found]

    def get(self, id: str, *, after: int = 0, wait: float = 0) -> Build:
        """Return a build, with lines of its log.

        Args:
            id: of the build.
            after: `after` of an earlier answer: only later lines.
            wait: seconds to wait for further lines, or for the end of the build.

        Raises:
            NotFoundError: there is no such build.
        """
        return views.build(
            Build, self._transport.json("GET", f"/v1/builds/{quote(id)}", query={"after": after, "wait": wait})
        )

    def cancel(self, id: str) -> Build:
        """Cancel a build that has not ended.

        Raises:
            NotFoundError: there is no such build.
            ConflictError: it has ended.
        """
        return views.build(Build, self._transport.json("POST", f"/v1/builds/{quote(id)}/cancel"))
