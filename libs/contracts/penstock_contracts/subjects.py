"""Subject names, streams, consumers and buckets: the one place that spells them.

runs.{shard}.{run_id}.{tail}           facts of runs (stream RUNS); `tail` as each fact names it
logs.{run_id}.{key}.{n}                what attempts print and measure (stream LOGS)
metrics.{run_id}.{key}.{n}             series that attempts measure (stream METRICS)
builds.{project}.{pipeline}.registered pipeline versions made by the builder (stream BUILDS)
ticks.{schedule}, armed.{schedule}     timers of the cron service (stream TIMERS)
wakes.{shard}.{run_id}, alarms.…       timers of runs (stream TIMERS)
events.{project}.{digest}              events that steps may wait for, by type and key (stream EVENTS)
models.{project}.{model}.{place}       facts of registered models (stream MODELS)
triggers.{project}.{type}              events that may start runs, by their type (stream TRIGGERS)
kills.{run_id}.{key}.{n}               attempts whose processes are to be ended; nothing stored
parked.{service}                       messages that could not be read, with the error (stream PARKED)
replicas.{service}                     who lives and holds which shards, nothing stored
commands.{service}.{verb}              requests with a reply, nothing stored
"""

from __future__ import annotations

import hashlib
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
TRIGGERS = "TRIGGERS"

VERSIONS_BUCKET = "penstock_versions"
SCHEDULES_BUCKET = "penstock_schedules"
LIMITS_BUCKET = "penstock_limits"
LIMITS_STATE = "book"
LIMITS_SIZES = "sizes"
"""Keys of the bucket of limits: who holds and waits, and the platform's settings."""
WAITS_BUCKET = "penstock_waits"
CACHE_BUCKET = "penstock_cache"
MARKS_BUCKET = "penstock_marks"
RETENTION_BUCKET = "penstock_retention"
TOKENS_BUCKET = "penstock_tokens"
RETENTION_SETTINGS = "settings"
"""Key of the bucket of retention: the policies. Besides it holds reports of what was collected, by their ids."""

CRON_CONSUMER = "cron"
"""Durable consumers, on TIMERS and on the bucket of schedules, that hand ticks and changes to the cron service."""

WAKES_CONSUMER = "scheduler-wakes"
"""Durable consumer, on TIMERS, that hands the timers of runs to the schedulers."""

MODELS_CONSUMER = "model-events"
"""Durable consumer, on MODELS, that has every change of a model announced."""

LINEAGE_CONSUMER = "openlineage"
"""Durable consumer, on RUNS, that has every run that is over told to an OpenLineage service, where one is named."""

RUNS_FINISHED = "runs.*.*.finished"
"""Filter for the ends of all runs."""

KILLS = "kills.>"

BUILDER_REGISTER = "commands.builder.register"
ARTIFACTS_STORE = "commands.artifacts.store"
ARTIFACTS_LOCATE = "commands.artifacts.locate"
ARTIFACTS_STAT = "commands.artifacts.stat"
ARTIFACTS_PREVIEW = "commands.artifacts.preview"
ARTIFACTS_COMPLETE = "commands.artifacts.complete"
ARTIFACTS_JOB = "commands.artifacts.job"
ARTIFACTS_DELETE_RUN = "commands.artifacts.delete_run"
GATEWAY_EVENT = "commands.gateway.event"
SCHEDULER_REPLICAS = "commands.scheduler.replicas"


