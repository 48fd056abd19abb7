"""Composition root of the platform on one machine: an embedded NATS server and all services in one process.

`--ephemeral` starts a platform that stops when its last client has exited: `penstock run` starts one if none runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
import threading
import time
from pathlib import Path

from pydantic import Field

from penstock_adapters.nats.server import EmbeddedServer, NatsServerError
from penstock_core.errors import PenstockError
from penstock_core.version import VERSION
from penstock_servicekit import app, event_loop, logs, process_secrets
from penstock_servicekit.settings import ServiceSettings
from penstock_standalone.state import StateError, StateFolder


class StandaloneSettings(ServiceSettings):
    """Settings of the platform on one machine; each service has its own in addition."""

    port: int = Field(default=0, ge=0, le=65535, description="port of the HTTP API; 0 for a free one")
    pools: str = "*"
    pool: str = Field(default="*", description="pool whose steps run here; * for all")
    look_ahead: int = Field(
        default=1000, ge=0, le=10_000, description="steps that wait for a free slot by priority; others by their age"
    )
    fsync: bool = Field(default=True, description="false: faster; a power failure may lose the latest writes")


def main(arguments: list[str] | None = None) -> int:
    """Run the platform until it is asked to stop; returns the exit status."""
    parser = argparse.ArgumentParser(prog="penstock_standalone", description=__doc__)
    parser.add_argument("--home", type=Path, help="state folder (default: $PENSTOCK_HOME or .penstock)")
    parser.add_argument("--port", type=int, help="port of the HTTP API on 127.0.0.1 (default: a free one)")
    parser.add_argument("--ephemeral", action="store_true", help="stop when the last client has exited")
    options = parser.parse_args(arguments)
    changes = {name: value for name in ("home", "port") if (value := getattr(options, name)) is not None}
    process_secrets.protect()
    settings = StandaloneSettings(**changes)
    logs.configure(settings.log_level, settings.log_format)
    state = StateFolder(settings.home)
    try:
        state.hold()
    except StateError as error:
        print(f"penstock: {error}", file=sys.stderr)  # noqa: T201 - the one line that a person reads
        return 3
    try:
        return event_loop.run(_run(settings, state, ephemeral=options.ephemeral))
    finally:
        state.release()


async def _run(settings: StandaloneSettings, state: StateFolder, *, ephemeral: bool) -> int:
    log = logs.get("standalone")
    os.environ["PENSTOCK_HOME"] = str(state.home)
    server = EmbeddedServer(
        state.home, fsync=settings.fsync, on_restart=lambda status: log.warning("nats-server ended", status=status)
    )
    tasks: list[asyncio.Task[None]] = []
    running: app.RunningServices | None = None
    try:
        if settings.nats_url is None:
            await server.start()
            url = server.url
            tasks.append(asyncio.create_task(server.supervise()))
            tasks.append(asyncio.create_task(server.heal(lambda what: log.error(what, home=str(state.home)))))
        else:
            url = settings.nats_url.get_secret_value()
        state.token()
        running = await app.compose(url, settings, _builders(settings, state))
        port = getattr(running.services["gateway"], "port", 0)
        state.write_note(
            {
                "pid": os.getpid(),
                "url": f"http://127.0.0.1:{port}",
                "nats_url": url,
                "nats_pid": server.pid,
                "version": VERSION,
                "started_at": time.time(),
                "ephemeral": ephemeral,
                "instance": secrets.token_hex(8),
            }
        )
        log.info("platform is up", url=f"http://127.0.0.1:{port}", home=str(state.home))
        tasks.append(asyncio.create_task(state.watch()))
        others = [_no_clients(state)] if ephemeral else []
        failure = await app.wait_for_end(running.failed, [*others, *tasks])
    except (PenstockError, OSError) as error:
        failure = str(error)
    if failure:
        log.error("platform stops", error=failure)
    if running is not None:
        await app.stop(running, settings.stop_timeout)
    await server.stop()
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, NatsServerError, StateError):
            await task
    log.info("platform stopped")
    return 1 if failure else 0


def _builders(settings: StandaloneSettings, state: StateFolder) -> dict[str, app.Builder]:
    """The services with their settings. Imported here, after the NATS server was started, to save time."""
    import penstock_artifacts.app
    import penstock_artifacts.settings
    import penstock_builder.app
    import penstock_builder.settings
    import penstock_cron.app
    import penstock_cron.settings
    import penstock_executor.app
    import penstock_executor.settings
    import penstock_gateway.app
    import penstock_gateway.settings
    import penstock_scheduler.app
    import penstock_scheduler.settings
    import penstock_triggers.app
    import penstock_triggers.settings

    home = state.home
    scheduler = penstock_scheduler.settings.SchedulerSettings(home=home)
    executor = penstock_executor.settings.ExecutorSettings(
        home=home, pool=settings.pool, look_ahead=settings.look_ahead
    )
    artifacts = penstock_artifacts.settings.ArtifactsSettings(home=home)
    builder = penstock_builder.settings.BuilderSettings(home=home)
    cron = penstock_cron.settings.CronSettings(home=home)
    triggers = penstock_triggers.settings.TriggersSettings(home=home)
    # The token is that of the state folder, whatever PENSTOCK_TOKEN says; its principal is the owner of the folder.
    gateway = penstock_gateway.settings.GatewaySettings(home=home, port=settings.port, token=None)
    return {
        "artifacts": lambda context: penstock_artifacts.app.build(context, artifacts),
        "builder": lambda context: penstock_builder.app.build(context, builder),
        "scheduler": lambda context: penstock_scheduler.app.build(context, scheduler),
        "executor": lambda context: penstock_executor.app.build(context, executor),
        "cron": lambda context: penstock_cron.app.build(context, cron),
        "triggers": lambda context: penstock_triggers.app.build(context, triggers),
        "gateway": lambda context: penstock_gateway.app.build(context, gateway),
    }


def _no_clients(state: StateFolder) -> asyncio.Future[object]:
    """Complete when the last client has exited. The waiting thread holds the lock until this process ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[object] = loop.create_future()

    def wait() -> None:
        lock = state.wait_for_no_clients()
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set_result, lock)

    threading.Thread(target=wait, name="clients", daemon=True).start()
    return done
