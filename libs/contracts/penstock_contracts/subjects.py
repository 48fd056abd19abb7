"""Subjects, streams, consumers and buckets: the only place that defines their names.

runs.{shard}.{run_id}.{tail}           facts of runs (stream RUNS); `tail` is that of the fact
logs.{run_id}.{key}.{n}                output and latest metrics of attempts (stream LOGS)
logs.{run_id}.{key}.{n}.progress       latest progress of attempts (stream LOGS)
metrics.{run_id}.{key}.{n}             metric series of attempts (stream METRICS)
builds.{project}.{pipeline}.registered pipeline versions registered by the builder (stream BUILDS)
environments.{project}.{declaration}.{n}.{tail} builds of declared environments (stream BUILDS)
version-builds.{project}.{source}.{n}.{tail} builds of versions from Git repositories (stream BUILDS)
ticks.{project}.{name}.{trigger}, armed.{…}  timers of the cron service (stream TIMERS)
wakes.{shard}.{run_id}, alarms.…       timers of runs (stream TIMERS)
events.{project}.{type}                events that start runs and that steps wait for (stream EVENTS)
models.{project}.{model}.{revision}    facts of registered models (stream MODELS)
deployments.{project}.{name}.{revision}      facts of deployments (stream DEPLOYMENTS)
decisions.{project}.{name}.{event}.{trigger} what triggers decided on events (stream DECISIONS)
windows.{project}.{name}.{trigger}.{key}.{n} events that are combined into one run (stream DECISIONS)
notifications.{project}.{name}.{scope}.{rule}.{event}  notifications of deployments (stream NOTIFICATIONS)
partitions.{project}.{name}.{key}      dynamic partitions of deployments (stream PARTITIONS)
backfills.{project}.{backfill}.{n}     facts of backfills (stream PARTITIONS)
letters.{project}.{name}.{event}.{trigger}   which rejected events were dead letters once (stream DECISIONS)
trigger-due.{…}, trigger-timers.{…}    timers of triggers (stream TIMERS)
kills.{run_id}.{key}.{n}               attempts whose processes are to be killed; not stored
owners.{executor}                      questions of other executors whether it has an attempt; not stored
audit.{service}                        requests to the HTTP API, in batches (stream AUDIT)
parked.{service}                       unreadable messages, with the error (stream PARKED, the dead-letter stream)
problems.{service}                     problems of streams that a process has noticed; not stored
replicas.{service}                     heartbeats of replicas with their shards; not stored
calls.{executor}                       requests to the warm workers of an executor, with a reply; not stored
endpoints.{executor}                   which endpoints an executor serves; not stored
published.{project}.{type}             events of publishers, which the gateways store; not stored themselves
commands.{service}.{verb}              requests with a reply; not stored
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, NamedTuple

from penstock_core import ids

RUNS = "RUNS"
LOGS = "LOGS"
METRICS = "METRICS"
BUILDS = "BUILDS"
TIMERS = "TIMERS"
PARKED = "PARKED"
EVENTS = "EVENTS"
MODELS = "MODELS"
DEPLOYMENTS = "DEPLOYMENTS"
DECISIONS = "DECISIONS"
AUDIT = "AUDIT"
NOTIFICATIONS = "NOTIFICATIONS"
PARTITIONS = "PARTITIONS"

VERSIONS_BUCKET = "penstock_versions"
LIMITS_BUCKET = "penstock_limits"
LIMITS_STATE = "state"
LIMITS_SIZES = "sizes"
"""Keys of the bucket of limits: the ledger of holders and waiters, and the configured sizes."""
WAITS_BUCKET = "penstock_waits"
CACHE_BUCKET = "penstock_cache"
MARKS_BUCKET = "penstock_marks"
RETENTION_BUCKET = "penstock_retention"
TOKENS_BUCKET = "penstock_tokens"
PROJECTS_BUCKET = "penstock_projects"
UPLOADS_BUCKET = "penstock_uploads"
INTEGRITY_BUCKET = "penstock_integrity"
INTEGRITY_RECORD = "record"
"""Key of the positions of all streams, and of the damages that were found."""
LEASES_BUCKET = "penstock_leases"
NOTIFICATIONS_BUCKET = "penstock_notifications"
SECRETS_BUCKET = "penstock_secrets"
EVENT_TYPES_BUCKET = "penstock_event_types"
RETENTION_SETTINGS = "settings"
"""Key of the policies in the bucket of retention, which also has the reports of the janitor, by id."""

APPEND_ONLY = (
    MODELS,
    DEPLOYMENTS,
    BUILDS,
    EVENTS,
    DECISIONS,
    PARTITIONS,
    NOTIFICATIONS,
    AUDIT,
    f"KV_{VERSIONS_BUCKET}",
)
"""Streams of which messages are deleted only by their age, or replaced by newer ones: others cannot get fewer."""

FROM_LOG = (TIMERS, f"KV_{WAITS_BUCKET}")
"""Streams whose contents follow from the log of runs, from events and from deployments."""

_EXPENDABLE_BUCKETS = (CACHE_BUCKET, MARKS_BUCKET, LEASES_BUCKET, INTEGRITY_BUCKET, UPLOADS_BUCKET)
EXPENDABLE = tuple(f"KV_{bucket}" for bucket in _EXPENDABLE_BUCKETS)
"""Streams that fill up again by themselves: the loss of their messages costs time only."""

CRON_CONSUMER = "cron"
"""Durable consumers, on TIMERS and on DEPLOYMENTS, of the cron service: ticks and changes."""

WAKES_CONSUMER = "scheduler-wakes"
"""Durable consumer, on TIMERS, of the schedulers: timers of runs."""

MODELS_CONSUMER = "model-events"
"""Durable consumer, on MODELS, that publishes an event for every change of a model."""

RUN_EVENTS_CONSUMER = "run-events"
"""Durable consumer, on RUNS, that publishes an event for the end of every run."""

TRIGGERS_CONSUMER = "triggers"
"""Durable consumers, on EVENTS, TIMERS and PARTITIONS, of the triggers service."""

NOTIFICATIONS_CONSUMER = "notifications"
"""Durable consumers, on EVENTS and on NOTIFICATIONS, that decide on notifications and send them."""

ENVIRONMENTS_CONSUMER = "environments"
"""Durable consumer, on BUILDS, of the builders: environments to be built."""

VERSION_BUILDS_CONSUMER = "version-builds"
"""Durable consumer, on BUILDS, of the builders: versions to be built from Git repositories."""

LINEAGE_CONSUMER = "openlineage"
"""Durable consumer, on RUNS, that sends finished runs to an OpenLineage service, if one is configured."""

PROBLEMS = "problems.*"

SERVED_ENDPOINTS = "endpoints.*"
"""Filter for what executors announce of the endpoints that they serve."""

RUNS_FINISHED = "runs.*.*.finished"
"""Filter for the ends of all runs."""

ENVIRONMENTS_REQUESTED = "environments.*.*.*.requested"
"""Filter for the requests of builds of environments."""

VERSION_BUILDS_REQUESTED = "version-builds.*.*.*.requested"
"""Filter for the requests of builds of versions."""

KILLS = "kills.>"

PUBLISHED = "published"
"""First word of the subjects of events of publishers, who publish them to `events.{project}.{type}`."""

BUILDER_REGISTER = "commands.builder.register"
GATEWAY_CREDENTIAL = "commands.gateway.credential"
ARTIFACTS_STORE = "commands.artifacts.store"
ARTIFACTS_LOCATE = "commands.artifacts.locate"
ARTIFACTS_STAT = "commands.artifacts.stat"
ARTIFACTS_PREVIEW = "commands.artifacts.preview"
ARTIFACTS_COMPLETE = "commands.artifacts.complete"
ARTIFACTS_JOB = "commands.artifacts.job"
ARTIFACTS_DELETE_RUN = "commands.artifacts.delete_run"
SCHEDULER_REPLICAS = "commands.scheduler.replicas"


class RunSubject(NamedTuple):
    """A parsed subject of `RUNS`. `key` and `attempt` are None if the fact has none.

    `last` is the last token if it is free: a pool, the name of an artifact, milliseconds of a clock.
    """

    run_id: str
    kind: str
    key: str | None = None
    attempt: int | None = None
    last: str = ""


def run(run_id: str, tail: str) -> str:
    """Subject of a fact of a run."""
    return f"runs.{ids.shard(run_id)}.{run_id}.{tail}"


def run_all(run_id: str) -> str:
    """Filter for all facts of a run."""
    return f"runs.{ids.shard(run_id)}.{run_id}.>"


def requested(run_id: str, key: str, attempt: int, pool: str) -> str:
    """Subject of the request of an attempt."""
    return run(run_id, f"step.{key}.{attempt}.requested.{pool}")


def finished(run_id: str, key: str, attempt: int) -> str:
    """Subject of the end of an attempt."""
    return run(run_id, f"step.{key}.{attempt}.finished")


def committed(run_id: str, key: str, attempt: int | Literal["*"], name: str) -> str:
    """Subject of an artifact that an attempt stored while it ran; `*` matches every attempt."""
    return run(run_id, f"step.{key}.{attempt}.artifact.{name}")


def logs(run_id: str, key: str, attempt: int) -> str:
    """Subject of the output of an attempt."""
    return f"logs.{run_id}.{key}.{attempt}"


def logs_of_step(run_id: str, key: str) -> list[str]:
    """Filters for the output and the progress of the attempts of a step."""
    return [f"logs.{run_id}.{key}.*", f"logs.{run_id}.{key}.*.progress"]


def progress_all(run_id: str) -> str:
    """Filter for the latest progress of all attempts of a run."""
    return f"logs.{run_id}.*.*.progress"


def is_progress(subject: str) -> bool:
    """Whether a subject of `LOGS` is that of the progress of an attempt."""
    return subject.endswith(".progress")


def logs_all(run_id: str) -> str:
    """Filter for the output and the progress of all attempts of a run."""
    return f"logs.{run_id}.>"


def metrics(run_id: str, key: str, attempt: int) -> str:
    """Subject of the metric series of an attempt."""
    return f"metrics.{run_id}.{key}.{attempt}"


def metrics_all(run_id: str) -> str:
    """Filter for the metric series of all attempts of a run."""
    return f"metrics.{run_id}.>"


def queued_attempts() -> str:
    """Filter for the attempts that were queued for slots of their limits."""
    return "runs.*.*.step.*.*.queued"


def requested_runs() -> str:
    """Filter for the requests of all runs."""
    return "runs.*.*.requested"


def kill(run_id: str, key: str, attempt: int) -> str:
    """Subject of the notice to executors to kill an attempt's process."""
    return f"kills.{run_id}.{key}.{attempt}"


