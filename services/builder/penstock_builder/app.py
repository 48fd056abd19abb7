"""Composition root of the builder."""

from __future__ import annotations

import time

import orjson

from penstock_adapters.git.mirrors import Mirrors
from penstock_adapters.images.engines import BuildKit, Docker
from penstock_adapters.images.environment_images import EnvironmentImages
from penstock_adapters.images.registry import Registry
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import WRONG_LAST, Bus, BusError
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.follower import Followers
from penstock_adapters.sandbox import Sandbox
from penstock_adapters.uv.virtual_environments import VirtualEnvironments
from penstock_builder import subscribers
from penstock_builder.environment_builds import EnvironmentBuilds
from penstock_builder.service import BuilderService
from penstock_builder.settings import BuilderSettings
from penstock_builder.version_builds import BuildParts, VersionBuilds
from penstock_contracts import subjects
from penstock_contracts.commands import Locate, Location, Version
from penstock_core.errors import UnavailableError
from penstock_servicekit.durable_worker import DurableWorker
from penstock_servicekit.secret_sources import open_secrets
from penstock_servicekit.service_context import ServiceContext


class NatsEdges:
    """The builder's surroundings on NATS."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def has_artifact(self, sha256: str) -> bool:
        """See the protocol."""
        command = Locate(sha256=sha256).model_dump_json().encode()
        location = Location.model_validate_json((await self._bus.request(subjects.ARTIFACTS_STAT, command)).data)
        if location.error is not None:
            raise UnavailableError(location.error)
        return location.size is not None

    async def announce(self, version: Version) -> None:
        """See the protocol. The broker refuses a message that does not follow the last one that was read."""
        subject = f"builds.{version.project}.{version.name}.registered"
        body = version.model_dump_json(exclude={"pipeline": {"nodes", "steps"}}).encode()
        while True:
            last = await self._bus.last(subjects.BUILDS, subject)
            if last is not None and _announced(last.data) >= version.version:
                return
            headers = {
                "Nats-Expected-Last-Subject-Sequence": str(last.seq if last else 0),
                "ce-specversion": "1.0",
                "ce-id": f"{version.project}.{version.name}.{version.version}",
                "ce-type": "penstock.version.registered.v1",
                "ce-source": "penstock/builder",
                "ce-subject": f"{version.project}.{version.name}",
                "content-type": "application/json",
            }
            try:
                await self._bus.publish(subject, body, headers)
                return
            except BusError as error:
                if error.code != WRONG_LAST:
                    raise


def _announced(data: bytes) -> int:
    """Return the version of an announcement; 0 if it is unreadable."""
    try:
        return int(orjson.loads(data)["version"])
    except (ValueError, TypeError, LookupError):
        return 0


class FreshBucket:
    """The bucket of versions, read from its leader."""

    def __init__(self, bus: Bus) -> None:
        bucket = Bucket(bus, subjects.VERSIONS_BUCKET)
        self.get = bucket.get_fresh
        self.put = bucket.put


class BuilderApp:
    """The builder: answers requests, and works on the builds of environments and of versions."""

    def __init__(self, context: ServiceContext, settings: BuilderSettings) -> None:
        self._bus = context.bus
        service = BuilderService(FreshBucket(context.bus), NatsEdges(context.bus), time.time)
        subscribers.register(context, service)
        folder = settings.home / "environments"
        self._installed = VirtualEnvironments(folder, settings.environments_size, settings.build_timeout)
        builds = EnvironmentBuilds(
            context.bus,
            Versions(context.bus),
            self._installed if settings.install_environments else None,
            _images(settings),
            settings.build_timeout,
            lambda delivery, error: context.park(delivery.subject, delivery.data, error, delivery.stream_seq),
            EventStream(context.bus),
        )
        version_builds = VersionBuilds(
            BuildParts(
                bus=context.bus,
                followers=Followers(context.bus),
                versions=Versions(context.bus),
                service=service,
                installed=lambda: VirtualEnvironments(folder, settings.environments_size, settings.build_timeout),
                mirrors=Mirrors(settings.home / "git", settings.git_cache_size),
                sandbox=Sandbox(required=settings.sandbox == "required"),
                secrets=open_secrets(context.bus, settings),
                events=EventStream(context.bus),
                home=settings.home,
                git=settings.git_limits(),
                timeout=settings.build_timeout,
                compile_timeout=settings.compile_timeout,
            ),
            lambda delivery, error: context.park(delivery.subject, delivery.data, error, delivery.stream_seq),
        )
        # A consumer of their own: they wait for builds of environments, which must find a free slot.
        self._version_worker = DurableWorker(
            context,
            subjects.BUILDS,
            subjects.VERSION_BUILDS_CONSUMER,
            version_builds.handle,
            prefetch=settings.version_builds,
            concurrency=settings.version_builds,
            retry_delay=5.0,
        )
        self._worker = DurableWorker(
            context,
            subjects.BUILDS,
            subjects.ENVIRONMENTS_CONSUMER,
            builds.handle,
            prefetch=settings.builds,
            concurrency=settings.builds,
            retry_delay=5.0,
        )

    async def start(self) -> None:
        """Start to take builds. FastStream has started the subscribers."""
        self._worker.start()
        self._version_worker.start()

    async def stop(self) -> None:
        """Stop. Builds that are not finished are delivered to another builder, or again later."""
        await self._version_worker.stop()
        await self._worker.stop()
        self._installed.release()

    def ready(self) -> bool:
        """Whether requests can come in."""
        return self._bus.client.is_connected and self._worker.ready() and self._version_worker.ready()


def _images(settings: BuilderSettings) -> EnvironmentImages | None:
    """Return what makes images; None if no repository for them is configured."""
    repository = settings.images_repository.strip("/")
    if not repository:
        return None
    insecure, address = settings.images_insecure, settings.images_address
    engine = (
        Docker(address)
        if settings.images_engine == "docker"
        else BuildKit(
            address,
            insecure=insecure,
            cache=f"{repository}:buildcache" if settings.images_cache else "",
            provenance=settings.images_provenance,
            sbom=settings.images_sbom,
        )
    )
    registry = Registry(repository.partition("/")[0] if insecure else "")
    platforms = [name.strip() for name in settings.images_platforms.split(",") if name.strip()]
    return EnvironmentImages(engine, registry, repository, settings.images_base, platforms, settings.build_timeout)


def build(context: ServiceContext, settings: BuilderSettings) -> BuilderApp:
    """Put the builder together."""
    return BuilderApp(context, settings)
