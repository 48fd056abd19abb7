"""Deployments: `training.deploy("nightly", triggers=[Cron("0 3 * * *"), On("com.acme.dataset.updated")])`.

A deployment in a file is a declaration: `penstock deploy FILE` registers the pipeline and applies it. Expressions in
triggers are CEL (https://cel.dev): `data` is the payload of the event, `event` has its attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from penstock import tracebacks
from penstock.authoring import notify, options
from penstock.authoring.notify import Notify
from penstock.authoring.options import Duration
from penstock_core.errors import DefinitionError

Inputs = Mapping[str, str] | str | None
"""CEL by parameter; or one expression whose value is an object with all inputs, such as `"data"`."""


@dataclass(frozen=True)
class Cron:
    """Run at the times of a cron expression, or every so often.

    Attributes:
        cron: five fields such as `0 3 * * *`, or `@daily`, `@hourly`, `@weekly`, `@monthly`, `@yearly`.
        every: an interval such as "15m", instead of `cron`.
        tz: time zone, such as `Europe/Paris`.
        jitter: delays each tick by up to this duration, differently for each deployment.
        start: no tick before this time.
        end: no tick after this time.
        catchup: ticks that were missed while the platform was down: `none`, `latest` (one run), or `all`.
        catchup_limit: the most missed ticks that `all` runs.
        inputs: CEL by parameter; `event.time` is the time of the tick.
        name: of the trigger.
    """

    cron: str = ""
    every: Duration | None = None
    tz: str = "UTC"
    jitter: Duration = 0
    start: datetime | str | None = None
    end: datetime | str | None = None
    catchup: str = "latest"
    catchup_limit: int = 100
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    name: str = ""

    def definition(self, name: str) -> dict[str, Any]:
        """Return the trigger as JSON."""
        return {
            "kind": "cron",
            "name": self.name or name,
            "cron": self.cron,
            "every": _seconds(self.every, "every"),
            "tz": self.tz,
            "jitter": _seconds(self.jitter, "jitter"),
            "start": _time(self.start),
            "end": _time(self.end),
            "catchup": self.catchup,
            "catchup_limit": self.catchup_limit,
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True)
class On:
    """Run for events.

    Attributes:
        types: a type such as `com.acme.dataset.updated`, a prefix `com.acme.*`, or several.
        filter: the event counts if this expression is true, such as `data.rows > 1000`.
        inputs: CEL by parameter; or one expression whose value is an object with all inputs, such as `"data"`.
        key: events with different values have separate windows, such as `data.customer`.
        not_before: start the run at this time, such as `data.at`.
        partition: the key of the partition that an event is for, such as `data.day`, if the deployment has partitions.
        debounce: one run, once no event arrived for this duration.
        throttle: one run for the first event, and none for those within this duration.
        batch: the number of events of one run; `within` bounds how long the first one waits.
        all_of: one run once an event of each of `types` arrived; `within` bounds the time between them.
        within: the duration for `batch` and `all_of`.
        name: of the trigger.
    """

    types: str | Sequence[str]
    filter: str = ""
    inputs: Inputs = None
    key: str = ""
    not_before: str = ""
    partition: str = ""
    debounce: Duration | None = None
    throttle: Duration | None = None
    batch: int = 0
    all_of: bool = False
    within: Duration | None = None
    name: str = ""

    def definition(self, name: str) -> dict[str, Any]:
        """Return the trigger as JSON."""
        return {
            "kind": "event",
            "name": self.name or name,
            "types": [self.types] if isinstance(self.types, str) else list(self.types),
            "filter": self.filter,
            **_inputs(self.inputs),
            "key": self.key,
            "not_before": self.not_before,
            "partition": self.partition,
            "window": _window(self),
        }


@dataclass(frozen=True)
class Endpoint:
    """Run for HTTP requests, and answer them with the output of the run: `POST /v1/endpoints/default/NAME`.

    Attributes:
        wait: how long a request waits for its run, unless it says otherwise; then its answer is at a status address.
        rate: requests per second that each gateway accepts on average; 0: any number.
        queue: the number of unfinished requests at which further ones are refused.
        min_workers: of mode="low_latency": worker processes that each executor keeps; 0: the first request starts one.
        max_workers: worker processes that each executor starts at most, while requests wait.
        idle: a worker beyond min_workers is stopped after this duration without a request.
        record: share of the successful requests whose runs are recorded, from 0 to 1; failed ones always are.
        name: of the trigger.
    """

    wait: Duration = 30
    rate: float = 0
    queue: int = 100
    min_workers: int = 1
    max_workers: int = 4
    idle: Duration = 300
    record: float = 1
    name: str = ""

    def definition(self, name: str) -> dict[str, Any]:
        """Return the trigger as JSON."""
        return {
            "kind": "endpoint",
            "name": self.name or name,
            "wait": _seconds(self.wait, "wait"),
            "rate": self.rate,
            "queue": self.queue,
            "min_workers": self.min_workers,
            "max_workers": self.max_workers,
            "idle": _seconds(self.idle, "idle"),
            "record": self.record,
        }


@dataclass(frozen=True)
class Webhook:
    """Run for webhooks, which other systems send to `POST /v1/webhooks/default/NAME`. Each becomes an event.

    Attributes:
        provider: `github`, `gitlab`, `standard` (Standard Webhooks) or `hmac` (any sender that signs with HMAC).
        secret: reference to the secret, such as "secret:github".
        events: of GitHub and GitLab: those that start runs, such as "push" or "release.published"; default: all.
        header: of `hmac`: the header with the signature, in hexadecimal or Base64; default `X-Signature`.
        algorithm: of `hmac`: `sha256`, `sha512` or `sha1`.
        id_header: of `hmac`: the header that identifies a delivery; default: every delivery is new.
        publish: a source such as `git+https://host/repo@main#subdirectory=train`, of which a push publishes a version.
        filter, inputs, key, not_before, partition, debounce, throttle, batch, within: as in `On`.
        name: of the trigger.
    """

    provider: str
    secret: str = ""
    events: str | Sequence[str] = ()
    header: str = ""
    algorithm: str = "sha256"
    id_header: str = ""
    publish: str = ""
    filter: str = ""
    inputs: Inputs = None
    key: str = ""
    not_before: str = ""
    partition: str = ""
    debounce: Duration | None = None
    throttle: Duration | None = None
    batch: int = 0
    within: Duration | None = None
    name: str = ""

    def definition(self, name: str) -> dict[str, Any]:
        """Return the trigger as JSON."""
        return {
            "kind": "webhook",
            "name": self.name or name,
            "provider": self.provider,
            "secret": self.secret,
            "events": [self.events] if isinstance(self.events, str) else list(self.events),
            "header": self.header,
            "algorithm": self.algorithm,
            "id_header": self.id_header,
            "publish": self.publish,
            "filter": self.filter,
            **_inputs(self.inputs),
            "key": self.key,
            "not_before": self.not_before,
            "partition": self.partition,
            "window": _window(self),
        }


@dataclass(frozen=True)
class Late:
    """When a run of a deployment is late: an event says so, once, and the run goes on.

    Attributes:
        after: a duration such as "2h", from the request of a run, if it has not finished.
        by: a time of day such as "07:00", if the run of the cron tick before it has not succeeded.
        tz: time zone of `by`, such as `Europe/Paris`.
        steps: by key of a step, a duration from the request of the run, if the step has not succeeded.
    """

    after: Duration = 0
    by: str = ""
    tz: str = "UTC"
    steps: Mapping[str, Duration] = field(default_factory=dict[str, Duration])

    def definition(self) -> dict[str, Any]:
        """Return it as JSON."""
        steps = {key: _seconds(after, f"steps[{key!r}]") for key, after in self.steps.items()}
        return {"after": _seconds(self.after, "after"), "by": self.by, "tz": self.tz, "steps": steps}


Trigger = Cron | On | Endpoint | Webhook
"""What starts the runs of a deployment."""


@dataclass(frozen=True)
class Partitions:
    """The parts of a deployment's data, each computed by runs of its own.

    Attributes:
        by: `hour`, `day`, `week` or `month`, `static` (with `keys`), or `dynamic`: keys that are added later.
        start: of time: the first partition is the one that contains this date, such as "2026-01-31".
        end: of time: no partition begins at this date or later.
        tz: of time: time zone, such as `Europe/Paris`.
        keys: of static ones.
        inputs: by parameter: `key`, or `start` or `end` of the interval.
    """

    by: str
    start: date | str | None = None
    end: date | str | None = None
    tz: str = "UTC"
    keys: Sequence[str] = ()
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])

    def definition(self) -> dict[str, Any]:
        """Return the declaration as JSON."""
        return {
            "by": self.by,
            "start": _local(self.start, "start"),
            "end": _local(self.end, "end"),
            "tz": self.tz,
            "keys": list(self.keys),
            "inputs": dict(self.inputs),
        }


@dataclass(frozen=True)
class Deployment:
    """A declaration: when and how a pipeline runs by itself. Made by `Pipeline.deploy`.

    Attributes:
        pipeline: the `Pipeline`.
        version: a published version; None: the latest published one at the time of each run.
        inputs: JSON values by parameter; triggers override them.
        labels: labels of its runs.
        deadline: a run fails if it has not finished after this duration.
        max_active_runs: how many of its runs may be active at the same time; None: any number.
        overlap: what happens to further runs: "queue", "skip", "cancel_previous" or "buffer_one".
        mode: how requests to its endpoint run: "elastic", or "low_latency" by warm worker processes.
        canary: requests that another version answers, such as `{"version": 4, "weight": 0.1}`, with low_latency.
        shadow: requests that another version runs, too, whose answers are recorded and not used.
        notify: whom it notifies of what.
        partitions: the parts of its data, one of which each run computes.
        late: when a run is late: an event says so, once, and the run goes on.
        file, line: where it is declared.
    """

    name: str
    pipeline: Any = field(repr=False)
    triggers: tuple[Trigger, ...] = ()
    version: int | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    priority: int = 0
    deadline: Duration | None = None
    max_active_runs: int | None = None
    overlap: str = "queue"
    mode: str = "elastic"
    canary: Mapping[str, Any] | None = None
    shadow: Mapping[str, Any] | None = None
    description: str = ""
    notify: Sequence[Notify] = ()
    partitions: Any = None
    late: Late | None = None
    file: str | None = field(default=None, repr=False, compare=False)
    line: int | None = field(default=None, repr=False, compare=False)

    def definition(self) -> dict[str, Any]:
        """Return the definition as JSON, for `Client.deployments.apply`.

        Raises:
            DefinitionError: a trigger is not valid; with the user's file and line.
        """
        triggers = [self._trigger(n, trigger) for n, trigger in enumerate(self.triggers)]
        if self.partitions is not None and not isinstance(self.partitions, Partitions):
            raise DefinitionError(
                f"partitions of deployment {self.name!r} must be Partitions('day', start=…), not {self.partitions!r}",
                self.file,
                self.line,
            )
        return {
            "pipeline": self.pipeline.name,
            "version": self.version,
            "triggers": triggers,
            "inputs": dict(self.inputs),
            "labels": dict(self.labels),
            "priority": self.priority,
            "deadline": None if self.deadline is None else _seconds(self.deadline, "deadline"),
            "max_active_runs": self.max_active_runs,
            "overlap": self.overlap,
            "mode": self.mode,
            "canary": self.canary and dict(self.canary),
            "shadow": self.shadow and dict(self.shadow),
            "description": self.description,
            "notify": self._notify(),
            "partitions": self.partitions.definition() if self.partitions else None,
            "late": self._late(),
        }

    def _late(self) -> dict[str, Any] | None:
        if not isinstance(self.late, Late | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(
                f"late of deployment {self.name!r} must be a Late, not {self.late!r}", self.file, self.line
            )
        try:
            return None if self.late is None else self.late.definition()
        except DefinitionError as error:
            raise DefinitionError(f"deployment {self.name!r}: {error.message}", self.file, self.line) from error

    def _notify(self) -> list[dict[str, Any]]:
        for one in self.notify:
            if not isinstance(one, Notify):  # pyright: ignore[reportUnnecessaryIsInstance] - users may pass anything
                raise DefinitionError(
                    f"notify of deployment {self.name!r} must be a list of Notify, not {one!r}", self.file, self.line
                )
        try:
            return notify.definitions(self.notify)
        except DefinitionError as error:
            raise DefinitionError(f"deployment {self.name!r}: {error.message}", self.file, self.line) from error

    def _trigger(self, n: int, trigger: Any) -> dict[str, Any]:
        if not isinstance(trigger, Trigger):
            raise DefinitionError(
                f"trigger {n + 1} of deployment {self.name!r} must be a Cron, On, Endpoint or Webhook, not {trigger!r}",
                self.file,
                self.line,
            )
        kinds = [type(one) for one in self.triggers[: n + 1]].count(type(trigger))
        name = type(trigger).__name__.lower()
        try:
            return trigger.definition(name if kinds == 1 else f"{name}-{kinds}")
        except DefinitionError as error:
            raise DefinitionError(f"deployment {self.name!r}: {error.message}", self.file, self.line) from error


_ARGUMENTS = ("name", "pipeline", "triggers", "file", "line")

DECLARED: list[Deployment] = []
"""The deployments that were declared in this process, in order."""


def declare(pipeline: Any, name: str, triggers: Sequence[Trigger], settings: Mapping[str, Any]) -> Deployment:
    """Declare a deployment of a pipeline; `settings` are further fields of `Deployment`.

    Raises:
        DefinitionError: the name or an option is not valid; with the user's file and line.
    """
    known = [one.name for one in dataclasses.fields(Deployment)]
    options.known(settings, [one for one in known if one not in _ARGUMENTS], f"{pipeline!r}.deploy")
    file, line = tracebacks.caller()
    made = Deployment(
        options.name(name, "deployment name"), pipeline, tuple(triggers), **settings, file=file, line=line
    )
    made.definition()
    DECLARED.append(made)
    return made


def _seconds(value: Duration | None, name: str) -> float:
    return 0.0 if not value else options.duration(value, name)


def _time(value: datetime | str | None) -> str | None:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise options.definition_error(f"{value!r} has no time zone: use datetime(…, tzinfo=UTC)")
        return value.isoformat()
    return value


def _local(value: date | str | None, name: str) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise options.definition_error(f"{name} of partitions is local to tz: give it without a time zone")
        return value.isoformat(timespec="minutes")
    return "" if value is None else str(value)


def _inputs(inputs: Inputs) -> dict[str, Any]:
    if isinstance(inputs, str):
        return {"inputs_from": inputs}
    return {"inputs": dict(inputs or {})}


def _window(trigger: On | Webhook) -> dict[str, Any] | None:
    given = [name for name in ("debounce", "throttle", "batch", "all_of") if getattr(trigger, name, None)]
    if len(given) > 1:
        raise options.definition_error(f"{' and '.join(given)} cannot be combined: use one of them")
    if not given:
        if trigger.within is not None:
            raise options.definition_error("within needs batch or all_of")
        return None
    kind = given[0]
    if kind in ("debounce", "throttle"):
        return {"kind": kind, "seconds": _seconds(getattr(trigger, kind), kind), "count": 0}
    if trigger.within is None:
        raise options.definition_error(f"{kind} needs within, such as within='10m'")
    count = trigger.batch if kind == "batch" else 0
    return {"kind": kind, "seconds": _seconds(trigger.within, "within"), "count": count}


# ----------------------------------------------------------------------------------------------------------------- YAML


def from_mapping(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definition of a deployment in a `penstock.yaml`, as JSON.

    Each trigger is an object with one of the keys `cron`, `every`, `on`, `webhook` or `endpoint` (with the value true),
    and the options of the class of that name.

    Raises:
        DefinitionError: a trigger has no such key, or an unknown option.
    """
    triggers: list[dict[str, Any]] = []
    listed = given.get("triggers") or []
    if not isinstance(listed, list):
        raise DefinitionError(f"deployment {name!r}: triggers must be a list")
    counts: dict[str, int] = {}
    for n, one in enumerate(listed):
        if not isinstance(one, dict):
            raise DefinitionError(f"deployment {name!r}: trigger {n + 1} must be an object such as {{every: 15m}}")
        trigger = _from_yaml(name, n, dict(one))
        kind = type(trigger).__name__.lower()
        counts[kind] = counts.get(kind, 0) + 1
        triggers.append(trigger.definition(kind if counts[kind] == 1 else f"{kind}-{counts[kind]}"))
    rules = {"notify": notify.from_yaml(f"deployment {name!r}", given["notify"])} if "notify" in given else {}
    found = {**given, "triggers": triggers, **rules}
    if isinstance(given.get("partitions"), dict):
        found["partitions"] = _yaml_partitions(name, dict(given["partitions"])).definition()
    return found


