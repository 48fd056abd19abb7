"""When a run of a deployment is late. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from penstock_core import json_schema
from penstock_core.deployments.definition import CronTrigger, Definition, Late, Problem
from penstock_core.durations import format_duration
from penstock_core.pipeline.ir import Pipeline

AFTER_LIMIT = 30 * 86400
"""Longest time until a run is late, in seconds."""

STEPS_LIMIT = 50
"""Most steps of a deployment with a time of their own."""

_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]\Z")


def problems(definition: Definition) -> Iterator[Problem]:
    """What is wrong in when runs of a deployment are late, with its path."""
    late = definition.late
    if late is None:
        return
    if not 0 <= late.after <= AFTER_LIMIT:
        yield "late.after", "must be more than 0 seconds and at most 30 days"
    if not late.after and not late.by and not late.steps:
        yield "late", "give a duration (after), a time of day (by), durations of steps (steps), or several of them"
    if len(late.steps) > STEPS_LIMIT:
        yield "late.steps", f"has {len(late.steps)} steps; the limit is {STEPS_LIMIT}"
    for key, seconds in late.steps.items():
        if not 0 < seconds <= AFTER_LIMIT:
            yield f"late.steps.{key[:100]}", "must be more than 0 seconds and at most 30 days"
    if late.by and not _TIME.match(late.by):
        yield "late.by", f"{late.by[:50]!r} is not a time of day; use one such as '07:00'"
    if late.by and not any(isinstance(trigger, CronTrigger) for trigger in definition.triggers):
        yield "late.by", "needs a cron trigger: it is the time of day by which the run of a tick must have succeeded"


def step_problems(late: Late | None, pipeline: Pipeline) -> Iterator[Problem]:
    """Which steps of `late` a pipeline does not have, or whose end cannot be late."""
    nodes = {node.key: node for node in pipeline.nodes}
    for key in late.steps if late is not None else ():
        if key not in nodes:
            yield f"late.steps.{key[:100]}", json_schema.unknown(key, nodes, "step")
        elif nodes[key].mapped is not None:
            yield f"late.steps.{key[:100]}", "is a mapped step: name the step that takes its results"


def cron(by: str) -> str:
    """Return the cron expression of a time of day."""
    hour, minute = by.split(":")
    return f"{int(minute)} {int(hour)} * * *"


def step_reason(step: str, after: float) -> str:
    """Return why a run is late one of whose steps has not succeeded in time."""
    return f"step {step!r} has not succeeded {format_duration(after)} after the request of the run"


def after_reason(after: float) -> str:
    """Return why a run is late that has not finished in time."""
    return f"it has not finished {format_duration(after)} after its request"


def by_reason(by: str, tz: str) -> str:
    """Return why a run is late that has not succeeded by a time of day."""
    return f"it has not succeeded by {by} {tz}"
