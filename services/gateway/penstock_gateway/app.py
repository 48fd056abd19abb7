"""Composition root of the gateway: its features, the application around them, and the HTTP server."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Protocol, TypeVar

import uvicorn
from fastapi import Depends, FastAPI

from penstock_adapters.cel import CelEvaluator
from penstock_adapters.nats.archived_log import ArchivedLog, Archives
from penstock_adapters.nats.audit_log import AuditLog
from penstock_adapters.nats.backfill_log import BackfillLog
from penstock_adapters.nats.buckets.event_types import EventTypes
from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.buckets.projects import Projects
from penstock_adapters.nats.buckets.revocations import NatsRevocations
from penstock_adapters.nats.buckets.tokens import NatsTokens
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.dead_letters import DeadLetters
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.follower import Followers
from penstock_adapters.nats.gathered_appends import GatheredAppends
from penstock_adapters.nats.known_pools import KnownPools
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.notification_log import NotificationLog
from penstock_adapters.nats.partition_log import PartitionLog
from penstock_adapters.otlp import OtlpExporter
from penstock_contracts import subjects
from penstock_core import access
from penstock_core.access import Principal
from penstock_core.errors import PenstockError
from penstock_core.version import VERSION
from penstock_gateway.access import audit_routes, guard, user_access, user_routes
from penstock_gateway.access import routes as access_routes
from penstock_gateway.access.audit_trail import AuditTrail
from penstock_gateway.access.authentication import Authenticator
from penstock_gateway.access.cached_tokens import CachedTokens
from penstock_gateway.access.nats_access import CalloutKeys, NatsAccess
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.api_description import routes as description_routes
from penstock_gateway.api_description.api_description import ApiDescription
from penstock_gateway.artifacts import routes as artifact_routes
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.builds import routes as build_routes
from penstock_gateway.compare import routes as compare_routes
from penstock_gateway.console import routes as console_routes
from penstock_gateway.console import session_routes
from penstock_gateway.console.files import ConsoleFiles
from penstock_gateway.dead_letters import routes as dead_letter_routes
from penstock_gateway.dead_letters.dead_letters import DeadLetterService
from penstock_gateway.deployments import event_routes as deployment_event_routes
from penstock_gateway.deployments import routes as deployment_routes
from penstock_gateway.endpoints import inference_routes
from penstock_gateway.endpoints import routes as endpoint_routes
from penstock_gateway.endpoints import token_routes as endpoint_token_routes
from penstock_gateway.endpoints.call_tracker import CallTracker
from penstock_gateway.endpoints.direct_calls import DirectCalls
from penstock_gateway.endpoints.warm_executors import WarmExecutors
from penstock_gateway.environments import routes as environment_routes
from penstock_gateway.events import routes as event_routes
from penstock_gateway.events import type_routes as event_type_routes
from penstock_gateway.events.nats_intake import NatsIntake
from penstock_gateway.features import Features
from penstock_gateway.file_owner import owner
from penstock_gateway.http import connections, problems
from penstock_gateway.http.parameters import refuse_unknown_parameters
from penstock_gateway.http.server import ListenError, Server, bind
from penstock_gateway.integrity import routes as integrity_routes
from penstock_gateway.integrity.auditor import Auditor
from penstock_gateway.integrity.run_repair import RunRepair
from penstock_gateway.limits import routes as limit_routes
from penstock_gateway.lineage import routes as lineage_routes
from penstock_gateway.lineage.emitter import LineageEmitter
from penstock_gateway.metrics import routes as metric_routes
from penstock_gateway.model_registration import routes as registration_routes
from penstock_gateway.named_secrets import DeploymentSecrets
from penstock_gateway.notifications import routes as notification_routes
from penstock_gateway.notifications import sender as notification_sender
from penstock_gateway.notifications.notifier import Notifier
from penstock_gateway.partitions import backfill_routes
from penstock_gateway.partitions import routes as partition_routes
from penstock_gateway.platform import routes as platform_routes
from penstock_gateway.platform.health import Health
from penstock_gateway.project_features import SharedFeatures, project_features
from penstock_gateway.projects import routes as project_routes
from penstock_gateway.projects.project_records import ProjectRecords
from penstock_gateway.read_model import feeds
from penstock_gateway.read_model.archived_rows import ArchivedRows
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector, ReadModelRebuild
from penstock_gateway.registry import routes as registry_routes
from penstock_gateway.registry.announcer import ModelAnnouncer
from penstock_gateway.retention import routes as retention_routes
from penstock_gateway.run_streams import routes as run_stream_routes
from penstock_gateway.runs import routes as run_routes
from penstock_gateway.runs.announcer import RunAnnouncer
from penstock_gateway.runs.large_runs import LargeRuns
from penstock_gateway.runs.run_models import RunModels
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_search import RunSearch
from penstock_gateway.runs.run_states import RunStates
from penstock_gateway.runs.run_values import RunValueReader
from penstock_gateway.runs.step_progress import StepProgress
from penstock_gateway.script_runs import routes as script_run_routes
from penstock_gateway.secrets import routes as secret_routes
from penstock_gateway.secrets.secrets_service import SecretsService
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.trace import routes as trace_routes
from penstock_gateway.tracked.importer import TrackedRunImporter
from penstock_gateway.versions import routes as version_routes
from penstock_gateway.waits import link_page_routes
from penstock_gateway.waits import routes as wait_routes
from penstock_gateway.waits.answers import Answers
from penstock_gateway.waits.link_pages import LinkPages
from penstock_gateway.waits.open_questions import OpenQuestions
from penstock_gateway.waits.signed_links import Signer
from penstock_gateway.webhooks import routes as webhook_routes
from penstock_gateway.webhooks.webhook_receiver import WebhookReceiver
from penstock_servicekit.owners import Owners
from penstock_servicekit.request_handlers import listen
from penstock_servicekit.secret_sources import open_secrets
from penstock_servicekit.service_context import ServiceContext

ROUTERS = tuple(
    module.router
    for module in (
        endpoint_routes,  # first: routes are tried in order, and these are called most
        inference_routes,
        description_routes,
        platform_routes,
        integrity_routes,
        access_routes,
        user_routes,
        secret_routes,
        audit_routes,
        artifact_routes,
        lineage_routes,
        version_routes,
        environment_routes,
        build_routes,
        compare_routes,
        metric_routes,
        run_stream_routes,  # before `/v1/runs/{run_id}`
        run_routes,
        script_run_routes,
        wait_routes,
        link_page_routes,
        event_routes,
        event_type_routes,
        deployment_routes,
        deployment_event_routes,
        notification_routes,
        partition_routes,
        backfill_routes,
        endpoint_token_routes,
        webhook_routes,
        dead_letter_routes,
        trace_routes,
        project_routes,
        limit_routes,
        registry_routes,
        registration_routes,
        retention_routes,
        console_routes,
        session_routes,
    )
)

T = TypeVar("T")


class MissingTokenError(PenstockError):
    """The gateway has no token that clients could be required to send."""


class Background(Protocol):
    """Works in the background while the gateway runs."""

    async def start(self) -> None:
        """Start."""
        ...

    async def close(self) -> None:
        """Stop."""
        ...


def create_app() -> FastAPI:
    """Return the application with its routes, without features: enough to be described."""
    app = FastAPI(
        title="Penstock",
        version=VERSION,
        description="Pipelines, their versions, runs, artifacts and models. Errors are RFC 9457 problem details.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for router in ROUTERS:
        # Pages are opened by people: mail services may add parameters to links, and the console reads its own.
        pages = (link_page_routes.router, console_routes.router)
        checks = [] if router in pages else [Depends(refuse_unknown_parameters)]
        app.include_router(router, dependencies=checks)
    problems.install(app)
    return app


class Gateway:
    """Serves the application, and runs the background work.

    Args:
        context: of the service.
        settings: of the gateway.
        app: the application, with its features in `app.state.features`.
        background: started in order once the server listens, and closed after it in reverse.
        closing: set when the gateway stops; ends open streams.
    """

    def __init__(
        self,
        context: ServiceContext,
        settings: GatewaySettings,
        app: FastAPI,
        background: list[Background],
        closing: asyncio.Event,
    ) -> None:
        self.port = 0
        self._context = context
        self._settings = settings
        self._app = app
        self._background = background
        self._closing = closing
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    def feature(self, kind: type[T]) -> T:
        """Return the feature of a class."""
        return self._app.state.features.of(kind, lambda: access.DEFAULT_PROJECT)

    async def start(self) -> None:
        """Listen; `port` is the port afterwards.

        Raises:
            ListenError: the port is in use or the address does not belong to this machine.
        """
        settings = self._settings
        listener = bind(settings.host, settings.port)
        self.port = int(listener.getsockname()[1])
        config = uvicorn.Config(
            self._app,
            http=connections.protocol(settings.max_connections or connections.default_limit()),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            # By default uvicorn believes what connections from this machine say about their address.
            forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", ""),
            timeout_graceful_shutdown=max(1, int(settings.stop_timeout / 2)),
        )
        self._server = Server(config)
        self._task = asyncio.create_task(self._server.serve([listener]))
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait([self._task, listening], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            listening.cancel()
            self._task.result()
            raise ListenError(f"the HTTP server on {settings.host}:{self.port} exited while starting")
        for worker in self._background:
            await worker.start()

    async def stop(self) -> None:
        """End open streams, finish the requests in progress, close."""
        self._closing.set()
        if self._server is not None and self._task is not None:
            self._server.shut_down()
            await self._task
        for worker in reversed(self._background):
            await worker.close()

    def requests(self) -> tuple[int, int]:
        """Return how many requests have arrived, and how many are in progress."""
        if self._server is None:
            return 0, 0
        state = self._server.server_state
        return state.total_requests, sum(getattr(one, "has_request", False) for one in state.connections)

    async def has_active_runs(self) -> bool:
        """Return whether a run has not finished."""
        return await self.feature(RunSearch).has_active_runs()

    def ready(self) -> bool:
        """Return whether requests can be served."""
        return self._task is not None and not self._task.done() and self._context.bus.client.is_connected


def _traces(context: ServiceContext, settings: GatewaySettings) -> OtlpExporter | None:
    """Return what exports traces; None if no collector is configured."""
    return OtlpExporter(settings.otlp_endpoint, context.log.warning) if settings.otlp_endpoint else None


def build(context: ServiceContext, settings: GatewaySettings, callout: CalloutKeys | None = None) -> Gateway:
    """Wire the features of the gateway.

    Args:
        context: of the service.
        settings: of the gateway.
        callout: how it answers the NATS servers; by default as the settings say.

    Raises:
        MissingTokenError: neither the settings nor the state folder have a token.
        OpenLineageUnavailableError: an OpenLineage service is configured and its library is not installed.
        NotificationSettingsError: a setting of notifications is invalid.
        InvalidSeedError: the seed of the issuer is invalid.
    """
    bus, source = context.bus, f"penstock/gateway/{context.name}"
    token, principal = _token(settings)
    tokens = CachedTokens(NatsTokens(bus), context)
    nats_access = NatsAccess(context, callout or _callout_keys(settings), tokens)
    trail = AuditTrail(AuditLog(bus), context)
    users = user_access.configure(settings, NatsRevocations(bus))
    projects = ProjectRecords(Projects(bus), context)
    closing = asyncio.Event()
    followers = Followers(bus)

    secrets = open_secrets(bus, settings)
    artifacts = Artifacts(bus, settings.max_blob, via_gateway=settings.artifacts_via_gateway)
    pools = KnownPools(bus)
    versions = Versions(bus)
    models = ModelLog(bus, source)
    log = ArchivedLog(bus, source, Archives(artifacts.open))
    events = EventStream(bus)

    read_model = ReadModel(settings.database())
    archived_rows = ArchivedRows(log.archives, read_model, context.log)
    checked = asyncio.Event()
    states = RunStates(log, versions, settings.gateway_runs)
    large_runs = LargeRuns(context, states)
    projector = Projector(context, followers, read_model, feeds.FACTS, checked, archived_rows, large_runs.observe)
    series = Projector(context, followers, read_model, feeds.SERIES, checked)
    repair = RunRepair(bus, read_model, versions, source)
    auditor = Auditor(context, followers, read_model, repair, projector.reread, checked)

    scripts = TrackedRunImporter(settings.home, access.DEFAULT_PROJECT, bus, log, context.log)
    runs_of_all = RunReader(log, states, scripts)
    questions = OpenQuestions(followers, log, context.log)
    signer = Signer(settings.links_secret.get_secret_value() or token)
    run_announcer = RunAnnouncer(context, log, versions, events, _traces(context, settings))
    announcer = ModelAnnouncer(context, log, events)

    deployment_secrets = DeploymentSecrets(secrets)
    sender = notification_sender.from_settings(settings, deployment_secrets)
    named_tokens = Tokens(tokens)
    event_types = EventTypes(bus, context.log.warning)
    deployments = DeploymentLog(bus, source)
    letters = DeadLetters(bus)
    notification_log = NotificationLog(bus, source)
    notifier = Notifier(context, deployments, notification_log, letters, sender, settings.notify_patience)
    health = Health(bus, artifacts, auditor, pools, settings.max_blob)
    listen(context, subjects.PROBLEMS, health.report)
    runs = RunSearch(read_model, projector, scripts, RunValueReader(log))
    tracker = CallTracker(bus, followers, log, runs, context.log)
    executors = WarmExecutors(bus, context.log)
    shared = SharedFeatures(
        bus=bus,
        source=source,
        settings=settings,
        closing=closing,
        started=time.monotonic(),
        followers=followers,
        log=log,
        appends=GatheredAppends(log),
        states=states,
        progress=StepProgress(bus),
        scripts=scripts,
        versions=versions,
        models=models,
        artifacts=artifacts,
        projects=projects,
        pools=pools,
        limit_sizes=LimitSizes(bus),
        events=events,
        event_types=event_types,
        decisions=DecisionLog(bus, source),
        deployments=deployments,
        partitions=PartitionLog(bus, source),
        backfills=BackfillLog(bus, source),
        evaluator=CelEvaluator(),
        notifications=notification_log,
        sender=sender,
        secrets=deployment_secrets,
        read_model=read_model,
        projector=projector,
        series=series,
        tracker=tracker,
        executors=executors,
        tokens=named_tokens,
        owners=Owners(tokens, users.revocations, Projects(bus)),
    )
    features = (
        settings,
        ApiDescription(),
        ConsoleFiles(),
        pools,
        named_tokens,
        projects,
        SecretsService(secrets),
        users,
        nats_access,
        trail,
        health,
        auditor,
        events,
        DeadLetterService(bus, letters, events, notification_log),
        ReadModelRebuild(projector, series),
        states,
        shared.progress,
        RunModels(models),
        runs,
        LinkPages(runs_of_all, Answers(log, runs_of_all), signer),
        questions,
        WebhookReceiver(
            deployments,
            events,
            deployment_secrets,
            context.log,
            projects.admit_event,
        ),
        announcer,
        run_announcer,
    )
    background: list[Background] = [
        projects,
        nats_access,
        NatsIntake(context, events, projects.admit_event),
        read_model,
        auditor,
        questions,
        large_runs,
        projector,
        series,
        announcer,
        run_announcer,
        notifier,
        tracker,
        tokens,
        trail,
        executors,
        event_types,
    ]
    if settings.openlineage_url:
        key = settings.openlineage_key.get_secret_value() if settings.openlineage_key else None
        background.append(LineageEmitter(context, states, settings.openlineage_url, key))
    app = create_app()
    app.state.projects = projects
    app.state.features = Features(features, lambda project: project_features(shared, project))
    names = guard.allowed_names(settings.host, settings.host_names())
    authenticator = Authenticator(token, principal, tokens, users.oidc)
    app.add_middleware(DirectCalls)
    app.add_middleware(guard.Guard, authenticator=authenticator, names=names, log=context.log, trail=trail)
    return Gateway(context, settings, app, background, closing)


def _callout_keys(settings: GatewaySettings) -> CalloutKeys | None:
    if settings.nats_issuer_seed is None:
        return None
    from penstock_adapters.nats.auth import keys  # its library takes long to import

    issuer = settings.nats_issuer_seed.get_secret_value().strip()
    return CalloutKeys(issuer, {"nkeys_seed_str": keys.callout_user(issuer)})


def _token(settings: GatewaySettings) -> tuple[str, Principal]:
    """Return the gateway's own token and who acts with it: for the file of a state folder, the user who owns it."""
    file = settings.home / "token"
    principal = Principal(access.PrincipalKind.TOKEN, access.DEFAULT_TOKEN)
    if settings.token is not None:
        token = settings.token.get_secret_value().strip()
    else:
        try:
            token = file.read_text().strip()
            principal = owner(file)
        except OSError:
            token = ""
    if not token:
        raise MissingTokenError(f"set PENSTOCK_TOKEN to the token that clients must send, or write it to {file}")
    return token, principal
