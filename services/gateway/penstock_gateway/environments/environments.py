"""Requests builds of declared environments, and follows them."""

from __future__ import annotations

import pydantic

from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.build_log import EnvironmentBuildLog
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers
from penstock_contracts import subjects
from penstock_contracts.environments import (
    DeclarationBody,
    EnvironmentFinished,
    EnvironmentLog,
    EnvironmentRequested,
    EnvironmentView,
    LockView,
)
from penstock_core import ids
from penstock_core.environments.declaration import InvalidDeclarationError
from penstock_gateway.errors import NotFoundError, UnprocessableError
from penstock_gateway.message_size import check_message_size

_LOG_LINES = 1000
"""Lines of a log in one answer."""


class Environments:
    """Builds of the environments of a project."""

    def __init__(self, bus: Bus, versions: Versions, followers: Followers, project: str) -> None:
        self._bus = bus
        self._versions = versions
        self._followers = followers
        self._project = project
        self._builds = EnvironmentBuildLog(bus, project)

    async def request(self, body: DeclarationBody, by: str) -> tuple[EnvironmentView, bool]:
        """Return the build of a declaration, and whether it is a new one.

        A build that failed is made again.

        Raises:
            UnprocessableError: the declaration is not valid.
            ContentTooLargeError: it does not fit into a message.
        """
        try:
            declaration = body.declaration()
        except InvalidDeclarationError as error:
            raise UnprocessableError("Invalid environment", str(error)) from error
        digest = declaration.digest()
        largest = EnvironmentRequested(declaration=declaration, build=10**6, at=0.0, by=by)
        check_message_size(self._bus, len(largest.model_dump_json()) + 20, "shorten uv.lock or the requirements")
        build, end, new = await self._builds.request(declaration, by, refresh=body.refresh)
        return _view(digest, build, end), new

    async def read(self, digest: str, after: int, wait: float) -> EnvironmentView:
        """Return the latest build of a declaration, with the lines of its log after a cursor.

        Args:
            digest: of the declaration.
            after: cursor of an earlier answer, or 0.
            wait: seconds to wait until there are further lines, or the build has ended.

        Raises:
            NotFoundError: there is no such build.
        """
        ids.check_digest(digest)
        latest = await self._builds.latest(digest)
        if latest is None:
            raise NotFoundError(f"Environment {digest[:12]} does not exist", "request its build: POST /v1/environments")
        everything = subjects.environment(self._project, digest, latest, ">")
        last = await self._bus.last(subjects.BUILDS, everything)
        view = await self._log(_view(digest, latest, await self._builds.finished(digest, latest)), after)
        if wait <= 0 or view.state != "building" or view.log:
            return view
        async with self._followers.follow(subjects.BUILDS, [everything], last.seq if last else 0) as follower:
            await follower.take(wait)
        return await self._log(_view(digest, latest, await self._builds.finished(digest, latest)), after)

    async def lock(self, digest: str) -> LockView:
        """Return the lock of an environment.

        Raises:
            NotFoundError: there is no such lock.
        """
        found = await self._versions.lock(ids.check_digest(digest))
        if found is None:
            raise NotFoundError(f"Lock {digest[:12]} does not exist", "no environment has this digest")
        return LockView(digest=digest, text=found.text())

    async def _log(self, view: EnvironmentView, after: int) -> EnvironmentView:
        subject = subjects.environment(self._project, view.id, view.build, "log")
        lines: list[str] = []
        for message in await self._bus.read(subjects.BUILDS, subject, after):
            if len(lines) >= _LOG_LINES:
                break
            after = int((message.headers or {})["Nats-Sequence"])
            try:
                lines += EnvironmentLog.model_validate_json(message.data).lines
            except pydantic.ValidationError:
                lines.append("(an unreadable line)")
        return view.model_copy(update={"log": lines, "after": after})


def _view(digest: str, build: int, end: EnvironmentFinished | None) -> EnvironmentView:
    if end is None:
        return EnvironmentView(id=digest, build=build, state="building")
    state = "ready" if end.environment is not None else "failed"
    error = end.error or (f"it was cancelled by {end.cancelled_by}" if end.cancelled_by else "")
    return EnvironmentView(id=digest, build=build, state=state, environment=end.environment, error=error)
