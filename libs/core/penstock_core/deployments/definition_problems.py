"""What is wrong in the definition of a deployment by itself: names, types, limits."""

from __future__ import annotations

from collections.abc import Iterator

from penstock_core import git_sources, ids
from penstock_core.deployments import late, partitions, webhooks
from penstock_core.deployments.definition import (
    ACTIVE_RUNS_LIMIT,
    EXPRESSION_LIMIT,
    QUEUE_LIMIT,
    TRIGGERS_LIMIT,
    WAIT_LIMIT,
    WORKERS_LIMIT,
    CronTrigger,
    Definition,
    EndpointTrigger,
    EventTrigger,
    Mode,
    Problem,
    Trigger,
    WebhookTrigger,
    Window,
    WindowKind,
    expressions,
    is_event_type,
)
from penstock_core.deployments.notify_rules import rules_problems
from penstock_core.deployments.webhooks import Provider
from penstock_core.errors import InvalidIdError
from penstock_core.git_sources import InvalidGitSourceError
from penstock_core.pipeline.ir import Overlap


def problems(definition: Definition) -> list[Problem]:
    """Return everything that is wrong in a definition by itself: names, types, limits.

    Expressions, cron expressions, time zones and inputs are checked by those who can read them.
    """
    found: list[Problem] = []
    if not ids.is_name(definition.pipeline):
        found.append(("pipeline", "use 1 to 100 letters, digits, '_' and '-'"))
    if definition.deadline is not None and not definition.deadline > 0:
        found.append(("deadline", "must be more than 0 seconds"))
    if len(definition.triggers) > TRIGGERS_LIMIT:
        found.append(("triggers", f"has {len(definition.triggers)} triggers; the limit is {TRIGGERS_LIMIT}"))
    if definition.mode is Mode.LOW_LATENCY and definition.endpoint is None:
        found.append(("mode", "low_latency needs an endpoint: add Endpoint() to the triggers"))
    found += _active_runs_problems(definition)
    found += _traffic_problems(definition)
    names = [trigger.name for trigger in definition.triggers]
    for n, trigger in enumerate(definition.triggers):
        at = f"triggers[{n}]"
        if trigger.name in names[:n]:
            found.append((f"{at}.name", f"another trigger of the deployment is called {trigger.name!r}"))
        if isinstance(trigger, EndpointTrigger) and trigger is not definition.endpoint:
            found.append((at, "a deployment has at most one endpoint"))
        if isinstance(trigger, EndpointTrigger) and definition.mode is Mode.LOW_LATENCY and not trigger.wait:
            found.append((f"{at}.wait", "must be more than 0 seconds: it is the time limit with mode 'low_latency'"))
        found += [(f"{at}.{path}", message) for path, message in _trigger_problems(trigger)]
        found += [(f"{at}.{path}", message) for path, message in _partition_problems(trigger, definition)]
    return [*found, *_declared_partitions(definition), *late.problems(definition), *rules_problems(definition.notify)]


def _active_runs_problems(definition: Definition) -> Iterator[Problem]:
    most = definition.max_active_runs
    if most is None:
        if definition.overlap is not Overlap.QUEUE:
            yield "overlap", "needs max_active_runs, the number of runs that can be active at the same time"
        return
    if not 1 <= most <= ACTIVE_RUNS_LIMIT:
        yield "max_active_runs", f"must be between 1 and {ACTIVE_RUNS_LIMIT}"
    if definition.mode is Mode.LOW_LATENCY:
        yield "max_active_runs", "is not for mode 'low_latency': use Endpoint(queue=…)"


def _traffic_problems(definition: Definition) -> Iterator[Problem]:
    for role, share in (("canary", definition.canary), ("shadow", definition.shadow)):
        if share is None:
            continue
        if definition.mode is not Mode.LOW_LATENCY:
            yield role, "needs mode 'low_latency'"
        if not 0 <= share.weight <= 1:
            yield f"{role}.weight", "must be a share between 0 and 1"
        if share.version == definition.version:
            yield f"{role}.version", "is the version of the deployment: name another one"


def _declared_partitions(definition: Definition) -> Iterator[Problem]:
    if definition.partitions is None:
        return
    for path, message in partitions.problems(definition.partitions):
        yield f"partitions.{path}", message
    if partitions.LABEL in definition.labels:
        yield f"labels.{partitions.LABEL}", "is the label of the partition: use another name"


def _partition_problems(trigger: Trigger, definition: Definition) -> Iterator[Problem]:
    """Whether a trigger gives its runs a partition, as others of the deployment have."""
    declared = definition.partitions
    match trigger:
        case EventTrigger() | WebhookTrigger():
            if declared is None and trigger.partition:
                yield "partition", "the deployment has no partitions: declare them, or remove this"
            if declared is not None and not trigger.partition:
                yield "partition", "is missing: the deployment has partitions; name that of an event, as 'data.day'"
        case CronTrigger() if declared is not None and declared.by not in partitions.TIMED:
            yield "cron", f"a tick has no {declared.by.value} partition: declare partitions of time, or use an event"
        case EndpointTrigger() if declared is not None:
            yield "kind", "a deployment with partitions has no endpoint: use another deployment of the pipeline"
        case _:
            pass
    if declared is None:
        return
    for name in trigger.inputs if isinstance(trigger, EventTrigger | WebhookTrigger | CronTrigger) else ():
        if name in declared.inputs:
            yield f"inputs.{name}", "is an input that the partition sets: map it once"


