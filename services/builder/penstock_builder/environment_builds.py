"""Builds environments: resolves a declaration to a lock, installs it on this machine, and makes its image.

In: `requested` facts of builds, which the builders share. Out: lines of the log, `finished`, once for each build, and
an event about it, which can start runs.

Promises: an environment with a lock is in the bucket of versions before its build is finished. A builder that is
killed leaves the request unacknowledged, and another one builds it again: equal declarations are resolved again only
while no build has finished, and one that is installed is found.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pydantic

from penstock_adapters.commands import Log
from penstock_adapters.images.build_errors import ImageBuildError
from penstock_adapters.images.environment_images import EnvironmentImages
from penstock_adapters.nats import build_log
from penstock_adapters.nats.bootstrap import EVENT_RETENTION
from penstock_adapters.nats.buckets.versions import Versions, VersionTooLargeError
from penstock_adapters.nats.build_log import BuildLines
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.consumer import Delivery
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.uv import resolver
from penstock_adapters.uv.command import EnvironmentBuildError
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_contracts import subjects
from penstock_contracts.commands import LockedEnvironment
from penstock_contracts.environments import EnvironmentFinished, EnvironmentRequested
from penstock_core import run_events
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.errors import UnavailableError

_TRIES = 3
"""Deliveries of a build whose index does not answer, or whose disk is full, until it has failed."""

_MOST_DELIVERIES = 10
"""Deliveries until a build has failed that kills its builders, or that they cannot handle."""

_NO_REPOSITORY = (
    "its Dockerfile is the whole environment, but the builder makes no images: set PENSTOCK_IMAGES_REPOSITORY of the "
    "builder, or declare requirements"
)

Park = Callable[[Delivery, str], Awaitable[None]]


class EnvironmentBuilds:
    """Handles requested builds.

    Args:
        bus: the connection.
        versions: where locks are stored.
        installed: the environments of this machine; None: they are resolved only.
        images: makes their images; None: no registry is configured.
        timeout: seconds until a build is given up.
        park: puts an unreadable request into the dead-letter stream.
        events: the stream of events.
    """

    def __init__(
        self,
        bus: Bus,
        versions: Versions,
        installed: VirtualEnvironments | None,
        images: EnvironmentImages | None,
        timeout: float,
        park: Park,
        events: EventStream,
    ) -> None:
        self._bus = bus
        self._versions = versions
        self._installed = installed
        self._images = images
        self._timeout = timeout
        self._park = park
        self._events = events

    async def handle(self, delivery: Delivery) -> None:
        """Build an environment.

        Raises:
            UnavailableError: something does not answer; the build is delivered again.
        """
        prefix = delivery.subject.removesuffix(".requested")
        try:
            request = EnvironmentRequested.model_validate_json(delivery.data)
        except pydantic.ValidationError as error:
            await self._park(delivery, str(error))
            await self._append(f"{prefix}.finished", EnvironmentFinished(error=f"the request is unreadable: {error}"))
            return
        if await self._bus.last(subjects.BUILDS, f"{prefix}.finished") is not None:
            await self._publish_end(prefix, request)  # the builder may have died before it did
            return
        if delivery.delivered > _MOST_DELIVERIES:
            why = (
                f"builders did not finish it in {_MOST_DELIVERIES} tries: they may have been killed for want of "
                "memory, see their logs"
            )
            await self._append(f"{prefix}.finished", EnvironmentFinished(error=why))
            await self._publish_end(prefix, request)
            return
        start = time.monotonic()
        async with BuildLines(self._bus, f"{prefix}.log") as log:
            try:
                work = self._build(request.declaration, log.add)
                environment = await build_log.until_finished(self._bus, prefix, work)
                finished = EnvironmentFinished(environment=environment)
            except (EnvironmentBuildError, ImageBuildError, VersionTooLargeError) as error:
                finished = EnvironmentFinished(error=str(error))
            except TimeoutError:
                finished = EnvironmentFinished(
                    error=f"it was not built in {self._timeout:.0f} s (PENSTOCK_BUILD_TIMEOUT)"
                )
            except UnavailableError as error:
                if delivery.delivered < _TRIES:
                    log.add(f"{error}; trying again")
                    raise
                finished = EnvironmentFinished(error=str(error))
        if finished.environment is not None or finished.error:  # otherwise it was cancelled
            await self._append(f"{prefix}.finished", finished.model_copy(update={"seconds": time.monotonic() - start}))
        await self._publish_end(prefix, request)
        if self._installed is not None:
            self._installed.release()  # builders run nothing in environments
            await self._installed.remove_unused()

    async def _build(self, declaration: EnvironmentDeclaration, log: Log) -> LockedEnvironment:
        options = declaration.image
        image_only = bool(options.image or options.dockerfile) and not declaration.installs
        async with asyncio.timeout(self._timeout):
            lock = await resolver.resolve(declaration, log, self._timeout)
            indexes = resolver.indexes(declaration)
            if self._installed is not None and not image_only:
                await self._installed.install(lock, indexes, log)
            image = options.image
            if self._images is not None:
                image = await self._images.make(lock, options, indexes, log)
            elif image_only and not image:
                raise ImageBuildError(_NO_REPOSITORY)
        await self._versions.keep_lock(lock)
        return LockedEnvironment(
            version=declaration.python,
            digest=lock.digest(),
            packages=lock.versions(),
            index=declaration.index,
            extra_indexes=list(declaration.extra_indexes),
            image=image,
            image_only=image_only,
        )

    async def _publish_end(self, prefix: str, request: EnvironmentRequested) -> None:
        """Publish the event about the end that counts. Publishing it again has no effect."""
        message = await self._bus.last(subjects.BUILDS, f"{prefix}.finished")
        if message is None:
            raise UnavailableError(f"the end of the build at {prefix} cannot be read yet")
        finished = EnvironmentFinished.model_validate_json(message.data)
        if finished.at < time.time() - EVENT_RETENTION:
            return
        _, project, declaration, build = prefix.split(".")
        made = finished.environment
        event = run_events.build_finished(
            project,
            declaration,
            int(build),
            request.declaration.name,
            lock=made.digest if made else "",
            image=made.image if made else "",
            error=finished.error or (f"cancelled by {finished.cancelled_by}" if finished.cancelled_by else ""),
            seconds=finished.seconds,
            at=finished.at,
        )
        await self._events.publish(event)

    async def _append(self, subject: str, finished: EnvironmentFinished) -> None:
        """Append the end of a build. The first one counts."""
        await build_log.append(self._bus, subject, finished.model_copy(update={"at": time.time()}))
