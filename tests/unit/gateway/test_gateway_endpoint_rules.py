"""Rules of endpoints without I/O: the rate limit, and the descriptions of bodies and answers."""

from __future__ import annotations

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.serialize import files, formats
from penstock_core.deployments.definition import Definition
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import BoundItems, Output, Param
from penstock_gateway.endpoints import input_rules, interface
from penstock_gateway.rate_limit import TokenBucket

DEFINITION = Definition(pipeline="scoring", inputs={"label": "x"})
PIPELINE = ir.Pipeline(
    name="scoring",
    params=(
        ir.Port(name="rows", type="list[float]", schema={"type": "array", "items": {"type": "number"}}),
        ir.Port(name="photo", type="Path"),
        ir.Port(name="label", type="str", schema={"type": "string"}),
        ir.Port(name="depth", type="int", required=False, default=3, schema={"type": "integer"}),
    ),
    steps={
        "score": ir.StepSpec(
            name="score", entrypoint="m:f", outputs=(ir.Port(name="result", type="int", schema={"type": "integer"}),)
        ),
        "draw": ir.StepSpec(name="draw", entrypoint="m:g", outputs=(ir.Port(name="result", type="Path"),)),
    },
    nodes=(
        ir.Node(key="score", step="score"),
        ir.Node(key="many", step="score", mapped=ir.MapSpec(over=("n",))),
        ir.Node(key="draw", step="draw"),
    ),
    outputs={"a": BoundItems((Output("score"), Output("many"))), "b": Output("draw"), "c": Param("label")},
)


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 10), max_size=200))
def test_a_bucket_accepts_its_rate_and_says_when_to_come_again(rate: float, pauses: list[float]) -> None:
    now = 100.0
    bucket = TokenBucket.full(rate, now)
    accepted = 0
    for pause in pauses:
        now += pause
        seconds = bucket.take(now)
        assert 0 <= seconds <= 1 / rate + 1e-9
        accepted += seconds == 0
        assert accepted <= max(rate, 1) + (now - 100) * rate + 1e-6
    seconds = bucket.take(now)
    if seconds:
        assert bucket.take(now + seconds + 1e-6) == 0


def test_the_schema_of_a_body_knows_files_defaults_and_inputs_of_the_deployment() -> None:
    schema = interface.input_schema(PIPELINE, DEFINITION)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["rows", "photo"]
    assert schema["properties"]["label"] == {"type": "string", "description": "str", "default": "x"}
    assert schema["properties"]["depth"]["default"] == 3
    assert schema["properties"]["photo"]["required"] == ["artifact"]
    reference = {"artifact": {"sha256": "0" * 64, "size": 1}}
    jsonschema.validate({"rows": [1.5], "photo": reference}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rows": ["x"], "photo": reference}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rows": [], "photo": reference, "unknown": 1}, schema)


def test_the_schema_of_an_answer_follows_the_outputs() -> None:
    schema = interface.output_schema(PIPELINE)
    jsonschema.Draft202012Validator.check_schema(schema)
    link = {"href": "/x", "sha256": "0", "size": 1, "media_type": "a/b"}
    jsonschema.validate({"a": [1, [1, 2]], "b": link, "c": "x"}, schema)
    for wrong in ({"a": [1, 2], "b": link, "c": "x"}, {"a": [1, []], "b": "x", "c": "x"}, {"a": [1, []], "b": link}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_openapi_document_offers_parts_for_files() -> None:
    document = interface.openapi("scorer", "http://h", "/v1/endpoints/default/scorer", PIPELINE, DEFINITION)
    content = document["paths"]["/v1/endpoints/default/scorer"]["post"]["requestBody"]["content"]
    parts = content["multipart/form-data"]["schema"]["properties"]
    assert parts["photo"] == {"type": "string", "format": "binary"}
    assert parts["rows"]["type"] == "array"
    assert content["application/json"]["example"] == {"rows": [], "photo": "text", "label": "x", "depth": 3}


def test_formats_that_callers_may_give_run_no_code() -> None:
    loaded = input_rules.DATA_FORMATS - {files.FILE, files.FOLDER}
    assert [name for name in sorted(loaded) if formats.FORMATS[name].unsafe] == []