class RunSubject(NamedTuple):
    """A subject of `RUNS` taken apart. `key` and `attempt` are None where the fact has none.

    `last` is the last part where that is free: a pool, the name of an artifact, milliseconds of a clock.
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


def finished(run_id: str, key: str, attempt: int) -> str:
    """Subject of the end of an attempt."""
    return run(run_id, f"step.{key}.{attempt}.finished")


def committed(run_id: str, key: str, attempt: int | Literal["*"], name: str) -> str:
    """Subject of something that an attempt stored while it ran; `*` stands for every attempt."""
    return run(run_id, f"step.{key}.{attempt}.artifact.{name}")


def logs(run_id: str, key: str, attempt: int) -> str:
    """Subject of the output of an attempt."""
    return f"logs.{run_id}.{key}.{attempt}"


def logs_all(run_id: str) -> str:
    """Filter for the output of all attempts of a run."""
    return f"logs.{run_id}.>"


def metrics(run_id: str, key: str, attempt: int) -> str:
    """Subject of the series that an attempt measures."""
    return f"metrics.{run_id}.{key}.{attempt}"


def metrics_all(run_id: str) -> str:
    """Filter for the series of all attempts of a run."""
    return f"metrics.{run_id}.>"


def queued_attempts() -> str:
    """Filter for the attempts that were held until they have slots of their limits."""
    return "runs.*.*.step.*.*.queued"


def requested_runs() -> str:
    """Filter for the requests of all runs."""
    return "runs.*.*.requested"


def kill(run_id: str, key: str, attempt: int) -> str:
    """Subject on which executors hear that an attempt's process is to be ended."""
    return f"kills.{run_id}.{key}.{attempt}"


def alarm(run_id: str, at_ms: int) -> str:
    """Subject of a timer of a run for a Unix time in milliseconds."""
    return f"alarms.{ids.shard(run_id)}.{run_id}.{at_ms}"


def alarms(run_id: str) -> str:
    """Filter for all timers of a run."""
    return f"alarms.{ids.shard(run_id)}.{run_id}.*"


def wake(run_id: str) -> str:
    """Subject on which the timer of a run fires."""
    return f"wakes.{ids.shard(run_id)}.{run_id}"


def event(project: str, digest: str) -> str:
    """Subject of events of one type and key, as a digest."""
    return f"events.{project}.{digest}"


def model(project: str, name: str, place: int | Literal["*"] = "*") -> str:
    """Subject of the fact on a place of a model's log; of all of them by default."""
    return f"models.{project}.{name}.{place}"


def models(project: str) -> str:
    """Filter for the facts of all models of a project."""
    return f"models.{project}.>"


def parse_model_subject(subject: str) -> tuple[str, str, int] | None:
    """Project, model and place of a subject of `MODELS`; None when it is not of that form."""
    match subject.split("."):
        case ["models", project, name, place] if place.isdecimal() and len(place) < 8 and not place.startswith("0"):
            return project, name, int(place)
        case _:
            return None


def trigger(project: str, type: str) -> str:
    """Subject of events of a type that may start runs. A type that is no subject is told by its digest."""
    words = type.split(".")
    if all(word and word.isascii() and word.replace("-", "").replace("_", "").isalnum() for word in words):
        return f"triggers.{project}.{type}"
    return f"triggers.{project}.{hashlib.sha256(type.encode()).hexdigest()[:32]}"


def rfc3339(at_ms: int) -> str:
    """A Unix time in milliseconds as message schedules want it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def attempts(pool: str) -> str:
    """Filter for the attempts that a pool shall run; `*` stands for every pool."""
    return f"runs.*.*.step.*.*.requested.{pool}"


def attempts_consumer(pool: str) -> str:
    """Durable consumer that hands a pool's attempts to its executors."""
    return "executor-of-all-pools" if pool == "*" else f"executor-{pool}"


def scheduler_filters(shard: int) -> list[str]:
    """Filters for the facts that a scheduler has to answer; its own decisions and `started` are not among them."""
    prefix = f"runs.{shard:02d}.*"
    tails = ("requested", "admitted", "cancel", "clock.*", "step.*.cancel", "step.*.*.granted", "step.*.*.finished")
    return [f"{prefix}.{tail}" for tail in tails]


def scheduler_consumer(shard: int) -> str:
    """Durable consumer of one shard's facts."""
    return f"scheduler-{shard:02d}"


def replicas(service: str) -> str:
    """Subject on which the replicas of a service tell one another that they live."""
    return f"replicas.{service}"


def parse(subject: str) -> RunSubject | None:
    """Take a subject of `RUNS` apart; None when it is not of the form of any fact."""
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
}
"""Facts about an attempt, with how many parts follow in their subjects."""
