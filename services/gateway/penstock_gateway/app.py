"""Composition root of the gateway: the service, the application around it, and the server in this process's loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI
from structlog.typing import FilteringBoundLogger

from penstock_adapters.nats.buckets.tokens import NatsTokens
from penstock_core import access
from penstock_core.access import Principal, TokenStore
from penstock_core.errors import PenstockError
from penstock_core.version import VERSION
from penstock_gateway import subscribers
from penstock_gateway.access import authentication
from penstock_gateway.access import routes as access_routes
from penstock_gateway.access.authentication import Authenticator
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.artifacts import routes as artifact_routes
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.compare import routes as compare_routes
from penstock_gateway.http import guard, problems
from penstock_gateway.limits import routes as limit_routes
from penstock_gateway.lineage.emitter import LineageEmitter
from penstock_gateway.metrics import routes as metric_routes
from penstock_gateway.platform import routes as platform_routes
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.registry import routes as registry_routes
from penstock_gateway.retention import routes as retention_routes
from penstock_gateway.run_streams import routes as run_stream_routes
from penstock_gateway.runs import routes as run_routes
from penstock_gateway.schedules import routes as schedule_routes
from penstock_gateway.service import GatewayService
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.steps import routes as step_routes
from penstock_gateway.versions import routes as version_routes
from penstock_gateway.waits import link_routes
from penstock_gateway.waits import routes as wait_routes
from penstock_gateway.waits.signed_links import Signer
from penstock_servicekit.service_context import ServiceContext

ROUTERS = tuple(
    module.router
    for module in (
        platform_routes,
        access_routes,
        artifact_routes,
        version_routes,
        compare_routes,
        metric_routes,
        run_routes,
        step_routes,
        wait_routes,
        link_routes,
        run_stream_routes,
        schedule_routes,
        limit_routes,
        registry_routes,
        retention_routes,
    )
)


class ListenError(PenstockError):
    """The gateway's address cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class AppDependencies:
    """What the application needs."""

    service: GatewayService
    settings: GatewaySettings
    token: str
    principal: Principal
    tokens: TokenStore
    log: FilteringBoundLogger
    lineage: LineageEmitter | None = None


def create_app(deps: AppDependencies) -> FastAPI:
    """The ASGI application."""
    app = routed_app()
    problems.install(app)
    names = guard.allowed_names(deps.settings.host, deps.settings.host_names())
    authenticator = Authenticator(deps.token, deps.principal, deps.tokens)
    app.add_middleware(guard.Guard, authenticator=authenticator, names=names, log=deps.log)
    app.state.service = deps.service
    app.state.artifacts = deps.service.artifacts
    app.state.settings = deps.settings
    app.state.signer = Signer(deps.settings.links_secret.get_secret_value() or deps.token)
    app.state.tokens = Tokens(deps.tokens)
    app.state.started_at = time.time()
    return app


def routed_app() -> FastAPI:
    """The application with its routes only: enough to be described."""
    app = FastAPI(
        title="Penstock",
        version=VERSION,
        description="Pipelines, their runs, and what came of them. Errors are RFC 9457 problem details.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for router in ROUTERS:
        app.include_router(router)
    return app


class Gateway:
    """The HTTP server as a service: `start` returns when it listens, `port` is the one that it listens on."""

    def __init__(self, deps: AppDependencies) -> None:
        self.port = 0
        self._deps = deps
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            CannotListen: the port is taken or the address is not this machine's.
        """
        settings = self._deps.settings
        listener = _bind(settings.host, settings.port)
        self.port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            create_app(self._deps),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, int(settings.stop_timeout / 2)),
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([listener]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait([self._task, listening], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            listening.cancel()
            self._task.result()
            raise ListenError(f"the HTTP server on {settings.host}:{self.port} ended at once")
        self._deps.service.projector.start()
        self._deps.service.series_projector.start()
        self._deps.service.model_events.start()
        if self._deps.lineage is not None:
            await self._deps.lineage.start()

    async def stop(self) -> None:
        """End streams, finish the requests that are under way, close."""
        self._deps.service.closing.set()
        if self._server is not None and self._task is not None:
            self._server.leave()
            await self._task
        if self._deps.lineage is not None:
            await self._deps.lineage.close()
        await self._deps.service.close()

    def ready(self) -> bool:
        """Whether requests can be served."""
        return self._task is not None and not self._task.done() and self._deps.service.bus.client.is_connected


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which are the process's, and without waking up ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Begin to stop."""
        self.should_exit = True
        self._leaving.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As before, and tell."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Tick once a second (the date header), and leave at once when told to."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._leaving.wait()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        raise ListenError(
            f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error}): "
            "another program may use the port; choose one with --port or PENSTOCK_PORT (0 takes a free one)"
        ) from error
    return listener


class MissingTokenError(PenstockError):
    """There is no token that clients could be asked for."""


def build(context: ServiceContext, settings: GatewaySettings) -> Gateway:
    """Put the gateway together.

    Raises:
        NoToken: neither the settings nor the state folder hold a token.
        NoOpenLineage: an OpenLineage service is named, and its library is not installed.
    """
    artifacts = Artifacts(context.bus, settings.max_blob)
    service = GatewayService(context, artifacts, ReadModel(settings.database()), settings.gateway_runs, settings.home)
    subscribers.register(context, service)
    token, principal = _token(settings)
    lineage = _lineage(context, settings, service)
    tokens = NatsTokens(context.bus)
    return Gateway(AppDependencies(service, settings, token, principal, tokens, context.log, lineage))


def _lineage(context: ServiceContext, settings: GatewaySettings, service: GatewayService) -> LineageEmitter | None:
    if not settings.openlineage_url:
        return None
    key = settings.openlineage_key.get_secret_value() if settings.openlineage_key else None
    return LineageEmitter(context, service.states, settings.openlineage_url, key)


def _token(settings: GatewaySettings) -> tuple[str, Principal]:
    """Return the gateway's own token and who acts with it: for the file of a state folder, the user who owns it."""
    file = settings.home / "token"
    principal = Principal(access.PrincipalKind.TOKEN, access.DEFAULT_TOKEN)
    if settings.token is not None:
        token = settings.token.get_secret_value().strip()
    else:
        try:
            token = file.read_text().strip()
            principal = authentication.owner(file)
        except OSError:
            token = ""
    if not token:
        raise MissingTokenError(f"set PENSTOCK_TOKEN to the token that clients must send, or write it to {file}")
    return token, principal
