"""Misspelt fields and parameters are refused by every operation, and named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from gateway_platform import SOURCE, Http, chain

from penstock_gateway.versions.pipeline_versions import unknown_fields

pytestmark = pytest.mark.asyncio(loop_scope="module")

API: dict[str, Any] = json.loads((Path(__file__).parents[3] / "proto" / "openapi.json").read_text())
SCHEMAS: dict[str, Any] = API["components"]["schemas"]
JSON = "application/json"

FREE = {
    "PUT /v1/artifacts/{sha256}": "bytes",
    "POST /v1/answers/{token}": "a form: see test_gateway_answer_links.py",
    "POST /v1/events": "an event has any extension attributes, its data any fields",
    "POST /v1/endpoints/{project}/{name}": "the inputs of the pipeline, which are checked with it",
    "POST /v2/models/{name}/infer": "the Open Inference Protocol lets clients add fields",
    "POST /v1/webhooks/{project}/{name}": "what the sender defines",
    "POST /v1/webhooks/{project}/{name}/{trigger}": "what the sender defines",
}
"""Operations whose body is not an object with known fields."""

VALUES = {"run_id": "r", "key": "k", "number": "1", "version": "1", "sha256": "0" * 64, "job": "a" * 26}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in API["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


WITH_BODY = [(method, path) for method, path, operation in operations() if "requestBody" in operation]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects with known fields in a schema."""
    match schema:
        case {"$ref": str(reference)}:
            yield from objects(SCHEMAS[reference.rpartition("/")[2]])
        case {"properties": dict(fields)}:
            yield schema
            for field in fields.values():
                yield from objects(field)
        case dict():
            for part in schema.values():
                yield from objects(part)
        case list():
            for part in schema:
                yield from objects(part)
        case _:
            pass


@pytest.mark.parametrize(("method", "path"), WITH_BODY, ids=lambda one: str(one))
async def test_bodies(http: Http, method: str, path: str) -> None:
    if f"{method} {path}" in FREE:
        return
    [schema] = [one["schema"] for one in API["paths"][path][method.lower()]["requestBody"]["content"].values()]
    found = list(objects(schema))
    assert found, "an object with known fields"
    assert all(one.get("additionalProperties") is False for one in found)
    address = re.sub(r"{(\w+)}", lambda name: VALUES.get(name.group(1), "name"), path)
    answer = await http(method, address, {"misspelt": 1})
    assert answer.status == 422 and "misspelt" in answer.fields, answer.body


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for method, path, _ in operations() if path.startswith("/v1") and "answers" not in path],
    ids=lambda one: str(one),
)
async def test_parameters(http: Http, method: str, path: str) -> None:
    address = re.sub(r"{(\w+)}", lambda name: VALUES.get(name.group(1), "name"), path)
    if path in ("/v1/admin/rebuild",) and method == "POST":
        return
    answer = await http(method, f"{address}?misspelt=1", {} if method in ("POST", "PUT") else None)
    assert answer.status == 422, answer.body
    if method != "HEAD":
        assert "query.misspelt" in answer.fields, answer.body
        assert "is unknown (parameters: " in answer.json()["detail"]


async def test_nested_objects(http: Http) -> None:
    body = {
        "pipeline": orjson.loads(orjson.dumps(chain("nested"))),
        "source": SOURCE,
        "environment": {"version": "3.11", "digest": "0" * 64, "misspelt": 1},
        "interpreter": {"python": "/usr/bin/python3", "misspelt": 1},
        "git": {"commit": "c" * 40, "misspelt": 1},
    }
    answer = await http("POST", "/v1/versions", body)
    assert answer.fields == {f"{name}.misspelt" for name in ("environment", "interpreter", "git")}


async def test_pipelines(http: Http) -> None:
    pipeline = orjson.loads(orjson.dumps(chain("unknown")))
    pipeline["steps"]["double"]["misspelt"] = 1
    pipeline["nodes"][1]["inputs"]["n"]["misspelt"] = 1
    pipeline["params"][0]["schema"]["misspelt"] = "schemas are free"
    body = {"pipeline": pipeline, "source": SOURCE, "environment": {"version": "3.11", "digest": "0" * 64}}
    answer = await http("POST", "/v1/versions", body)
    assert answer.status == 422
    assert answer.fields == {"pipeline.steps.double.misspelt", "pipeline.nodes.1.inputs.n.misspelt"}


async def test_unknown_fields_are_named_by_path() -> None:
    assert list(unknown_fields({"a": [{"b": 1, "c": 2}], "d": 1}, {"a": ({"b": 1},), "e": 1})) == [
        "pipeline.a.0.c",
        "pipeline.d",
    ]
