"""The life of a process that holds one service or several: connect, declare, build, start, serve, stop.

Promise: the process ends with status 0 after a graceful stop (SIGINT, SIGTERM), and with a clear message and status 1
when the connection closes for good or a service fails, so that its supervisor restarts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from faststream import FastStream

from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.bus import Bus
from penstock_core.errors import PenstockError, UnavailableError
from penstock_servicekit import event_loop, logs, metrics, process_secrets
from penstock_servicekit.health import HealthServer
from penstock_servicekit.nats_connection import connect, servers
from penstock_servicekit.service_context import Service, ServiceContext, StatusReporter, cancel, replica_name
from penstock_servicekit.settings import ServiceSettings, SettingsError
from penstock_servicekit.stream_monitor import StreamMonitor

Builder = Callable[[ServiceContext], Service]
Settings = TypeVar("Settings", bound=ServiceSettings)

WRONG_SETTINGS = 2
"""Exit status of a process whose settings are wrong: starting it again does not help."""


@dataclass(slots=True)
class RunningServices:
    """The services that run in this process, by name."""

    app: FastStream
    bus: Bus
    services: dict[str, Service]
    failed: asyncio.Future[str]
    monitor: StreamMonitor
    watch: asyncio.Task[None] | None = None

    def ready(self) -> dict[str, bool]:
        """Which services are ready."""
        nats = {"nats": self.bus.client.is_connected, "streams": self.monitor.working}
        return nats | {name: part.ready() for name, part in self.services.items()}

    def about(self) -> dict[str, dict[str, Any]]:
        """Status details of the services that report them."""
        return {name: part.about() for name, part in self.services.items() if isinstance(part, StatusReporter)}


async def compose(url: str, settings: ServiceSettings, builders: dict[str, Builder]) -> RunningServices:
    """Connect, declare streams, build the services and start them; what was started is stopped if one cannot be.

    The files with credentials and certificates belong to the servers of `PENSTOCK_NATS_URL`, not to the embedded one.
    """
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    suffix = secrets.token_hex(4)
    name = next(iter(builders)) if len(builders) == 1 else "standalone"
    where = servers(url, settings if settings.nats_url is not None else None)
    broker, bus = await connect(where, name, failed, settings.reconnect_patience)
    monitor = StreamMonitor(bus, settings.replicas, name, logs.get(name))
    running = RunningServices(FastStream(broker, logger=None), bus, {}, failed, monitor)

    def fail(why: str) -> None:
        if not failed.done():
            failed.set_result(why)

    try:
        await _declare(bus, settings)
        services = {
            part: build(ServiceContext(part, bus, broker, logs.get(part), replica_name(part, suffix), fail, where))
            for part, build in builders.items()
        }
        await running.app.start()
        for part, service in services.items():
            await service.start()
            running.services[part] = service
        # A reply to this request shows that the server has processed all subscriptions sent before it. `flush` does
        # not, because nats-py's PING overtakes what is still in its buffer.
        await bus.api("INFO")
        running.watch = asyncio.create_task(monitor.run())
    except BaseException:
        await stop(running, settings.stop_timeout)
        raise
    return running


async def _declare(bus: Bus, settings: ServiceSettings) -> None:
    for attempt in range(20):
        try:
            await bootstrap(bus, pools=settings.pool_names(), replicas=settings.replicas, ack_wait=settings.ack_wait)
            return
        except UnavailableError:
            if attempt == 19:
                raise
            await asyncio.sleep(0.25)


async def stop(running: RunningServices, timeout: float) -> None:
    """Stop the services, last started first, then the connection."""
    if running.watch is not None:
        await cancel([running.watch])
    for name, service in reversed(running.services.items()):
        try:
            await asyncio.wait_for(service.stop(), timeout)
        except TimeoutError:
            logs.get(name).warning("service did not stop in time", seconds=timeout)
        except Exception:
            logs.get(name).exception("service stopped with an error")  # the others still hand back their messages
    if not running.failed.done():
        running.failed.cancel()
    try:
        await asyncio.wait_for(running.app.stop(), 5)
    except Exception:
        # Without a server it cannot drain, and would try to reconnect forever.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(running.bus.client.close(), 5)


def _tune_garbage_collection() -> None:
    """Collect cyclic garbage less often than after each 700 objects: messages leave none behind."""
    gc.freeze()  # objects that exist now stay
    gc.set_threshold(20_000, 20, 50)


async def wait_for_end(failed: asyncio.Future[str], others: Sequence[asyncio.Future[Any]] = ()) -> str | None:
    """Wait for SIGINT or SIGTERM (returns None) or for a failure (returns what failed)."""
    _tune_garbage_collection()
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: asked.done() or asked.set_result(None))
    done, _ = await asyncio.wait([asked, failed, *others], return_when=asyncio.FIRST_COMPLETED)
    if failed in done:
        return failed.result()
    for other in done:
        if other is not asked and not other.cancelled() and (error := other.exception()) is not None:
            return str(error)
    return None


async def _compose_with_retry(settings: ServiceSettings, builders: dict[str, Builder]) -> RunningServices:
    """Wait for NATS: services and their server may be started in any order."""
    url = settings.nats_url.get_secret_value() if settings.nats_url else ""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.start_patience
    while True:
        try:
            return await compose(url, settings, builders)
        except UnavailableError as error:
            if loop.time() > deadline:
                raise
            logs.get(next(iter(builders))).warning("waiting for NATS", error=str(error))
            await asyncio.sleep(0.5)


def run_service(name: str, settings_class: type[Settings], build: Callable[[ServiceContext, Settings], Service]) -> int:
    """Run one service with the settings of the environment; returns the process's exit status."""
    process_secrets.protect()
    try:
        settings = settings_class()
    except SettingsError as error:
        logs.configure("info", "auto")
        logs.get(name).error("wrong settings", error=str(error))
        return WRONG_SETTINGS
    return event_loop.run(serve(name, settings, lambda context: build(context, settings)))


async def serve(name: str, settings: ServiceSettings, build: Builder) -> int:
    """Run one service until SIGINT or SIGTERM; returns the process's exit status."""
    logs.configure(settings.log_level, settings.log_format)
    log = logs.get(name)
    if settings.nats_url is None:
        log.error("PENSTOCK_NATS_URL is not set: a single service needs the URL of a NATS server")
        return WRONG_SETTINGS
    try:
        running = await _compose_with_retry(settings, {name: build})
    except PenstockError as error:
        log.error("cannot start", error=str(error))
        return 1
    health: HealthServer | None = None
    if settings.health_port is not None:
        health = HealthServer(
            settings.health_host,
            settings.health_port,
            running.ready,
            running.about,
            lambda: running.monitor.problems,
            lambda: metrics.exposition(name, running),
        )
        port = await health.start()
        log.info("health", port=port)
    log.info("started", replica=name)
    failure = await wait_for_end(running.failed)
    if failure:
        log.error("stopping", error=failure)
    if health:
        await health.stop()
    await stop(running, settings.stop_timeout)
    log.info("stopped")
    return 1 if failure else 0