def owner_question(executor: str) -> str:
    """Subject on which an executor answers whether it has an attempt."""
    return f"owners.{executor}"


def calls(executor: str) -> str:
    """Subject of requests to the warm workers of an executor."""
    return f"calls.{lease(executor)}"


def served_endpoints(executor: str) -> str:
    """Subject on which an executor announces the endpoints that it serves."""
    return f"endpoints.{lease(executor)}"


def lease(executor: str) -> str:
    """Key of the lease of an executor. A name may have dots, which would separate tokens."""
    return executor.replace(".", "=")


def lease_holder(key: str) -> str:
    """Return the executor that has the lease with a key."""
    return key.replace("=", ".")


def letter(project: str, deployment: str, digest: str, trigger: str) -> str:
    """Subject of the mark that an event which a trigger rejected has been a dead letter."""
    return f"letters.{project}.{deployment}.{digest}.{trigger}"


def alarm(run_id: str, at_ms: int) -> str:
    """Subject of a timer of a run for a Unix time in milliseconds."""
    return f"alarms.{ids.shard(run_id)}.{run_id}.{at_ms}"


def alarms(run_id: str) -> str:
    """Filter for all timers of a run."""
    return f"alarms.{ids.shard(run_id)}.{run_id}.*"


def wake(run_id: str) -> str:
    """Subject on which the timer of a run fires."""
    return f"wakes.{ids.shard(run_id)}.{run_id}"


