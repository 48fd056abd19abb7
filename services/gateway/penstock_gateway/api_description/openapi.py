"""The API's description as OpenAPI 3.1: FastAPI's own, with the models that only content types refer to."""

from __future__ import annotations

from typing import Any, cast

import pydantic
import pydantic.json_schema
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from penstock_contracts.api import Problem
from penstock_contracts.run_history import HistoryFact, HistoryHeader
from penstock_gateway.api_description.schema_titles import tidy

_TAGS = {
    "runs": "Runs of pipelines: submit, follow, get, cancel.",
    "versions": "Registered versions of pipelines.",
    "artifacts": "Content-addressed objects.",
    "models": "Registered models: versions, aliases, gates.",
    "waits": "What steps wait for: answers to questions, events.",
    "deployments": "When pipelines run by themselves: triggers, revisions, decisions on events.",
    "backfills": "Partitions of deployments, and runs for many of them.",
    "endpoints": "Deployments as functions over HTTP.",
    "inference": "Endpoints as models of the Open Inference Protocol.",
    "webhooks": "Webhooks of other systems, each of which becomes an event.",
    "events": "Events, which start runs and which steps wait for.",
    "retention": "Retention policies and garbage collection.",
    "limits": "Limits of steps and runs that run at the same time.",
    "access": "Principals and named tokens.",
    "secrets": "Secrets that steps and deployments refer to by name.",
    "console": "Sessions of browsers.",
    "platform": "The platform itself.",
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the whole document of an application."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        servers=[{"url": "http://127.0.0.1:8765", "description": "a platform on this machine (`penstock up`)"}],
        separate_input_output_schemas=False,
    )
    for path, item in cast("dict[str, dict[str, dict[str, Any]]]", found["paths"]).items():
        for operation in item.values():
            given = [one for one in operation.get("parameters", []) if not _repeats_path(path, one)]
            operation["parameters"] = [_parameter(one) for one in given]
    models = [(model, "validation") for model in (Problem, HistoryHeader, HistoryFact)]
    _, extra = pydantic.json_schema.models_json_schema(cast("Any", models), ref_template="#/components/schemas/{model}")
    schemas = found["components"]["schemas"] | extra["$defs"]
    found["components"]["schemas"] = {name: tidy(schema) for name, schema in sorted(schemas.items())}
    return found


def _repeats_path(path: str, parameter: dict[str, Any]) -> bool:
    """Return whether a parameter is the header of the project, in a path that has the project."""
    return "{project}" in path and parameter["name"] == "penstock-project"


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter described once; one that may be omitted cannot be null."""
    schema = cast("dict[str, Any]", tidy(parameter["schema"]))
    schema.pop("description", None)
    options = [one for one in schema.pop("anyOf", []) if one != {"type": "null"}]
    return parameter | {"schema": schema | (options[0] if len(options) == 1 else {})}
