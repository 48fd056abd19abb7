"""Requests, lists, follows and cancels builds. What is built is fetched by builders, never by a gateway."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import pydantic
from nats.aio.msg import Msg

from penstock_adapters.nats import build_log
from penstock_adapters.nats.build_log import VersionBuildLog
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.follower import Followers
from penstock_adapters.nats.newest import newest
from penstock_contracts import subjects
from penstock_contracts.builds import (
    BuildBody,
    BuildFinished,
    BuildList,
    BuildRequested,
    BuildResolved,
    BuildState,
    BuildView,
)
from penstock_contracts.environments import EnvironmentFinished, EnvironmentLog, EnvironmentRequested
from penstock_core.git_sources import InvalidGitSourceError
from penstock_gateway.errors import ConflictError, NotFoundError, UnprocessableError

_LOG_LINES = 1000
"""Lines of a log in one answer."""

_ID = re.compile(r"(?P<kind>version|environment)-(?P<digest>[0-9a-f]{64})-(?P<number>[1-9][0-9]{0,6})\Z")
_READ = 500
"""Facts in one read."""

_PREFIXES = {"version": "version-builds", "environment": "environments"}

M = TypeVar("M", bound=pydantic.BaseModel)


class Builds:
    """Builds of a project."""

    def __init__(self, bus: Bus, followers: Followers, project: str) -> None:
        self._bus = bus
        self._followers = followers
        self._project = project
        self._log = VersionBuildLog(bus)

    async def request(self, body: BuildBody, by: str) -> tuple[BuildView, bool]:
        """Return the build of a version, and whether it is a new one.

        An equal request whose branch or tag is not resolved yet has the same build: it will find the same commit.

        Raises:
            UnprocessableError: the source is not valid.
        """
        try:
            source = body.source()
        except InvalidGitSourceError as error:
            raise UnprocessableError("Invalid source", str(error)) from error
        digest, number, new = await self._log.request(self._project, source, by, publish=body.publish)
        return await self._view(f"version-{digest}-{number}"), new

    async def list(self, limit: int) -> BuildList:
        """Return the newest builds, newest first, without their logs."""
        facts: dict[str, dict[str, Any]] = {}
        for prefix in _PREFIXES.values():
            pattern = f"{prefix}.{self._project}.*.*.requested"
            for message in await newest(self._bus, subjects.BUILDS, pattern, lambda message: message, limit):
                facts[_build_id(message)[0]] = {"requested": message}
        asked = {id: found[0] for id, known in facts.items() if (found := _parse(id, known)) is not None}
        ids = sorted(asked, key=lambda id: asked[id].requested_at, reverse=True)[:limit]
        places = [f"{self._prefix(id)}.{tail}" for id in ids for tail in ("resolved", "finished")]
        for start in range(0, len(places), _READ):
            query = {"multi_last": places[start : start + _READ]}
            for message in await self._bus.direct_get(subjects.BUILDS, query):
                id, tail = _build_id(message)
                facts[id][tail] = message
        parsed = [_parse(id, facts[id]) or (asked[id], "") for id in ids]
        return BuildList(builds=[await self._view(view.id) if joins else view for view, joins in parsed])

    async def read(self, id: str, after: int, wait: float) -> BuildView:
        """Return a build, with the lines of its log after a cursor.

        Args:
            id: of the build.
            after: cursor of an earlier answer, or 0.
            wait: seconds to wait until there are further lines, or the build has ended.

        Raises:
            NotFoundError: there is no such build.
        """
        prefix = self._prefix(id)
        last = await self._bus.last(subjects.BUILDS, f"{prefix}.>")
        view = await self._with_log(await self._view(id), prefix, after)
        if wait <= 0 or view.state != "building" or view.log:
            return view
        followed = [f"{prefix}.>"]
        maker = id
        while joins := (await self._parsed(maker))[1]:
            followed.append(f"{self._prefix(joins)}.finished")
            maker = joins
        async with self._followers.follow(subjects.BUILDS, followed, last.seq if last else 0) as follower:
            await follower.take(wait)
        return await self._with_log(await self._view(id), prefix, after)

    async def cancel(self, id: str, by: str) -> BuildView:
        """Cancel a build that has not ended; its builder stops.

        Raises:
            NotFoundError: there is no such build.
            ConflictError: it has ended, or another build makes its version.
        """
        view, joins = await self._view(id), (await self._parsed(id))[1]
        if joins and view.state == "building":
            raise ConflictError(f"Build {id} cannot be cancelled", f"build {joins} makes its version: cancel that one")
        model = BuildFinished if view.kind == "version" else EnvironmentFinished
        end = model(cancelled_by=by, at=time.time())
        if view.state == "building" and await build_log.append(self._bus, f"{self._prefix(id)}.finished", end):
            return await self._view(id)
        view = await self._view(id)
        if view.state == "cancelled":
            return view
        raise ConflictError(f"Build {id} cannot be cancelled", f"it is {view.state}")

    async def _view(self, id: str) -> BuildView:
        """Return a build, with the result of the one that makes its version, which can have joined another one."""
        view, joins = await self._parsed(id)
        maker = view
        while joins:
            maker, joins = await self._parsed(joins)
        return _followed(view, maker) if maker is not view else view

    async def _parsed(self, id: str) -> tuple[BuildView, str]:
        prefix = self._prefix(id)
        facts: dict[str, Any] = {}
        for tail in ("requested", "resolved", "finished"):
            last = await self._bus.last(subjects.BUILDS, f"{prefix}.{tail}")
            if last is not None:
                facts[tail] = last
        found = _parse(id, facts)
        if found is None:
            raise NotFoundError(f"Build {id} does not exist", "GET /v1/builds lists the builds")
        return found

    async def _with_log(self, view: BuildView, prefix: str, after: int) -> BuildView:
        lines: list[str] = []
        for message in await self._bus.read(subjects.BUILDS, f"{prefix}.log", after):
            if len(lines) >= _LOG_LINES:
                break
            after = int((message.headers or {})["Nats-Sequence"])
            try:
                lines += EnvironmentLog.model_validate_json(message.data).lines
            except pydantic.ValidationError:
                lines.append("(an unreadable line)")
        return view.model_copy(update={"log": lines, "after": after})

    def _prefix(self, id: str) -> str:
        found = _ID.match(id)
        if found is None:
            raise NotFoundError(f"Build {id[:100]} does not exist", "GET /v1/builds lists the builds")
        return f"{_PREFIXES[found['kind']]}.{self._project}.{found['digest']}.{found['number']}"


def _parse(id: str, facts: dict[str, Any]) -> tuple[BuildView, str] | None:
    """Return a build by its facts, and the id of the build that makes its version, if that is another one.

    None if it was not requested, or its request is unreadable.
    """
    if "requested" not in facts:
        return None
    if id.startswith("environment-"):
        return _environment(id, facts)
    request = _read(BuildRequested, facts["requested"])
    if request is None:
        return None
    resolved = _read(BuildResolved, facts.get("resolved"))
    view = BuildView(
        id=id,
        kind="version",
        state="building",
        source=str(request.source),
        requested_at=request.at,
        requested_by=request.by,
        commit=resolved.commit if resolved is not None else "",
    )
    end = _end(BuildFinished, facts.get("finished"))
    if end is None:
        return view, ""
    if end.joined is not None:
        return view, f"{id.rpartition('-')[0]}-{end.joined}"
    fields = end.model_dump(include={"pipeline", "version", "created", "published", "warnings", "seconds"})
    state, error = _state(end.error, end.cancelled_by), _error(end.error, end.cancelled_by)
    return view.model_copy(update={**fields, "state": state, "error": error}), ""


def _environment(id: str, facts: dict[str, Any]) -> tuple[BuildView, str] | None:
    request = _read(EnvironmentRequested, facts["requested"])
    if request is None:
        return None
    end = _end(EnvironmentFinished, facts.get("finished"))
    view = BuildView(
        id=id,
        kind="environment",
        state=_state(end.error, end.cancelled_by) if end is not None else "building",
        source=request.declaration.name,
        requested_at=request.at,
        requested_by=request.by,
        environment=end.environment.digest if end is not None and end.environment is not None else "",
        error=_error(end.error, end.cancelled_by) if end is not None else "",
        seconds=end.seconds if end is not None else 0.0,
    )
    return view, ""


def _state(error: str, cancelled_by: str) -> BuildState:
    if cancelled_by:
        return "cancelled"
    return "failed" if error else "ready"


def _error(error: str, cancelled_by: str) -> str:
    return f"it was cancelled by {cancelled_by}" if cancelled_by else error


def _build_id(message: Msg) -> tuple[str, str]:
    """Return the id of the build of a fact, and the last word of its subject."""
    prefix, _, digest, number, tail = (message.headers or {})["Nats-Subject"].split(".")
    return f"{next(kind for kind, one in _PREFIXES.items() if one == prefix)}-{digest}-{number}", tail


def _followed(view: BuildView, target: BuildView) -> BuildView:
    """Return a build with the result of another one."""
    result = {"state", "pipeline", "version", "created", "published", "warnings", "error"}
    return view.model_copy(update=target.model_dump(include=result))


def _read(model: type[M], message: Any) -> M | None:
    return next(_valid(model, message), None) if message is not None else None


def _end(model: type[M], message: Any) -> M | None:
    """Return the end of a build; one that is unreadable is a failed one."""
    if message is None:
        return None
    return _read(model, message) or model(error="the end of the build is unreadable")


def _valid(model: type[M], message: Any) -> Iterator[M]:
    try:
        yield model.model_validate_json(message.data)
    except (pydantic.ValidationError, InvalidGitSourceError):
        return