def _trigger_problems(trigger: Trigger) -> Iterator[Problem]:
    try:
        ids.check_name(trigger.name, "trigger")
    except InvalidIdError as error:
        yield "name", str(error)
    match trigger:
        case EventTrigger():
            yield from _event_problems(trigger)
        case CronTrigger():
            yield from _cron_problems(trigger)
        case EndpointTrigger():
            yield from _endpoint_problems(trigger)
        case WebhookTrigger():
            yield from _webhook_problems(trigger)
    for path, text in expressions(trigger):
        if len(text) > EXPRESSION_LIMIT:
            yield path, f"has {len(text)} characters; the limit is {EXPRESSION_LIMIT}"


def _event_problems(trigger: EventTrigger) -> Iterator[Problem]:
    if not trigger.types:
        yield "types", "is empty: name the types of events, such as 'com.acme.dataset.updated' or 'com.acme.*'"
    for type in trigger.types:
        if not is_event_type(type.removesuffix(".*")):
            yield "types", f"{type[:100]!r} is not a type of events: use words of letters, digits, '_', '-' and dots"
    yield from _combination_problems(trigger)


def _cron_problems(trigger: CronTrigger) -> Iterator[Problem]:
    if bool(trigger.cron) == bool(trigger.every):
        yield "cron", "give either a cron expression or an interval (every)"
    if trigger.every and not 1 <= trigger.every <= 366 * 86400:
        yield "every", "must be between 1 second and 366 days"
    if not 0 <= trigger.jitter <= 86400:
        yield "jitter", "must be between 0 seconds and 1 day"
    if trigger.start is not None and trigger.end is not None and trigger.end <= trigger.start:
        yield "end", "must be after start"
    if not 1 <= trigger.catchup_limit <= 10_000:
        yield "catchup_limit", "must be between 1 and 10000"


def _endpoint_problems(trigger: EndpointTrigger) -> Iterator[Problem]:
    if not 0 <= trigger.wait <= WAIT_LIMIT:
        yield "wait", f"must be between 0 and {WAIT_LIMIT:g} seconds"
    if not 0 <= trigger.rate <= 100_000:
        yield "rate", "must be between 0 (any number) and 100000 requests per second"
    if not 1 <= trigger.queue <= QUEUE_LIMIT:
        yield "queue", f"must be between 1 and {QUEUE_LIMIT}"
    if not 1 <= trigger.max_workers <= WORKERS_LIMIT:
        yield "max_workers", f"must be between 1 and {WORKERS_LIMIT}"
    if not 0 <= trigger.min_workers <= trigger.max_workers:
        yield "min_workers", f"must be between 0 and max_workers, which is {trigger.max_workers}"
    if not 1 <= trigger.idle <= 7 * 86400:
        yield "idle", "must be between 1 second and 7 days"
    if not 0 <= trigger.record <= 1:
        yield "record", "must be a share between 0 and 1"


def _webhook_problems(trigger: WebhookTrigger) -> Iterator[Problem]:
    yield from webhooks.secret_problems(trigger.secret)
    for event in trigger.events:
        if trigger.provider not in webhooks.TYPED:
            yield "events", f"a {trigger.provider.value} webhook has no types of events: use a filter"
        elif not is_event_type(event):
            yield "events", f"{event[:100]!r} is not an event of {trigger.provider.value}, such as 'push'"
    if trigger.publish:
        yield from _publish_problems(trigger)
    if trigger.algorithm not in webhooks.ALGORITHMS:
        yield "algorithm", f"must be one of {', '.join(webhooks.ALGORITHMS)}"
    if trigger.provider is not Provider.HMAC:
        for option in ("header", "id_header"):
            if getattr(trigger, option):
                yield option, "only applies to 'hmac'"
    yield from _combination_problems(trigger)


def _publish_problems(trigger: WebhookTrigger) -> Iterator[Problem]:
    try:
        source = git_sources.parse(trigger.publish)
    except InvalidGitSourceError as error:
        yield "publish", str(error)
        return
    if git_sources.is_commit(source.ref):
        yield "publish", "names a commit, which no push changes: name a branch or a tag"
    if trigger.provider not in webhooks.TYPED:
        yield "publish", "needs the pushes of 'github' or 'gitlab'"
    for option in ("inputs", "inputs_from", "key", "not_before", "partition", "window"):
        if getattr(trigger, option):
            yield option, "has no effect with publish, which starts no run"


def _combination_problems(trigger: EventTrigger | WebhookTrigger) -> Iterator[Problem]:
    if trigger.window is not None:
        yield from _window_problems(trigger.window, trigger)
        if trigger.not_before:
            yield "not_before", "cannot be combined with a window"


def _window_problems(window: Window, trigger: EventTrigger | WebhookTrigger) -> Iterator[Problem]:
    if not 0 < window.seconds <= 30 * 86400:
        yield "window.seconds", "must be more than 0 seconds and at most 30 days, as long as events are kept"
    if window.kind is WindowKind.BATCH:
        if not 0 <= window.count <= 10_000:
            yield "window.count", "must be at most 10000"
    elif window.count:
        yield "window.count", "only applies to batches"
    if window.kind is WindowKind.ALL_OF and (isinstance(trigger, WebhookTrigger) or len(trigger.types) < 2):
        yield "types", "all_of needs at least two types of events"
