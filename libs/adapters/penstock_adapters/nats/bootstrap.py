"""Declares every stream, durable consumer and bucket of Penstock, idempotently."""

from __future__ import annotations

import asyncio
from typing import Any

from penstock_adapters.nats.bus import Bus, BusError
from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.notifications import EVENT_TYPES as NOTIFIED

SECOND = 1_000_000_000
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
_STREAM_EXISTS = 10058

ACK_WAIT = 6.0
"""Seconds until an unacknowledged message is redelivered: how soon a dead replica is noticed."""

AUDIT_RETENTION = 400 * 86400
"""Seconds for which the audit trail is kept."""

EVENT_RETENTION = 30 * 86400
"""Seconds that events are kept: the same event sent twice within them starts one run."""

_CACHE_BOUNDS: dict[str, Any] = {"max_bytes": 256 * 1024**2, "max_age": 90 * 86400 * SECOND}


def streams(replicas: int = 1) -> list[dict[str, Any]]:
    """Settings of all streams and of the streams behind the buckets."""
    common: dict[str, Any] = {"storage": "file", "num_replicas": replicas, "allow_direct": True, "discard": "old"}
    facts = {"retention": "limits", "allow_atomic": True, "deny_delete": False, "allow_rollup_hdrs": True}
    return [
        {**common, **facts, "name": subjects.RUNS, "subjects": ["runs.>"], "duplicate_window": SECOND},
        {
            **common,
            "name": subjects.LOGS,
            "subjects": ["logs.>"],
            "max_bytes": 1024**3,
            "max_age": 30 * 86400 * SECOND,
            "max_msgs_per_subject": 20_000,
            # The progress of an attempt replaces the one before.
            "allow_rollup_hdrs": True,
        },
        {
            **common,
            "name": subjects.METRICS,
            "subjects": ["metrics.>"],
            # Kept until their run is deleted, like its facts; they compress well.
            "compression": "s2",
        },
        {
            **common,
            "name": subjects.BUILDS,
            "subjects": ["builds.>", "environments.>", "version-builds.>"],
            "max_msgs_per_subject": 1000,
        },
        {
            **common,
            "name": subjects.TIMERS,
            "subjects": ["armed.>", "ticks.>", "alarms.>", "wakes.>", "trigger-timers.>", "trigger-due.>"],
            "allow_msg_schedules": True,
            "allow_msg_ttl": True,
            "allow_rollup_hdrs": True,
            "max_msgs_per_subject": 100,
        },
        {**common, "name": subjects.PARKED, "subjects": ["parked.>"], "max_bytes": 64 * 1024**2},
        {
            **common,
            "name": subjects.EVENTS,
            "subjects": ["events.>"],
            "max_bytes": 1024**3,
            "max_age": EVENT_RETENTION * SECOND,
            "duplicate_window": 86400 * SECOND,
        },
        # Append-only, also for administrators of the broker's API. Entries expire by age.
        {
            **common,
            "name": subjects.AUDIT,
            "subjects": ["audit.>"],
            "max_age": AUDIT_RETENTION * SECOND,
            "deny_delete": True,
            "deny_purge": True,
            "compression": "s2",
        },
        # Registered models are never removed: no limits.
        {**common, **facts, "name": subjects.MODELS, "subjects": ["models.>"], "duplicate_window": SECOND},
        # Neither are deployments and their history.
        {**common, **facts, "name": subjects.DEPLOYMENTS, "subjects": ["deployments.>"], "duplicate_window": SECOND},
        {
            **common,
            **facts,
            "name": subjects.DECISIONS,
            "subjects": ["decisions.>", "windows.>", "letters.>"],
            # Longer than the events: an event that is published again finds the decision on it.
            "max_age": (EVENT_RETENTION + 86400) * SECOND,
            "duplicate_window": SECOND,
        },
        {
            **common,
            "name": subjects.NOTIFICATIONS,
            "subjects": ["notifications.>"],
            # As the decisions: an event that is published again finds its notification.
            "max_age": (EVENT_RETENTION + 86400) * SECOND,
            "max_bytes": 256 * 1024**2,
            "duplicate_window": SECOND,
        },
        _bucket(common, subjects.NOTIFICATIONS_BUCKET, history=1),
        _bucket(common, subjects.EVENT_TYPES_BUCKET, history=1),
        # Dynamic partitions and backfills are never removed.
        {
            **common,
            **facts,
            "name": subjects.PARTITIONS,
            "subjects": ["partitions.>", "backfills.>"],
            "duplicate_window": SECOND,
        },
        _bucket(common, subjects.WAITS_BUCKET, history=1),
        _bucket(common, subjects.VERSIONS_BUCKET, history=1),
        _bucket(common, subjects.LIMITS_BUCKET, history=1),
        _bucket(common, subjects.MARKS_BUCKET, history=1),
        _bucket(common, subjects.RETENTION_BUCKET, history=1),
        _bucket(common, subjects.TOKENS_BUCKET, history=1),
        _bucket(common, subjects.SECRETS_BUCKET, history=1),
        _bucket(common, subjects.PROJECTS_BUCKET, history=1),
        # Uploads that no run refers to yet; only written if there are several projects.
        {**_bucket(common, subjects.UPLOADS_BUCKET, history=1), "max_age": 2 * 86400 * SECOND},
        _bucket(common, subjects.INTEGRITY_BUCKET, history=1),
        # Executors that ended leave an entry or its marker; a living one renews its own much more often.
        {**_bucket(common, subjects.LEASES_BUCKET, history=1), "max_age": 86400 * SECOND},
        # A cache: when it is full, the oldest results are removed.
        {**_bucket(common, subjects.CACHE_BUCKET, history=1), "discard": "old", **_CACHE_BOUNDS},
    ]


