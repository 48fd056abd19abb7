"""The API's description as OpenAPI 3.1, from the routes and the models of the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pydantic
import pydantic.json_schema
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from penstock_contracts import access, api, commands, limits, models, previews, retention, run_history, tracking, waits
from penstock_gateway.describe import responses
from penstock_gateway.describe.schemas import tidy

_BODIES: tuple[type[pydantic.BaseModel], ...] = (
    api.RegisterBody,
    api.RunBody,
    api.RerunBody,
    api.CancelBody,
    api.VersionRegistered,
    api.RunAccepted,
    api.ItemPage,
    api.RunPage,
    api.Lineage,
    api.RebuildAccepted,
    api.RunView,
    api.RunReasons,
    api.VersionView,
    commands.Schedule,
    limits.LimitBody,
    limits.LimitView,
    limits.LimitList,
    models.RegisterModelBody,
    models.RegisteredModel,
    models.PromoteBody,
    models.PromotionResult,
    models.GateBody,
    models.ArchiveBody,
    models.ModelVersionView,
    models.ModelView,
    models.ModelList,
    models.ModelHistory,
    retention.RetentionSettings,
    retention.SetPolicy,
    retention.ArchiveAfterBody,
    retention.CollectBody,
    retention.RestoreBody,
    retention.JanitorReport,
    previews.Preview,
    access.WhoAmI,
    access.CreateTokenBody,
    access.TokenView,
    access.TokenCreated,
    access.TokenList,
    waits.AnswerBody,
    waits.AnswerAccepted,
    waits.AnswerLinks,
    waits.QuestionList,
    waits.EventAccepted,
    waits.StepCancelResult,
    tracking.SeriesPage,
    tracking.Comparison,
    run_history.HistoryHeader,
    run_history.HistoryFact,
)


def document(app: FastAPI, routers: Sequence[APIRouter]) -> dict[str, Any]:
    """The whole document of an application that includes `routers`."""
    found = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=[
            {"name": "runs", "description": "Runs of pipelines: ask, follow, read, cancel."},
            {"name": "versions", "description": "Registered versions of pipelines."},
            {"name": "artifacts", "description": "Content-addressed objects."},
            {"name": "models", "description": "Registered models: versions, aliases, gates."},
            {"name": "waits", "description": "What steps wait for: answers to questions, events."},
            {"name": "schedules", "description": "Runs by the clock."},
            {"name": "retention", "description": "What is kept and for how long; collections."},
            {"name": "limits", "description": "How many steps may run at the same time."},
            {"name": "platform", "description": "The platform itself."},
        ],
        servers=[{"url": "http://127.0.0.1:8765", "description": "a platform on this machine (`penstock up`)"}],
    )
    paths = cast("dict[str, dict[str, dict[str, Any]]]", found["paths"])
    for route in (route for router in routers for route in router.routes if isinstance(route, APIRoute)):
        for method in route.methods or ():
            operation = paths[route.path_format][method.lower()]
            # FastAPI adds answers of its own, which are not those of this API.
            operation["responses"] = (route.openapi_extra or {})["responses"]
            operation["parameters"] = [_parameter(one) for one in operation.get("parameters", [])]
    shown = [(model, "validation") for model in (*_BODIES, *responses.MODELS)]
    _, schemas = pydantic.json_schema.models_json_schema(
        cast("Any", shown), ref_template="#/components/schemas/{model}"
    )
    found["components"] = {
        "schemas": {name: tidy(schema) for name, schema in sorted(schemas["$defs"].items())},
        "securitySchemes": {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "the token of the platform: the file `token` in its state folder",
            }
        },
    }
    found["security"] = [{"token": []}]
    return found


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter as people write it: described once, and optional by being left out, since none can be null."""
    schema = cast("dict[str, Any]", tidy(parameter["schema"]))
    schema.pop("description", None)
    options = [one for one in schema.pop("anyOf", []) if one != {"type": "null"}]
    return parameter | {"schema": schema | (options[0] if len(options) == 1 else {})}
