"""Events of the platform: about ends and artifacts of runs, about builds, and those that steps send. Pure.

Events that runs cause carry `hops`: how many deployments started each other before. It bounds chains that never end,
such as a deployment that runs for the end of its own runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from penstock_core import trace_context, tracing
from penstock_core.deployments.events import RESERVED, Event
from penstock_core.facts import ArtifactCommitted, AttemptFinished, Outcome, RunFinished, RunRequested
from penstock_core.pipeline.values import Inline, Stored, Value

PLATFORM = "penstock/"
"""Beginning of the sources of events of the platform."""

CLI_SOURCE = "penstock/cli"
"""Source of the events that users send with `penstock events send`, unless they give another one."""

PLATFORM_TYPES = "penstock."
"""Beginning of the types of events of the platform."""

SOURCE = "penstock/runs"
"""Source of the events about runs; their id begins with that of the run."""

RUN_LATE = "penstock.run.late.v1"
"""Type of the event about a run that is late."""

STEPS_SOURCE = "penstock/steps"
"""Source of the events that steps send; their id is `RUN/STEP/N`, the n-th event of the step."""

ARTIFACTS_SOURCE = "penstock/artifacts"
"""Source of the events about artifacts that steps store by name; their id is `RUN/STEP/NAME`."""

BUILDS_SOURCE = "penstock/builds"
"""Source of the events about builds of environments; their id is `DECLARATION/N`, the n-th build."""

BUILD_FINISHED = "penstock.build.finished.v1"
"""Type of the event about a build that finished."""

HOPS_LIMIT = 32
"""Maximum number of runs in a chain in which each one was started for an event that the one before caused."""

_ERROR_LIMIT = 4_000

_HOPS = "hops"


def sent_problem(event: Event, *, cli: bool) -> tuple[str, str] | None:
    """Return the attribute by which an event that somebody sends would pass for one of the platform, and why.

    Notifications and backfills would believe its source, and the platform's own event with the same ID would be a
    duplicate. Triggers would believe its type and subject: a tick, a webhook without its signature, the end of a run.

    Args:
        event: the event.
        cli: whether it may be one of `penstock events send`.
    """
    begins = "must not begin with {!r}, as those of the platform do: use {} of your own"
    if event.source.startswith(PLATFORM) and not (cli and event.source == CLI_SOURCE):
        return "source", begins.format(PLATFORM, "a name")
    if event.type.startswith(PLATFORM_TYPES):
        return "type", begins.format(PLATFORM_TYPES, "a type")
    if reserved := next((name for name in event.extensions if name.startswith(RESERVED)), None):
        return reserved, begins.format(RESERVED, "a name")
    return None


def run_finished(requested: RunRequested, finished: RunFinished, ends: Iterable[AttemptFinished], at: float) -> Event:
    """Return the event about a finished run.

    Args:
        requested: its request.
        finished: its end.
        ends: ends of attempts, whose metrics are included; of a step that ran several times the last one counts.
        at: when it finished, in Unix seconds.
    """
    return Event(
        project=requested.project,
        type=RunFinished.ce_type,
        source=SOURCE,
        id=requested.run_id,
        time=_rfc3339(at),
        subject=requested.pipeline,
        extensions={
            "keys": f"{requested.pipeline},{requested.run_id}",
            trace_context.TRACEPARENT: tracing.of_run(requested).traceparent(),
            **hops_of(requested.trigger),
        },
        data={
            "run_id": requested.run_id,
            "pipeline": requested.pipeline,
            "version": requested.version,
            "state": finished.outcome.value,
            "error": finished.error,
            "deployment": requested.trigger.get("deployment", ""),
            "labels": requested.labels,
            "requested_by": requested.requested_by,
            "duration": round(max(0.0, at - requested.requested_at), 3),
            "outputs": _outputs(finished.outputs),
            "metrics": _metrics(ends),
        },
    )


def run_late(requested: RunRequested, state: str, reason: str, at: float, step: str = "") -> Event:
    """Return the event about a run that is late. There is one for each run, and one for each step that is late.

    Args:
        requested: its request.
        state: its end, if it has finished without success; empty: it has not finished.
        reason: why it is late.
        at: since when, in Unix seconds.
        step: key of the step that is late; empty: the run.
    """
    return Event(
        project=requested.project,
        type=RUN_LATE,
        source=SOURCE,
        id=f"{requested.run_id}/late{f'/{step}' if step else ''}",
        time=_rfc3339(at),
        subject=requested.pipeline,
        extensions={"keys": f"{requested.pipeline},{requested.run_id}", **hops_of(requested.trigger)},
        data={
            "run_id": requested.run_id,
            "pipeline": requested.pipeline,
            "version": requested.version,
            "state": state,
            "reason": reason,
            "step": step,
            "deployment": requested.trigger.get("deployment", ""),
            "labels": requested.labels,
        },
    )


def step_event(requested: RunRequested, finished: AttemptFinished, number: int) -> dict[str, Any]:
    """Return the attributes of the n-th event that a step sends, from 1, by their CloudEvents names.

    At most one attempt of a step succeeds, so the id is the same however often the event is published.
    """
    wanted = finished.events[number - 1]
    return {
        "type": wanted.type,
        "source": STEPS_SOURCE,
        "id": step_event_id(requested.run_id, finished.key, number),
        "subject": requested.pipeline,
        "time": _rfc3339(finished.finished_at),
        **({"key": wanted.key} if wanted.key else {}),
        trace_context.TRACEPARENT: tracing.of_attempt(requested, finished.key, finished.attempt).traceparent(),
        **hops_of(requested.trigger),
    }


def step_event_id(run_id: str, key: str, number: int) -> str:
    """Return the id of the n-th event of a step."""
    return f"{run_id}/{key}/{number}"


def artifact_committed(requested: RunRequested, finished: AttemptFinished, name: str) -> tuple[dict[str, Any], Any]:
    """Return the event about an artifact that a step stored by name: its attributes, and its data.

    `data.value` is the artifact as inputs of another run take it.
    """
    keys = [requested.pipeline, requested.run_id, f"{requested.pipeline}/{name}"]
    attributes = {
        "type": ArtifactCommitted.ce_type,
        "source": ARTIFACTS_SOURCE,
        "id": artifact_event_id(requested.run_id, finished.key, name),
        "subject": requested.pipeline,
        "time": _rfc3339(finished.finished_at),
        "keys": ",".join(keys),
        trace_context.TRACEPARENT: tracing.of_attempt(requested, finished.key, finished.attempt).traceparent(),
        **hops_of(requested.trigger),
    }
    value = _outputs({name: finished.artifacts[name]})
    return attributes, {
        "name": name,
        "run_id": requested.run_id,
        "pipeline": requested.pipeline,
        "version": requested.version,
        "step": finished.key,
        "attempt": finished.attempt,
        "deployment": requested.trigger.get("deployment", ""),
        "labels": requested.labels,
        **({"value": value[name]} if value else {}),
    }


def artifact_event_id(run_id: str, key: str, name: str) -> str:
    """Return the id of the event about an artifact of a step."""
    return f"{run_id}/{key}/{name}"


def build_finished(
    project: str,
    declaration: str,
    build: int,
    name: str,
    *,
    lock: str,
    image: str,
    error: str,
    seconds: float,
    at: float,
) -> Event:
    """Return the event about a build of an environment that finished.

    Args:
        project: of the environment.
        declaration: digest of its declaration.
        build: number of the build, from 1.
        name: of the environment.
        lock: digest of its lock; empty: the build failed.
        image: its image by digest, if images are made.
        error: why it failed.
        seconds: how long it took.
        at: when it finished, in Unix seconds.
    """
    return Event(
        project=project,
        type=BUILD_FINISHED,
        source=BUILDS_SOURCE,
        id=f"{declaration}/{build}",
        time=_rfc3339(at),
        subject=name,
        extensions={"keys": name},
        data={
            "environment": name,
            "declaration": declaration,
            "build": build,
            "state": "succeeded" if lock else "failed",
            "lock": lock,
            "image": image,
            "error": error[:_ERROR_LIMIT],
            "duration": round(seconds, 3),
        },
    )


def version_built(
    project: str,
    id: str,
    *,
    source: str,
    commit: str,
    pipeline: str,
    version: int | None,
    error: str,
    seconds: float,
    at: float,
) -> Event:
    """Return the event about a build of a version from a Git repository that finished.

    Args:
        project: of the version.
        id: digest of the source and number of the build.
        source: the source in Git.
        commit: that its branch or tag was resolved to; empty: it was not.
        pipeline: name of the pipeline; empty: the build failed.
        version: its number.
        error: why it failed.
        seconds: how long it took.
        at: when it finished, in Unix seconds.
    """
    return Event(
        project=project,
        type=BUILD_FINISHED,
        source=BUILDS_SOURCE,
        id=f"version/{id}",
        time=_rfc3339(at),
        subject=pipeline,
        extensions={"keys": pipeline} if pipeline else {},
        data={
            "source": source,
            "commit": commit,
            "state": "succeeded" if version is not None else "failed",
            "pipeline": pipeline,
            "version": version,
            "error": error[:_ERROR_LIMIT],
            "duration": round(seconds, 3),
        },
    )


def run_of(event: Event) -> str:
    """Return the id of the run whose end, step or artifact an event is about; empty if it is about none."""
    return event.id.partition("/")[0] if event.source in (SOURCE, STEPS_SOURCE, ARTIFACTS_SOURCE) else ""


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def hops_of(trigger: Mapping[str, str]) -> dict[str, Any]:
    """Return the extension of events that a run with this trigger causes."""
    hops = trigger.get(_HOPS, "")
    return {_HOPS: int(hops)} if hops.isdecimal() else {}


def inherited_hops(trigger: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the trigger of a child run by which it counts as one run with its parent."""
    return {_HOPS: trigger[_HOPS]} if _HOPS in trigger else {}