def _yaml_partitions(name: str, given: dict[str, Any]) -> Partitions:
    known = [one.name for one in dataclasses.fields(Partitions)]
    unknown = [key for key in given if key not in known]
    if unknown or "by" not in given:
        problem = f"have the unknown option {unknown[0]!r}" if unknown else "need the option by"
        raise DefinitionError(f"deployment {name!r}: partitions {problem} (options: {', '.join(known)})")
    return Partitions(**given)


def _from_yaml(name: str, n: int, given: dict[str, Any]) -> Trigger:
    if "on" in given:
        shape, given = On, {"types": given.pop("on"), **given}
    elif "cron" in given or "every" in given:
        shape = Cron
    elif "webhook" in given:
        shape, given = Webhook, {"provider": given.pop("webhook"), **given}
    elif given.get("endpoint") is True:
        shape = Endpoint
        del given["endpoint"]
    else:
        raise DefinitionError(
            f"deployment {name!r}: trigger {n + 1} needs one of the keys cron, every, on, webhook, or endpoint: true"
        )
    known = [one.name for one in dataclasses.fields(shape) if one.init]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise DefinitionError(
            f"deployment {name!r}: trigger {n + 1} has the unknown option {unknown[0]!r} (options: {', '.join(known)})"
        )
    return shape(**given)