def consumers(pools: list[str], ack_wait: float = ACK_WAIT) -> list[tuple[str, dict[str, Any]]]:
    """Settings of all durable consumers, each with its stream."""
    common: dict[str, Any] = {"ack_policy": "explicit", "ack_wait": int(ack_wait * SECOND), "deliver_policy": "all"}
    found: list[tuple[str, dict[str, Any]]] = [
        (
            subjects.RUNS,
            {
                **common,
                "durable_name": subjects.scheduler_consumer(shard),
                "filter_subjects": subjects.scheduler_filters(shard),
                "max_ack_pending": 50_000,
            },
        )
        for shard in range(ids.SHARDS)
    ]
    found += [
        (
            subjects.RUNS,
            {
                **common,
                "durable_name": subjects.attempts_consumer(pool),
                "filter_subject": subjects.attempts(pool),
                "max_ack_pending": 50_000,
            },
        )
        for pool in pools
    ]
    cron = {**common, "durable_name": subjects.CRON_CONSUMER, "max_ack_pending": 1000}
    found.append((subjects.TIMERS, {**cron, "filter_subject": "ticks.>"}))
    wakes = {**common, "durable_name": subjects.WAKES_CONSUMER, "filter_subject": "wakes.>", "max_ack_pending": 10_000}
    found.append((subjects.TIMERS, wakes))
    found.append((subjects.DEPLOYMENTS, {**cron, "filter_subject": "deployments.>"}))
    changes = {
        **common,
        "durable_name": subjects.MODELS_CONSUMER,
        "filter_subject": "models.>",
        "max_ack_pending": 1000,
    }
    found.append((subjects.MODELS, changes))
    ends = {**common, "durable_name": subjects.RUN_EVENTS_CONSUMER, "filter_subject": subjects.RUNS_FINISHED}
    found.append((subjects.RUNS, {**ends, "max_ack_pending": 1000}))
    environments = {**common, "durable_name": subjects.ENVIRONMENTS_CONSUMER, "max_ack_pending": 1000}
    found.append((subjects.BUILDS, {**environments, "filter_subject": subjects.ENVIRONMENTS_REQUESTED}))
    version_builds = {**common, "durable_name": subjects.VERSION_BUILDS_CONSUMER, "max_ack_pending": 1000}
    found.append((subjects.BUILDS, {**version_builds, "filter_subject": subjects.VERSION_BUILDS_REQUESTED}))
    triggers = {**common, "durable_name": subjects.TRIGGERS_CONSUMER, "max_ack_pending": 10_000}
    found.append((subjects.EVENTS, {**triggers, "filter_subject": "events.>"}))
    found.append((subjects.TIMERS, {**triggers, "filter_subject": "trigger-due.>"}))
    notifications = {**common, "durable_name": subjects.NOTIFICATIONS_CONSUMER}
    kinds = [subjects.event("*", type) for type in NOTIFIED]
    # One at a time, in the order of the stream: what is due depends on the events before.
    found.append((subjects.EVENTS, {**notifications, "filter_subjects": kinds, "max_ack_pending": 1}))
    found.append((subjects.NOTIFICATIONS, {**notifications, "max_ack_pending": 10_000}))
    found.append((subjects.PARTITIONS, {**triggers, "filter_subject": "backfills.>"}))
    return found


