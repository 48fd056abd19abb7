"""The features of one project, on top of what all projects share.

A feature of a project has no access to another one: it reads runs, versions, models, events and deployments of its own
project only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from penstock_adapters.cel import CelEvaluator
from penstock_adapters.nats.archived_log import ArchivedLog
from penstock_adapters.nats.backfill_log import BackfillLog
from penstock_adapters.nats.buckets.event_types import EventTypes
from penstock_adapters.nats.buckets.limits import LimitSizes
from penstock_adapters.nats.buckets.versions import Versions
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.decision_log import DecisionLog
from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.follower import Followers
from penstock_adapters.nats.gathered_appends import GatheredAppends
from penstock_adapters.nats.known_pools import KnownPools
from penstock_adapters.nats.model_log import ModelLog
from penstock_adapters.nats.notification_log import NotificationLog
from penstock_adapters.nats.partition_log import PartitionLog
from penstock_adapters.nats.trigger_timers import Timers
from penstock_core.frozen import frozen
from penstock_gateway.access.tokens import Tokens
from penstock_gateway.artifact_reach import ArtifactReach
from penstock_gateway.artifacts.artifact_transfer import Artifacts
from penstock_gateway.builds.builds import Builds
from penstock_gateway.compare.comparison import RunComparison
from penstock_gateway.deployments.deployments_service import Deployments
from penstock_gateway.deployments.event_tail import EventTail
from penstock_gateway.deployments.explanations import Explanations
from penstock_gateway.deployments.manual_runs import ManualRuns
from penstock_gateway.deployments.replays import Replays
from penstock_gateway.endpoints.call_features import CallFeatures
from penstock_gateway.endpoints.call_tracker import CallTracker
from penstock_gateway.endpoints.endpoints_service import Endpoints
from penstock_gateway.endpoints.outputs import Outputs
from penstock_gateway.endpoints.warm_calls import WarmCalls
from penstock_gateway.endpoints.warm_executors import WarmExecutors
from penstock_gateway.environments.environments import Environments
from penstock_gateway.events.event_types_service import EventTypeRegistry
from penstock_gateway.limits.limits_service import LimitsService
from penstock_gateway.lineage.artifact_lineage import ArtifactLineage
from penstock_gateway.metrics.metric_series import MetricSeries
from penstock_gateway.model_registration.model_registration import ModelRegistration
from penstock_gateway.named_secrets import DeploymentSecrets
from penstock_gateway.notifications.rule_tests import RuleTests
from penstock_gateway.notifications.sender import NotificationSender
from penstock_gateway.partitions.backfills_service import Backfills
from penstock_gateway.partitions.partitions_service import DeploymentPartitions
from penstock_gateway.projects.project_records import ProjectRecords
from penstock_gateway.read_model.database import ReadModel
from penstock_gateway.read_model.projector import Projector
from penstock_gateway.registry.model_registry import Registry
from penstock_gateway.retention.retention_service import RetentionService
from penstock_gateway.run_streams.run_changes import RunChanges
from penstock_gateway.run_streams.run_streams import RunStreams
from penstock_gateway.runs.attempt_inputs import AttemptInputsReader
from penstock_gateway.runs.cancellations import Cancellations
from penstock_gateway.runs.reruns import Reruns
from penstock_gateway.runs.resumption import Resumptions
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.run_requests import RunRequests
from penstock_gateway.runs.run_states import RunStates
from penstock_gateway.runs.step_progress import StepProgress
from penstock_gateway.runs.step_reader import StepReader
from penstock_gateway.script_runs.script_run_service import ScriptRuns
from penstock_gateway.settings import GatewaySettings
from penstock_gateway.trace.traces import Traces
from penstock_gateway.tracked.importer import TrackedRunImporter
from penstock_gateway.versions.pipeline_versions import PipelineVersions
from penstock_gateway.waits.answers import Answers
from penstock_servicekit.owners import Owners


@frozen(kw_only=True)
class SharedFeatures:
    """What the features of all projects share. `started` is when the gateway started, of the monotonic clock."""

    bus: Bus
    source: str
    settings: GatewaySettings
    closing: asyncio.Event
    started: float
    followers: Followers
    log: ArchivedLog
    appends: GatheredAppends
    states: RunStates
    progress: StepProgress
    scripts: TrackedRunImporter
    versions: Versions
    models: ModelLog
    artifacts: Artifacts
    projects: ProjectRecords
    pools: KnownPools
    limit_sizes: LimitSizes
    events: EventStream
    event_types: EventTypes
    decisions: DecisionLog
    deployments: DeploymentLog
    partitions: PartitionLog
    backfills: BackfillLog
    evaluator: CelEvaluator
    notifications: NotificationLog
    sender: NotificationSender
    secrets: DeploymentSecrets
    read_model: ReadModel
    projector: Projector
    series: Projector
    tracker: CallTracker
    executors: WarmExecutors
    tokens: Tokens
    owners: Owners


def project_features(shared: SharedFeatures, project: str) -> Iterable[object]:
    """Return the features of a project."""
    bus, log, events = shared.bus, shared.log, shared.events
    settings = shared.settings
    reach = ArtifactReach(
        bus,
        shared.projects,
        shared.read_model,
        shared.projector,
        shared.scripts,
        shared.versions,
        shared.models,
        shared.deployments,
        project,
    )
    artifacts = Artifacts(bus, settings.max_blob, via_gateway=settings.artifacts_via_gateway, reach=reach)
    closing, stall = shared.closing, shared.settings.stream_timeout
    versions = PipelineVersions(bus, shared.versions, artifacts.is_reachable, project)
    models = Registry(shared.models, project)
    reader = RunReader(log, shared.states, shared.scripts, project)
    requests = RunRequests(
        bus,
        log,
        shared.appends,
        reader,
        versions,
        models,
        artifacts,
        shared.pools,
        shared.limit_sizes,
        project,
        started=shared.started,
    )
    event_types = EventTypeRegistry(shared.event_types, project)
    deployments = Deployments(
        shared.deployments,
        versions,
        models,
        artifacts,
        shared.pools,
        shared.evaluator,
        shared.sender,
        shared.secrets,
        shared.tokens,
        event_types,
        project,
    )
    explanations = Explanations(deployments, shared.decisions, events, log, event_types, shared.evaluator)
    partitions = DeploymentPartitions(deployments, shared.partitions, shared.read_model, shared.projector)
    outputs = Outputs(log, shared.artifacts)
    endpoints = Endpoints(
        shared.deployments,
        versions,
        requests,
        events,
        shared.decisions,
        log,
        artifacts,
        shared.tracker,
        closing,
        shared.owners,
        project,
    )
    warm = WarmCalls(shared.executors, versions, models, artifacts, project)
    return (
        artifacts,
        versions,
        Environments(bus, shared.versions, shared.followers, project),
        Builds(bus, shared.followers, project),
        models,
        EventTail(bus, shared.followers, project, closing, stall),
        Traces(project, reader, events, shared.decisions, models),
        RuleTests(shared.deployments, shared.notifications, shared.sender, project),
        ArtifactLineage(shared.read_model, shared.projector, shared.scripts, versions, project),
        reader,
        StepReader(reader, log, shared.progress),
        requests,
        Reruns(requests, reader, versions, Resumptions(log, reader, versions, artifacts)),
        AttemptInputsReader(reader, log, versions, shared.versions),
        ScriptRuns(bus, log, reader, artifacts, project),
        Cancellations(log, reader),
        ModelRegistration(reader, models, versions, artifacts),
        MetricSeries(reader, shared.read_model, shared.series),
        RunComparison(reader, versions),
        RunStreams(log, shared.followers, reader, versions, closing, stall),
        RunChanges(bus, shared.followers, reader, closing, stall),
        Answers(log, reader),
        deployments,
        event_types,
        explanations,
        Replays(deployments, explanations, events, shared.partitions, versions, requests, log, shared.evaluator),
        ManualRuns(deployments, shared.partitions, requests, log, Timers(bus)),
        partitions,
        Backfills(shared.backfills, deployments, shared.partitions, partitions, versions, requests, shared.evaluator),
        endpoints,
        outputs,
        warm,
        CallFeatures(
            endpoints=endpoints, warm=warm, outputs=outputs, artifacts=artifacts, max_form=shared.settings.max_blob
        ),
        RetentionService(bus, versions),
        LimitsService(bus, log, project),
    )
