"""JSON Schemas of events and commands, from the types that the code parses them with."""

from __future__ import annotations

from typing import Any, cast

import pydantic

from penstock_contracts import commands, fact_codec, model_fact_codec, previews, retention
from penstock_core import ids
from penstock_core.facts import Fact
from penstock_core.registry.facts import MOST, ModelFact
from penstock_gateway.api_description.schema_titles import tidy

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BASE = "https://penstock.dev/schemas"

COMMANDS: tuple[type[pydantic.BaseModel], ...] = (
    commands.RegisterVersion,
    commands.VersionReply,
    commands.Version,
    commands.Locate,
    commands.Location,
    commands.Complete,
    commands.StoreInfo,
    previews.MakePreview,
    previews.PreviewReply,
    retention.JanitorJob,
    retention.JanitorReply,
    retention.JanitorReport,
    retention.DeleteRun,
    retention.DeleteReply,
    commands.Parked,
    commands.AttemptOutput,
    commands.AttemptProgress,
    commands.Measurements,
    commands.Replica,
    commands.Replicas,
    commands.Tick,
)

NAME = ids.NAME_PATTERN
STEP_KEY = r"^[A-Za-z0-9_][A-Za-z0-9_/-]{0,199}(\[[0-9]{1,9}\])*$"

# What the constructors of facts check, as JSON Schema.
_RULES: dict[str, dict[str, Any]] = {
    "run_id": {"pattern": NAME},
    "project": {"pattern": NAME},
    "pipeline": {"pattern": NAME},
    "pool": {"pattern": NAME},
    "key": {"pattern": STEP_KEY},
    "attempt": {"minimum": 1, "maximum": 1_000_000},
    "name": {"pattern": NAME},
    "model": {"pattern": NAME},
    "alias": {"pattern": NAME},
    "revision": {"minimum": 1, "maximum": MOST},
}


_UNCHECKED = {
    "penstock.attempt.requested.v1": {"project", "pipeline"},
    "penstock.step.suspended.v1": {"project"},
    "penstock.model.registered.v1": {"run_id", "key", "attempt", "pipeline"},
}
"""Fields that are copied from facts that checked them."""


def event_file(fact: type[Fact] | type[ModelFact]) -> str:
    """Return the file name of an event's schema: its type, which includes the version."""
    return f"{fact.ce_type}.json"


def command_file(model: type[pydantic.BaseModel]) -> str:
    """Return the file name of a command's schema."""
    return f"{model.__name__}.v1.json"


def event(fact: type[Fact] | type[ModelFact]) -> dict[str, Any]:
    """Return the schema of an event's body. Consumers ignore unknown fields."""
    adapters: dict[Any, Any] = {**fact_codec.ADAPTERS, **model_fact_codec.ADAPTERS}
    schema = tidy(adapters[fact].json_schema())
    properties = cast("dict[str, dict[str, Any]]", schema["properties"])
    for name in _RULES.keys() & properties.keys() - _UNCHECKED.get(fact.ce_type, set()):
        properties[name] |= _RULES[name]
    return _headed(schema, f"{BASE}/events/{event_file(fact)}")


def command(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    """Return the schema of a command's body."""
    return _headed(tidy(model.model_json_schema()), f"{BASE}/commands/{command_file(model)}")


def _headed(schema: dict[str, Any], ident: str) -> dict[str, Any]:
    first = {"$schema": DIALECT, "$id": ident, "title": schema["title"], "description": schema.get("description", "")}
    return first | {name: value for name, value in schema.items() if name not in first}