async def bootstrap(bus: Bus, *, pools: list[str], replicas: int = 1, ack_wait: float = ACK_WAIT) -> None:
    """Declare everything. Raises `UnavailableError` when the server does not answer, `BusError` when it refuses."""
    await asyncio.gather(*(_stream(bus, settings) for settings in streams(replicas)))
    await asyncio.gather(*(declare_consumer(bus, stream, settings) for stream, settings in consumers(pools, ack_wait)))


async def _stream(bus: Bus, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    try:
        have = (await bus.api(f"STREAM.INFO.{name}"))["config"]
    except BusError as error:
        if error.code != STREAM_NOT_FOUND:
            raise
        await bus.api(f"STREAM.CREATE.{name}", wanted)
        return
    if _differs(have, wanted):
        await bus.api(f"STREAM.UPDATE.{name}", {**have, **wanted})


async def restore_stream(bus: Bus, wanted: dict[str, Any], first_seq: int) -> dict[str, Any]:
    """Create a stream that was deleted, and return the information about it. Raises as `bootstrap` does.

    Args:
        bus: the connection.
        wanted: settings of the stream.
        first_seq: the first sequence number of the new stream.
    """
    name = wanted["name"]
    try:
        return await bus.api(f"STREAM.INFO.{name}")
    except BusError as error:
        if error.code != STREAM_NOT_FOUND:
            raise
    try:
        await bus.api(f"STREAM.CREATE.{name}", {**wanted, "first_seq": first_seq})
    except BusError as error:
        if error.code != _STREAM_EXISTS:  # another process was faster
            raise
    return await bus.api(f"STREAM.INFO.{name}")


async def declare_consumer(bus: Bus, stream: str, wanted: dict[str, Any]) -> None:
    """Create a durable consumer, or update one that differs. Raises as `bootstrap` does."""
    name = wanted["durable_name"]
    bus.durable_consumers[stream, name] = wanted
    try:
        have = (await bus.api(f"CONSUMER.INFO.{stream}.{name}"))["config"]
    except BusError as error:
        if error.code != CONSUMER_NOT_FOUND:
            raise
        have = {}
    if have:  # where it starts cannot be changed, and a restored one starts after what was acknowledged
        wanted = {name: value for name, value in wanted.items() if name != "deliver_policy"}
    if _differs(have, wanted):
        body = {"stream_name": stream, "config": {**have, **wanted}, "action": ""}
        await bus.api(f"CONSUMER.CREATE.{stream}.{name}", body)


async def restore_consumer(bus: Bus, stream: str, name: str) -> bool:
    """Create a consumer that was declared on this connection and has been deleted. Raises as `bootstrap` does.

    Returns:
        Whether it was missing. A new one starts where its settings say, so that messages are delivered once more.
    """
    wanted = bus.durable_consumers.get((stream, name))
    if wanted is None:
        return False
    try:
        await bus.api(f"CONSUMER.INFO.{stream}.{name}")
        return False
    except BusError as error:
        if error.code != CONSUMER_NOT_FOUND:
            raise
    await declare_consumer(bus, stream, wanted)
    return True


async def redeliver(bus: Bus, stream: str, name: str) -> None:
    """Have a durable consumer deliver all messages once more. Raises as `bootstrap` does."""
    try:
        await bus.api(f"CONSUMER.DELETE.{stream}.{name}")
    except BusError as error:
        if error.code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
            raise
    await restore_consumer(bus, stream, name)


def _differs(have: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return any(have.get(key, False if value is False else None) != value for key, value in wanted.items())


def _bucket(common: dict[str, Any], name: str, *, history: int) -> dict[str, Any]:
    """A key-value bucket is a stream of this form (NATS ADR-8)."""
    return {
        **common,
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": history,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "discard": "new",
    }
