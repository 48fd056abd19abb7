"""The projects of the platform, as every request checks them: in memory, followed by a watch."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable

from penstock_adapters.nats.buckets.projects import Projects
from penstock_contracts.projects import ProjectBody, ProjectList, ProjectView
from penstock_core import access
from penstock_core.access import Permission
from penstock_core.errors import PenstockError
from penstock_core.projects import ProjectRecord, Quotas
from penstock_gateway.errors import ConflictError, ForbiddenError, NotFoundError, TooManyRequestsError
from penstock_gateway.rate_limit import TokenBucket
from penstock_servicekit.service_context import ServiceContext

_READS = frozenset(one for one in Permission if one.value.endswith(".read"))
_KEEPS = _READS | access.PLATFORM_PERMISSIONS | {Permission.RUNS_CANCEL, Permission.RUNS_DELETE}
"""What is possible in an archived project."""

_RETRY = 1.0


class ProjectRecords:
    """Reads, checks and changes the records of projects."""

    def __init__(self, projects: Projects, context: ServiceContext) -> None:
        self._projects = projects
        self._context = context
        self._changed = asyncio.Event()
        self._events: dict[str, TokenBucket] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the records, and follow their changes."""
        await self._projects.watch(self._changed.set)
        self._task = self._context.task(self._follow())

    async def close(self) -> None:
        """Stop to follow."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._projects.close()

    @property
    def several(self) -> bool:
        """Whether there are other projects than the default one."""
        return len(self._projects.now) > 1

    def quotas(self, project: str) -> Quotas:
        """Return the quotas of a project that exists."""
        return self._projects.now[project].quotas

    def admit_events(self, project: str, count: int) -> None:
        """Accept events of a project.

        Raises:
            NotFoundError: it does not exist.
            ForbiddenError: it is archived.
            TooManyRequestsError: its quota of events per second is exceeded.
        """
        self.check(project, Permission.EVENTS_SEND)
        rate = self.quotas(project).events_per_second
        if rate is None:
            return
        now, bucket = time.monotonic(), self._events.get(project)
        if bucket is None or bucket.rate != rate:
            bucket = self._events[project] = TokenBucket.full(rate, now)
        for _ in range(count):
            seconds = bucket.take(now)
            if seconds:
                raise TooManyRequestsError(
                    f"Project {project!r} accepts {rate:g} events per second, which is its quota", retry_after=seconds
                )

    def admit_event(self, project: str) -> None:
        """Accept an event of a project. Raises as `admit_events`."""
        self.admit_events(project, 1)

    def check(self, project: str, permission: Permission) -> None:
        """Check that a project exists, and is not archived if something would change.

        Raises:
            NotFoundError: it does not exist.
            ForbiddenError: it is archived.
        """
        if permission in access.PLATFORM_PERMISSIONS:
            return
        record = self._projects.now.get(project)
        if record is None:
            raise NotFoundError(
                f"Project {project!r} does not exist", f"create it with `penstock projects create {project}`"
            )
        if record.archived_at is not None and permission not in _KEEPS:
            raise ForbiddenError(
                f"Project {project!r} is archived", f"unarchive it with `penstock projects unarchive {project}`"
            )

    async def list(self, sees: Callable[[str], bool]) -> ProjectList:
        """Return the projects for which `sees` is true, by name."""
        found = await self._projects.read()
        return ProjectList(projects=[_view(found[name]) for name in sorted(found) if sees(name)])

    async def get(self, name: str) -> ProjectView:
        """Return a project.

        Raises:
            NotFoundError: it does not exist.
        """
        found = (await self._projects.read()).get(name)
        if found is None:
            raise NotFoundError(f"Project {name[:100]!r} does not exist", "list projects with `penstock projects list`")
        return _view(found)

    async def put(self, name: str, body: ProjectBody, by: str) -> tuple[ProjectView, bool]:
        """Create a project, or replace its quotas; return it, and whether it is new."""
        quotas, created = Quotas(**body.quotas.model_dump()), False

        def change(known: ProjectRecord | None) -> ProjectRecord:
            nonlocal created
            created = known is None
            known = known or ProjectRecord(name=name, created_at=time.time(), created_by=by)
            return dataclasses.replace(known, quotas=quotas)

        return _view(await self._projects.change(name, change)), created

    async def archive(self, name: str, *, archived: bool) -> ProjectView:
        """Archive or unarchive a project.

        Raises:
            NotFoundError: it does not exist.
            ConflictError: it is the default project.
        """
        if archived and name == access.DEFAULT_PROJECT:
            raise ConflictError(f"Project {name!r} cannot be archived", "requests without a project need it")
        await self.get(name)

        def change(known: ProjectRecord | None) -> ProjectRecord:
            known = known or ProjectRecord(name=name)
            at = (known.archived_at or time.time()) if archived else None
            return dataclasses.replace(known, archived_at=at)

        return _view(await self._projects.change(name, change))

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._projects.read()
            except PenstockError as error:
                self._context.log.warning("the projects cannot be read; trying again", error=str(error))
                await asyncio.sleep(_RETRY)
                self._changed.set()


def _view(record: ProjectRecord) -> ProjectView:
    return ProjectView.model_validate(dataclasses.asdict(record))
