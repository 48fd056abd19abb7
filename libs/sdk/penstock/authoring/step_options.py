"""The options of steps: names, types, and their fields in the IR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from penstock.authoring import environments, options, secret_options
from penstock.authoring.environments import Environment
from penstock.authoring.options import Batch, Cache, Duration, Resources
from penstock.authoring.trace.drafts import CallOptions
from penstock_core.pipeline import ir, ir_check

RetryOn: TypeAlias = type[BaseException] | str | Sequence[type[BaseException] | str]


class StepOptions(TypedDict, total=False):
    """The options of `@step` and of `with_options`; None is the default."""

    name: str | None
    retries: int | None
    retry_delay: Duration | None
    max_retry_delay: Duration | None
    retry_jitter: float | None
    backoff: float | None
    retry_on: RetryOn | None
    timeout: Duration | None
    queue_timeout: Duration | None
    cache: bool | Cache | None
    batch: Batch | None
    nodes: int | None
    fresh_pod: bool | None
    resources: Resources | None
    pool: str | None
    priority: int | None
    concurrency: str | None
    environment: Environment | None
    secrets: Sequence[str] | Mapping[str, str] | None
    env_from: Sequence[str] | None
    env: Mapping[str, str] | None
    seed: int | None
    trigger_rule: Literal["all_succeeded", "all_done", "any_failed"] | None
    window: int | None
    min_success: float | None


def read(given: Mapping[str, Any], what: str) -> tuple[dict[str, Any], CallOptions]:
    """The options as fields of `ir.StepSpec`, and those that concern calls.

    Raises:
        DefinitionError: an option is unknown or has an invalid value; with the user's line.
    """
    options.known(given, _OPTIONS, what)
    fields: dict[str, dict[str, Any]] = {"spec": {}, "retry": {}, "call": {}}
    for name, value in given.items():
        if value is not None:
            where, into = _OPTIONS[name]
            fields[where].update(into(value))
    passed = fields["spec"].pop("env_from", ())
    if passed:
        fields["spec"]["secrets"] = (*fields["spec"].get("secrets", ()), *passed)
    return {**fields["spec"], "retry": ir.Retry(**fields["retry"])}, CallOptions(**fields["call"])


def _resources(value: Any) -> ir.Resources:
    if not isinstance(value, Resources):
        raise options.definition_error(f"resources must be Resources(cpu=…, memory=…, gpu=…), not {value!r}")
    return value.spec()


def _name(value: Any) -> dict[str, Any]:
    options.name(value, "step name")
    return {}


def _one(field: str, read: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {field: read(value)}


def _time(field: str, option: str, *, zero: bool = False) -> Callable[[Any], dict[str, Any]]:
    return _one(field, lambda value: options.duration(value, option, zero=zero))


_OPTIONS: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "name": ("spec", _name),
    "retries": ("retry", _one("retries", lambda value: options.whole(value, "retries", 0, 1000))),
    "retry_delay": ("retry", _time("delay", "retry_delay", zero=True)),
    "max_retry_delay": ("retry", _time("max_delay", "max_retry_delay", zero=True)),
    "retry_jitter": ("retry", _one("jitter", lambda value: options.number(value, "retry_jitter", 0.0, 1.0))),
    "backoff": ("retry", _one("backoff", lambda value: options.number(value, "backoff", 1.0))),
    "retry_on": ("retry", _one("on", options.exceptions)),
    "timeout": ("spec", _time("timeout", "timeout")),
    "queue_timeout": ("spec", _time("queue_timeout", "queue_timeout")),
    "cache": ("spec", options.cache),
    "batch": ("spec", _one("batch", options.batch)),
    "fresh_pod": ("spec", _one("fresh_pod", lambda value: options.flag(value, "fresh_pod"))),
    "nodes": ("spec", _one("nodes", lambda value: options.whole(value, "nodes", 1, ir_check.MAX_STEP_NODES))),
    "resources": ("spec", _one("resources", _resources)),
    "pool": ("spec", _one("pool", lambda value: options.name(value, "pool"))),
    "priority": ("spec", _one("priority", lambda value: options.whole(value, "priority", -1000, 1000))),
    "concurrency": ("spec", options.concurrency),
    "environment": ("spec", _one("environment", environments.environment)),
    "secrets": ("spec", _one("secrets", secret_options.secrets)),
    "env_from": ("spec", _one("env_from", secret_options.variables)),
    "env": ("spec", _one("env", options.environment_variables)),
    "seed": ("spec", _one("seed", lambda value: options.whole(value, "seed", 0, 2**63 - 1))),
    "trigger_rule": ("call", _one("rule", options.trigger_rule)),
    "window": ("call", _one("window", lambda value: options.whole(value, "window", 1, ir_check.MAX_WINDOW))),
    "min_success": ("call", _one("min_success", options.min_success)),
}
