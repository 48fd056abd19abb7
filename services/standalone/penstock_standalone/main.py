"""Composition root of the platform on one machine: an embedded NATS server and all services in one process.

`--embedded` starts a platform that stops when it is idle: commands start one if none runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import Field

from penstock_adapters.nats.server import EmbeddedServer, NatsServerError
from penstock_core.errors import PenstockError
from penstock_core.version import VERSION
from penstock_servicekit import app, event_loop, logs, process_secrets
from penstock_servicekit.settings import ServiceSettings, SettingsError
from penstock_standalone.idle import wait_until_idle
from penstock_standalone.state import StateError, StateFolder

if TYPE_CHECKING:
    from penstock_gateway.app import Gateway


class StandaloneSettings(ServiceSettings):
    """Settings of the platform on one machine; each service has its own in addition."""

    port: int = Field(default=0, ge=0, le=65535, description="port of the HTTP API; 0 for a free one")
    pools: str = "*"
    pool: str = Field(default="*", description="pool whose steps run here; * for all")
    look_ahead: int = Field(
        default=1000, ge=0, le=10_000, description="steps that wait for a free slot by priority; others by their age"
    )
    idle: float = Field(
        default=600.0,
        ge=0,
        description="seconds without use until a platform stops that a command started; 0: with its last command",
    )
    fsync: bool = Field(default=True, description="false: faster; a power failure may lose the latest writes")


def main(arguments: list[str] | None = None) -> int:
    """Run the platform until it is asked to stop; returns the exit status."""
    parser = argparse.ArgumentParser(prog="penstock_standalone", description=__doc__)
    parser.add_argument("--home", type=Path, help="state folder (default: $PENSTOCK_HOME or .penstock)")
    parser.add_argument("--port", type=int, help="port of the HTTP API on 127.0.0.1 (default: a free one)")
    parser.add_argument("--embedded", action="store_true", help="stop when it is idle (PENSTOCK_IDLE)")
    options = parser.parse_args(arguments)
    if options.embedded:
        _close_inherited_files()
    changes = {name: value for name in ("home", "port") if (value := getattr(options, name)) is not None}
    process_secrets.protect()
    try:
        settings = StandaloneSettings(**changes)
    except SettingsError as error:
        return _refuse(error, app.WRONG_SETTINGS)
    logs.configure(settings.log_level, settings.log_format)
    state = StateFolder(settings.home)
    try:
        state.hold()
    except StateError as error:
        return _refuse(error, 3)
    try:
        return event_loop.run(_run(settings, state, embedded=options.embedded))
    except SettingsError as error:
        return _refuse(error, app.WRONG_SETTINGS)
    finally:
        state.release()


def _refuse(error: PenstockError, status: int) -> int:
    print(f"penstock: {error}", file=sys.stderr)  # noqa: T201 - the one line that a person reads
    return status


def _close_inherited_files() -> None:
    """Close what the command that started this platform has inherited: its caller may wait for the end of a pipe.

    Not by `os.closerange`, which may try each of a billion numbers.
    """
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208 - names, not paths
        if number > 2:
            with contextlib.suppress(OSError):
                os.close(number)


async def _run(settings: StandaloneSettings, state: StateFolder, *, embedded: bool) -> int:
    log = logs.get("standalone")
    os.environ["PENSTOCK_HOME"] = str(state.home)
    launch = json.loads(os.environ.pop("PENSTOCK_LAUNCH", "{}"))
    server = EmbeddedServer(
        state.home, fsync=settings.fsync, on_restart=lambda status: log.warning("nats-server ended", status=status)
    )
    tasks: list[asyncio.Task[None]] = []
    running: app.RunningServices | None = None
    wrong_settings: SettingsError | None = None
    failure: str | None = None
    try:
        if settings.nats_url is None:
            await server.start()
            url = server.url
            tasks.append(asyncio.create_task(server.supervise()))
            tasks.append(asyncio.create_task(server.heal(lambda what: log.error(what, home=str(state.home)))))
        else:
            url = settings.nats_url.get_secret_value()
        state.token()
        running = await app.compose(url, settings, _builders(settings, state, server))
        gateway = cast("Gateway", running.services["gateway"])
        state.write_note(
            {
                "pid": os.getpid(),
                "url": f"http://127.0.0.1:{gateway.port}",
                "nats_url": url,
                "nats_pid": server.pid,
                "version": VERSION,
                "started_at": time.time(),
                "idle": settings.idle if embedded else None,
                "launch": launch if embedded else None,
                "instance": secrets.token_hex(8),
            }
        )
        log.info("platform is up", url=f"http://127.0.0.1:{gateway.port}", home=str(state.home))
        tasks.append(asyncio.create_task(state.watch()))
        if embedded:
            tasks.append(asyncio.create_task(wait_until_idle(state, settings.idle, gateway)))
        failure = await app.wait_for_end(running.failed, tasks)
    except SettingsError as error:
        wrong_settings = error
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
    if wrong_settings:
        raise wrong_settings
    return 1 if failure else 0


def _builders(settings: StandaloneSettings, state: StateFolder, server: EmbeddedServer) -> dict[str, app.Builder]:
    """The services with their settings. Imported here, after the NATS server was started, to save time."""
    import penstock_artifacts.app
    import penstock_artifacts.settings
    import penstock_builder.app
    import penstock_builder.settings
    import penstock_cron.app
    import penstock_cron.settings
    import penstock_executor.app
    import penstock_executor.settings
    import penstock_gateway.access.nats_access
    import penstock_gateway.app
    import penstock_gateway.settings
    import penstock_scheduler.app
    import penstock_scheduler.settings
    import penstock_triggers.app
    import penstock_triggers.settings

    home = state.home
    scheduler = penstock_scheduler.settings.SchedulerSettings(home=home)
    # The owner of the platform has started it where these variables are.
    step_env = os.environ.get("PENSTOCK_STEP_ENV", "*")
    executor = penstock_executor.settings.ExecutorSettings(
        home=home, pool=settings.pool, look_ahead=settings.look_ahead, step_env=step_env
    )
    artifacts = penstock_artifacts.settings.ArtifactsSettings(home=home)
    builder = penstock_builder.settings.BuilderSettings(home=home)
    cron = penstock_cron.settings.CronSettings(home=home)
    triggers = penstock_triggers.settings.TriggersSettings(home=home)
    # The token is that of the state folder, whatever PENSTOCK_TOKEN says; its principal is the owner of the folder.
    gateway = penstock_gateway.settings.GatewaySettings(home=home, port=settings.port, token=None)
    # With servers of the user, PENSTOCK_NATS_ISSUER_SEED says how to answer them.
    login = {"user": server.callout.name, "password": server.callout.password}
    callout = (
        penstock_gateway.access.nats_access.CalloutKeys(server.issuer, login) if settings.nats_url is None else None
    )
    return {
        "artifacts": lambda context: penstock_artifacts.app.build(context, artifacts),
        "builder": lambda context: penstock_builder.app.build(context, builder),
        "scheduler": lambda context: penstock_scheduler.app.build(context, scheduler),
        "executor": lambda context: penstock_executor.app.build(context, executor),
        "cron": lambda context: penstock_cron.app.build(context, cron),
        "triggers": lambda context: penstock_triggers.app.build(context, triggers),
        "gateway": lambda context: penstock_gateway.app.build(context, gateway, callout),
    }
