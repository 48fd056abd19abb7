"""The definition of a deployment: which pipeline runs, and which triggers start it.

Triggers differ in where their events come from; all of them are subscriptions to events in the stream `EVENTS`.
Expressions are CEL (https://cel.dev). They see `data`, the payload of the event, `event`, its attributes
(`event.type`, `event.source`, `event.id`, `event.time`, `event.subject`, extensions), and, when a window closes,
`events`, the list of all its events as `{"data": …, "event": …}`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import field
from typing import Any, Literal, TypeAlias

from penstock_core.deployments import webhooks
from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.deployments.events import Event
from penstock_core.deployments.notify_rules import NotifyRule
from penstock_core.deployments.partitions import Partitions
from penstock_core.deployments.webhooks import Provider, Verification
from penstock_core.frozen import frozen
from penstock_core.pipeline.ir import Overlap

CRON_TICK = "penstock.cron.tick.v1"
"""Type of the event that the cron service publishes for each tick."""

ENDPOINT_CALLED = "penstock.endpoint.called.v1"
"""Type of the event that the gateway publishes for each request to an endpoint."""

WAIT_LIMIT = 300.0
"""Longest time that a request to an endpoint waits for its run, in seconds."""

ACTIVE_RUNS_LIMIT = 100_000
"""Largest number of active runs that a deployment can be limited to."""

QUEUE_LIMIT = 10_000
"""Largest number of unfinished requests of an endpoint."""

WORKERS_LIMIT = 64
"""Largest number of worker processes of an endpoint on one executor."""

TRIGGERS_LIMIT = 50
"""Maximum number of triggers of a deployment."""

EXPRESSION_LIMIT = 4_000
"""Maximum length of a CEL expression, in characters."""

EVENT_TYPE_LIMIT = 300
"""Maximum length of a type of events, in characters."""

_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")

Problem = tuple[str, str]
"""A path, such as `triggers[0].filter`, and what is wrong there."""


class Mode(enum.StrEnum):
    """How requests to the endpoint of a deployment run."""

    ELASTIC = "elastic"
    """Each is an event, then a run like any other: stored before it runs, a process for each step."""
    LOW_LATENCY = "low_latency"
    """Each is handed to a warm worker process, which answers at once; its run is recorded afterwards."""


class Catchup(enum.StrEnum):
    """What a cron trigger does with ticks that were missed while the platform was down."""

    NONE = "none"
    """They are dropped."""
    LATEST = "latest"
    """The latest one fires, late."""
    ALL = "all"
    """All of them fire, oldest first, up to `catchup_limit`."""


class WindowKind(enum.StrEnum):
    """How a trigger combines several events into one run."""

    DEBOUNCE = "debounce"
    """One run, once no further event arrived for `seconds`."""
    THROTTLE = "throttle"
    """One run for the first event; further events within `seconds` start none."""
    BATCH = "batch"
    """One run for `count` events, or for those that arrived within `seconds` of the first one."""
    ALL_OF = "all_of"
    """One run once an event of each type arrived within `seconds`."""


@frozen(kw_only=True)
class Window:
    """How a trigger combines events. `seconds` is a duration; `count` only applies to batches (0: no limit)."""

    kind: WindowKind
    seconds: float
    count: int = 0


@frozen(kw_only=True)
class EventTrigger:
    """Runs for events of the given types.

    Attributes:
        name: names the trigger within its deployment; runs and decisions refer to it.
        types: exact types, or prefixes such as `com.acme.*`.
        filter: CEL; the event counts if it is true. Empty: every event counts.
        inputs: CEL by parameter of the pipeline.
        inputs_from: CEL whose value is an object with all inputs; `inputs` override it.
        key: CEL; events with different keys have separate windows.
        not_before: CEL; the run starts at this time (a timestamp, RFC 3339 text, or Unix seconds).
        partition: CEL; the key of the partition that an event is for, if the deployment has partitions.
        window: how events are combined. None: one run per event.
    """

    name: str
    types: tuple[str, ...]
    kind: Literal["event"] = "event"
    filter: str = ""
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    inputs_from: str = ""
    key: str = ""
    not_before: str = ""
    partition: str = ""
    window: Window | None = None


@frozen(kw_only=True)
class CronTrigger:
    """Runs at the ticks of a cron expression or an interval.

    Attributes:
        cron: five fields, or a nickname such as `@daily`.
        every: seconds between ticks, instead of `cron`; ticks are multiples of it since 1970, or since `start`.
        tz: time zone of the expression, such as `Europe/Paris`.
        jitter: maximum delay of each tick in seconds; the delay depends on deployment and tick only.
        start: no tick before this Unix time.
        end: no tick after this Unix time.
    """

    name: str
    kind: Literal["cron"] = "cron"
    cron: str = ""
    every: float = 0.0
    tz: str = "UTC"
    jitter: float = 0.0
    start: float | None = None
    end: float | None = None
    catchup: Catchup = Catchup.LATEST
    catchup_limit: int = 100
    inputs: dict[str, str] = field(default_factory=dict[str, str])


@frozen(kw_only=True)
class EndpointTrigger:
    """Runs for HTTP requests to the endpoint of the deployment. The body of a request has the inputs of its run.

    Attributes:
        wait: seconds that a request waits for its run, unless it says otherwise; then it is answered later. With mode
            `low_latency`: the time limit of the run.
        rate: requests per second that each gateway accepts on average; 0: any number.
        queue: unfinished requests; further ones are refused.
        min_workers: with mode `low_latency`: worker processes that each executor keeps. With 0, the first request
            starts one.
        max_workers: worker processes that each executor starts at most, while requests wait.
        idle: seconds without a request after which a worker beyond `min_workers` is stopped.
        record: share of the successful requests whose runs are recorded, from 0 to 1. Others always are.
    """

    name: str
    kind: Literal["endpoint"] = "endpoint"
    wait: float = 30.0
    rate: float = 0.0
    queue: int = 100
    min_workers: int = 1
    max_workers: int = 4
    idle: float = 300.0
    record: float = 1.0


@frozen(kw_only=True)
class WebhookTrigger:
    """Runs for webhooks: verified HTTP requests of another system, each of which becomes an event.

    Attributes:
        provider: who sends them.
        secret: reference to the secret, such as `secret:github`.
        events: the provider's events that start runs, such as `push` or `release.published`; empty: all.
        header, algorithm: of `hmac`: the header with the signature, and the hash function.
        id_header: of `hmac`: the header with the id of a delivery; empty: each delivery is an event of its own.
        publish: a source in Git; a push to its branch or tag builds and publishes a version, and starts no run.
        filter, inputs, inputs_from, key, not_before, partition, window: as in `EventTrigger`.
    """

    name: str
    provider: Provider
    kind: Literal["webhook"] = "webhook"
    secret: str = ""
    events: tuple[str, ...] = ()
    header: str = ""
    algorithm: str = "sha256"
    id_header: str = ""
    publish: str = ""
    filter: str = ""
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    inputs_from: str = ""
    key: str = ""
    not_before: str = ""
    partition: str = ""
    window: Window | None = None

    @property
    def verification(self) -> Verification:
        """How its deliveries are verified."""
        return Verification(provider=self.provider, header=self.header, algorithm=self.algorithm)


Trigger: TypeAlias = EventTrigger | CronTrigger | EndpointTrigger | WebhookTrigger


@frozen(kw_only=True)
class TrafficShare:
    """A part of the requests to an endpoint. `weight` is from 0 to 1; `version` is a published version."""

    version: int
    weight: float = 1.0


@frozen(kw_only=True)
class Late:
    """When a run is late.

    Attributes:
        after: seconds from its request, if it has not finished; 0: never.
        by: time of day such as `07:00` in the time zone `tz`, if the run of the tick before it has not succeeded.
        steps: by key of a step: seconds from the request of the run, if the step has not succeeded.
    """

    after: float = 0.0
    by: str = ""
    tz: str = "UTC"
    steps: dict[str, float] = field(default_factory=dict[str, float])


@frozen(kw_only=True)
class Definition:
    """What a revision of a deployment says.

    Attributes:
        pipeline: the published pipeline that runs.
        version: its version; None: the latest published one at the time of each run.
        inputs: inputs of every run, as JSON; those of a trigger override them.
        labels: labels of every run.
        deadline: seconds from the request until a run fails; None: as the pipeline defines it.
        max_active_runs: how many of its runs may be active at the same time; None: any number. Runs of backfills and
            replays are not counted.
        overlap: what happens to further runs.
        mode: how requests to its endpoint run.
        canary: requests that another version answers, with mode `low_latency`.
        shadow: requests that another version runs, too; its answers are recorded, and not used.
        notify: whom it notifies of what.
        partitions: the parts of the data, one of which each run computes; None: runs have no partition.
        late: when a run is late: an event says so, once, and the run goes on.
    """

    pipeline: str
    version: int | None = None
    triggers: tuple[Trigger, ...] = ()
    notify: tuple[NotifyRule, ...] = ()
    late: Late | None = None
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    labels: dict[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    deadline: float | None = None
    max_active_runs: int | None = None
    overlap: Overlap = Overlap.QUEUE
    mode: Mode = Mode.ELASTIC
    canary: TrafficShare | None = None
    shadow: TrafficShare | None = None
    description: str = ""
    partitions: Partitions | None = None

    def trigger(self, name: str) -> Trigger | None:
        """Return the trigger with this name, or None."""
        return next((trigger for trigger in self.triggers if trigger.name == name), None)

    def active_limit(self, name: str) -> DeploymentLimit | None:
        """Return the limit with which the runs of the deployment `name` are requested, if they are limited."""
        if self.max_active_runs is None:
            return None
        return DeploymentLimit(deployment=name, most=self.max_active_runs, overlap=self.overlap)

    @property
    def other_versions(self) -> dict[str, int]:
        """The versions that get a share of the requests, by role: `canary`, `shadow`."""
        shares = {"canary": self.canary, "shadow": self.shadow}
        return {role: share.version for role, share in shares.items() if share is not None}

    @property
    def endpoint(self) -> EndpointTrigger | None:
        """The endpoint of the deployment, if it has one."""
        return next((trigger for trigger in self.triggers if isinstance(trigger, EndpointTrigger)), None)


@frozen(kw_only=True)
class Subscription:
    """Which events a trigger takes, whatever its kind.

    Attributes:
        at: deployment and trigger, as `DEPLOYMENT/TRIGGER`.
        subject: matched with that of the event, if it is given.
        publish: a source in Git, of which an event publishes a version instead of starting a run.
    """

    trigger: str
    at: str
    types: tuple[str, ...]
    subject: str = ""
    publish: str = ""
    filter: str = ""
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    inputs_from: str = ""
    key: str = ""
    not_before: str = ""
    partition: str = ""
    window: Window | None = None

    def takes(self, event: Event) -> bool:
        """Whether it takes an event, before its filter: its type and subject, and the trigger that it is for."""
        mine = not event.target or event.target == self.at
        about = not self.subject or self.subject == event.own_trigger
        return mine and about and any(type_matches(known, event.type) for known in self.types)


def subscription(deployment: str, trigger: Trigger) -> Subscription:
    """Return the subscription of a trigger."""
    at = event_subject(deployment, trigger.name)
    match trigger:
        case EventTrigger():
            return Subscription(
                trigger=trigger.name,
                at=at,
                types=trigger.types,
                filter=trigger.filter,
                inputs=trigger.inputs,
                inputs_from=trigger.inputs_from,
                key=trigger.key,
                not_before=trigger.not_before,
                partition=trigger.partition,
                window=trigger.window,
            )
        case CronTrigger():
            return Subscription(trigger=trigger.name, at=at, types=(CRON_TICK,), subject=at, inputs=trigger.inputs)
        case EndpointTrigger():
            return Subscription(trigger=trigger.name, at=at, types=(ENDPOINT_CALLED,), subject=at, inputs_from="data")
        case WebhookTrigger():
            return Subscription(
                trigger=trigger.name,
                at=at,
                types=webhooks.event_types(trigger.provider, trigger.events),
                subject=at,
                publish=trigger.publish,
                filter=trigger.filter,
                inputs=trigger.inputs,
                inputs_from=trigger.inputs_from,
                key=trigger.key,
                not_before=trigger.not_before,
                partition=trigger.partition,
                window=trigger.window,
            )


def event_subject(deployment: str, trigger: str) -> str:
    """Return the subject of events that are made for one trigger, such as its ticks."""
    return f"{deployment}/{trigger}"


def is_event_type(type: str) -> bool:
    """Whether a type can be a subject: words of letters, digits, `_` and `-`, separated by dots."""
    return len(type) <= EVENT_TYPE_LIMIT and _TYPE.match(type) is not None


def type_matches(pattern: str, type: str) -> bool:
    """Whether a type is the pattern, or starts with the part of the pattern before its final `*`."""
    return pattern == type or (pattern.endswith(".*") and type.startswith(pattern[:-1]))


def expressions(trigger: Trigger) -> Iterator[Problem]:
    """The CEL expressions of a trigger, each with its path in the trigger."""
    shape = subscription("d", trigger)
    named = {
        "filter": shape.filter,
        "key": shape.key,
        "not_before": shape.not_before,
        "partition": shape.partition,
        "inputs_from": shape.inputs_from,
    }
    named |= {f"inputs.{name}": text for name, text in shape.inputs.items()}
    yield from ((path, text) for path, text in named.items() if text)