def event(project: str, type: str) -> str:
    """Subject of events of a type; `type` may end in wildcards."""
    return f"events.{project}.{type}"


def deployments(project: str = "*", name: str = "*") -> str:
    """Filter for the facts of deployments."""
    return f"deployments.{project}.{name}.*"


def parse_deployment_subject(subject: str) -> tuple[str, str, int] | None:
    """Parse project, deployment and revision of a subject of `DEPLOYMENTS`; None if it has another form."""
    match subject.split("."):
        case ["deployments", project, name, revision] if revision.isdecimal() and len(revision) < 8:
            return project, name, int(revision)
        case _:
            return None


def armed(project: str, deployment: str, trigger: str = "*") -> str:
    """Subject of the timer of a cron trigger; by default a filter for those of a deployment."""
    return f"armed.{project}.{deployment}.{trigger}"


def tick(project: str, deployment: str, trigger: str) -> str:
    """Subject on which the timer of a cron trigger fires."""
    return f"ticks.{project}.{deployment}.{trigger}"


def trigger_timer(project: str, deployment: str, trigger: str, token: str) -> str:
    """Subject of a timer of a trigger: of a window, by the digest of its key, or of a run that starts later."""
    return f"trigger-timers.{project}.{deployment}.{trigger}.{token}"


def trigger_due(project: str, deployment: str, trigger: str, token: str) -> str:
    """Subject on which a timer of a trigger fires."""
    return f"trigger-due.{project}.{deployment}.{trigger}.{token}"


def decisions(project: str, deployment: str = "*", event: str = "*") -> str:
    """Filter for the decisions of deployments on events, by the digest of the event."""
    return f"decisions.{project}.{deployment}.{event}.*"


