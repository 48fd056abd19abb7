"""The JSON Schema of a `penstock.yaml`, by which editors complete and check it.

It is made from the classes of triggers, so it has their options and descriptions.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from penstock.authoring.deployments import Cron, Deployment, Endpoint, Late, On, Partitions, Webhook
from penstock.authoring.notify import Notify
from penstock_core.deployments import notify_rules, webhooks
from penstock_core.deployments.partitions import PartitionKind
from penstock_core.pipeline.ir import Overlap

_TEXT = {"type": "string"}
_DURATION = {"type": ["string", "number"], "description": "seconds, or text such as 90s, 10m, 1h30m"}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_EXPRESSIONS = {"type": "object", "additionalProperties": _TEXT}

_TYPES: dict[str, dict[str, Any]] = {
    "str": _TEXT,
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "int | None": {"type": ["integer", "null"]},
    "Duration": _DURATION,
    "Duration | None": _DURATION,
    "datetime | str | None": {"type": "string", "format": "date-time"},
    "str | Sequence[str]": _TEXTS,
    "Inputs": {"anyOf": [_EXPRESSIONS, _TEXT]},
    "Mapping[str, str]": _EXPRESSIONS,
    "Mapping[str, Any]": {"type": "object"},
    "Mapping[str, Duration]": {"type": "object", "additionalProperties": _DURATION},
    "Mapping[str, Any] | None": {
        "type": "object",
        "required": ["version"],
        "properties": {"version": {"type": "integer"}, "weight": {"type": "number"}},
    },
    "date | str | None": {"type": "string", "format": "date"},
    "Sequence[str]": {"type": "array", "items": _TEXT},
}
"""By the annotation of a field."""

_VALUES = {
    "catchup": ["none", "latest", "all"],
    "provider": [one.value for one in webhooks.Provider],
    "Partitions.by": [one.value for one in PartitionKind],
    "algorithm": [*webhooks.ALGORITHMS],
    "mode": ["elastic", "low_latency"],
    "overlap": [one.value for one in Overlap],
    "kind": [one.value for one in notify_rules.NotifyKind],
}

_RENAMED = {"types": "on", "provider": "webhook"}
"""Fields that are keys under another name, by which the kind of a trigger is known."""

_NOT_WRITTEN = ("name", "pipeline", "triggers", "notify", "late", "file", "line")


def schema() -> dict[str, Any]:
    """Return the schema, JSON Schema 2020-12."""
    triggers = [
        _trigger(On, "on"),
        _trigger(Cron, "cron"),
        _trigger(Cron, "every"),
        _trigger(Webhook, "webhook"),
        _trigger(Endpoint, "endpoint"),
    ]
    fields = _fields(Deployment)
    deployment = {
        "type": "object",
        "required": ["pipeline"],
        "additionalProperties": False,
        "properties": {
            "pipeline": {**_TEXT, "description": "name of a published pipeline"},
            "triggers": {"type": "array", "items": {"anyOf": triggers}},
            "late": {
                "type": "object",
                "additionalProperties": False,
                "properties": _fields(Late),
                "description": "when a run is late",
            },
            "notify": {"type": "array", "items": _rule(), "description": "whom the deployment notifies of what"},
            **{name: one for name, one in fields.items() if name not in _NOT_WRITTEN},
            "partitions": {
                "type": "object",
                "description": "the parts of its data, one of which each run computes",
                "required": ["by"],
                "additionalProperties": False,
                "properties": _fields(Partitions),
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "penstock.yaml",
        "description": "Deployments and notification rules, applied by `penstock apply`",
        "type": "object",
        "anyOf": [{"required": ["deployments"]}, {"required": ["notify"]}],
        "properties": {
            "project": {"type": "string", "description": "project of commands in this folder; by default `default`"},
            "deployments": {"type": "object", "additionalProperties": deployment},
            "notify": {
                "type": "array",
                "items": _rule(),
                "description": "whom runs of all deployments of the project notify of what",
            },
        },
    }


def _rule() -> dict[str, Any]:
    found = _fields(Notify)
    on = {"enum": [one.value for one in notify_rules.NotifyOn]}
    found["on"] = {**found["on"], "anyOf": [on, {"type": "array", "items": on}]}
    return {"type": "object", "required": ["kind"], "additionalProperties": False, "properties": found}


def _trigger(shape: type[Any], key: str) -> dict[str, Any]:
    found = _fields(shape)
    if shape is Endpoint:
        found["endpoint"] = {"const": True, "description": "run for HTTP requests"}
    summary = inspect.cleandoc(shape.__doc__ or "").splitlines()[0]
    return {
        "type": "object",
        "title": key,
        "description": summary,
        "required": [key],
        "additionalProperties": False,
        "properties": found,
    }


def _fields(shape: type[Any]) -> dict[str, Any]:
    described = dict(re.findall(r"^ +([\w, ]+): (.*)$", shape.__doc__ or "", re.MULTILINE))
    texts = {name.strip(): text for names, text in described.items() for name in names.split(",")}
    found: dict[str, Any] = {}
    for one in dataclasses.fields(shape):
        if str(one.type) in _TYPES:
            allowed = _VALUES.get(one.name) or _VALUES.get(f"{shape.__name__}.{one.name}")
            values = {"enum": allowed} if allowed else {}
            text = {"description": texts[one.name]} if one.name in texts else {}
            found[_RENAMED.get(one.name, one.name)] = {**_TYPES[str(one.type)], **values, **text}
    return found