def next_hop(events: Sequence[Event]) -> int:
    """Return which run of a chain a run for these events is; 0 if none of them was caused by a triggered run."""
    found = [event.extensions.get(_HOPS) for event in events if event.source.startswith(PLATFORM)]
    known = [int(hops) for hops in found if isinstance(hops, int) or (isinstance(hops, str) and hops.isdecimal())]
    return max(known, default=-1) + 1


def _outputs(outputs: Mapping[str, Value]) -> dict[str, Any]:
    """Return outputs as inputs of another run take them: JSON, or the reference to an artifact.

    Lists and dictionaries with stored parts, and values by reference, are left out.
    """
    found: dict[str, Any] = {}
    for name, value in outputs.items():
        if isinstance(value, Inline):
            found[name] = value.value
        elif isinstance(value, Stored):
            found[name] = {"artifact": asdict(value.artifact)}
    return found


def _metrics(ends: Iterable[AttemptFinished]) -> dict[str, float]:
    """Return the finite metrics of successful attempts by name.

    Of several steps with the same metric, the last by key counts, as in lists of runs.
    """
    good = [end for end in ends if end.outcome in (Outcome.SUCCEEDED, Outcome.CACHED)]
    found: dict[str, float] = {}
    for end in sorted(good, key=lambda end: (end.key, end.attempt)):
        found |= {name: value for name, value in end.metrics.items() if math.isfinite(value)}
    return found