def windows(project: str, deployment: str, trigger: str = "*", key: str = "*") -> str:
    """Filter for the windows of a trigger, by the digest of the key."""
    return f"windows.{project}.{deployment}.{trigger}.{key}.*"


def partitions(project: str, deployment: str) -> str:
    """Filter for the dynamic partitions of a deployment."""
    return f"partitions.{project}.{deployment}.*"


def backfill(project: str, id: str = "*", number: int | Literal["*"] = "*") -> str:
    """Subject of a fact of a backfill; by default a filter for those of all backfills."""
    return f"backfills.{project}.{id}.{number}"


def parse_backfill_subject(subject: str) -> tuple[str, str, int] | None:
    """Parse project, id and number of the subject of a fact of a backfill; None if it has another form."""
    match subject.split("."):
        case ["backfills", project, id, number] if number.isdecimal() and len(number) < 9:
            return project, id, int(number)
        case _:
            return None


def model(project: str, name: str, revision: int | Literal["*"] = "*") -> str:
    """Subject of the fact with a revision of a model's log; by default a filter for all of them."""
    return f"models.{project}.{name}.{revision}"


def models(project: str) -> str:
    """Filter for the facts of all models of a project."""
    return f"models.{project}.>"


def parse_model_subject(subject: str) -> tuple[str, str, int] | None:
    """Parse project, model and revision of a subject of `MODELS`; None if it has another form."""
    match subject.split("."):
        case ["models", project, name, revision] if revision.isdecimal() and len(revision) < 8 and revision[0] != "0":
            return project, name, int(revision)
        case _:
            return None


def rfc3339(at_ms: int) -> str:
    """Format a Unix time in milliseconds as message schedules need it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def environment(project: str, declaration: str, build: int | Literal["*"], tail: str) -> str:
    """Subject of a fact of a build of an environment, by the digest of its declaration."""
    return f"environments.{project}.{declaration}.{build}.{tail}"


def version_build(project: str, source: str, build: int | Literal["*"], tail: str) -> str:
    """Subject of a fact of a build of a version, by the digest of its source."""
    return f"version-builds.{project}.{source}.{build}.{tail}"


def attempts(pool: str) -> str:
    """Filter for the attempt requests of a pool; `*` matches every pool."""
    return f"runs.*.*.step.*.*.requested.{pool}"


def attempts_consumer(pool: str) -> str:
    """Durable consumer of a pool's attempt requests."""
    return "executor-of-all-pools" if pool == "*" else f"executor-{pool}"


def scheduler_filters(shard: int) -> list[str]:
    """Filters for the facts that a scheduler acts on; its own decisions and `started` are not among them."""
    prefix = f"runs.{shard:02d}.*"
    tails = ("requested", "admitted", "cancel", "clock.*", "step.*.cancel", "step.*.*.granted", "step.*.*.finished")
    tails += ("step.*.*.stopped",)
    return [f"{prefix}.{tail}" for tail in tails]


def scheduler_consumer(shard: int) -> str:
    """Durable consumer of one shard's facts."""
    return f"scheduler-{shard:02d}"


def replicas(service: str) -> str:
    """Subject of the heartbeats of a service's replicas."""
    return f"replicas.{service}"


def parse(subject: str) -> RunSubject | None:
    """Parse a subject of `RUNS`; None if it is not that of a fact."""
    parts = subject.split(".")
    if len(parts) < 4 or parts[0] != "runs" or parts[1] != ids.shard(parts[2]):
        return None
    match parts[3:]:
        case ["requested" | "admitted" | "cancel" | "finished" | "archived" | "deleted" as kind]:
            return RunSubject(parts[2], f"run.{kind}")
        case ["clock", ms] if ms.isdecimal() and len(ms) < 15:
            return RunSubject(parts[2], "run.clock", last=ms)
        case ["step", key, "skipped" | "expanded" | "reused" | "cancel" as kind]:
            return RunSubject(parts[2], f"step.{kind}", key)
        case ["step", key, n, kind, *rest] if n.isdecimal() and len(n) < 10:
            if (kind, len(rest)) in _ATTEMPT_KINDS:
                return RunSubject(parts[2], f"attempt.{kind}", key, int(n), *rest)
            return None
        case _:
            return None


_ATTEMPT_KINDS = {
    ("queued", 0),
    ("granted", 0),
    ("suspended", 0),
    ("requested", 1),
    ("started", 0),
    ("artifact", 1),
    ("finished", 0),
    ("stopped", 0),
}
"""The kinds of facts about an attempt, with the number of tokens that follow in their subjects."""


def problems(service: str) -> str:
    """Subject on which a process reports problems of streams."""
    return f"problems.{service}"
