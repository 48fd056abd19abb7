"""JSON Schemas of types of events: bounded, and what expressions may read of such events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_adapters.cel import CelEvaluator
from penstock_adapters.event_schemas import EventSchema, InvalidSchemaError
from penstock_core.deployments.event_types import (
    EXPANDED_LIMIT,
    cel_types,
    expression_problems,
    schema_problems,
    type_problem,
)
from penstock_core.deployments.matching import ExpressionError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["rows"],
    "properties": {
        "rows": {"type": "integer", "minimum": 0},
        "url": {"type": "string"},
        "share": {"type": "number"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "customer": {"$ref": "#/$defs/customer"},
        "extra": {"type": "object"},
    },
    "$defs": {"customer": {"type": "object", "properties": {"name": {"type": "string"}, "vip": {"type": "boolean"}}}},
}


def chain(depth: int) -> dict[str, Any]:
    """Each definition refers twice to the next: without a limit, checking takes 2**depth steps."""
    links = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{depth}": {"type": "object"}}}


def behind(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The same, reached by a property only."""
    return {"properties": {name: {"$ref": schema["$ref"]}}, "$defs": schema["$defs"]}


def nested(depth: int) -> dict[str, Any]:
    """Each level evaluates all below it twice, without a reference."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


def renamed(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    """The same with another keyword for references."""
    return json.loads(json.dumps(schema).replace("$ref", keyword))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (SCHEMA, ""),
        ({}, ""),
        ({"properties": {"id": {"type": "string"}, "$ref": {"type": "string"}}, "$id": "https://acme.example/x"}, ""),
        (nested(2), ""),
        (nested(20), f"is larger than {EXPANDED_LIMIT} subschemas"),
        (behind(chain(40), "default"), f"is larger than {EXPANDED_LIMIT} subschemas"),
        (renamed(chain(40), "$dynamicRef"), f"is larger than {EXPANDED_LIMIT} subschemas"),
        ({"properties": {"const": {"$ref": "http://elsewhere"}}}, "must refer to a part of this schema"),
        ({"allOf": [{"$ref": "#/default/a"}], "default": {"a": {"$ref": "#"}}}, "must refer to a part of this schema"),
        ({"$defs": {"a": {"$id": "https://acme.example/y"}}}, "only the whole schema can have an id"),
        ({"enum": [{"$ref": "http://elsewhere"}]}, ""),
        (chain(8), ""),
        ([], "must be an object"),
        ({"$ref": "http://elsewhere/schema.json"}, "must refer to a part of this schema"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "must refer to a part of this schema"),
        ({"$ref": "#"}, "must refer to a part of this schema"),
        ({"$dynamicRef": "#node"}, "must refer to a part of this schema"),
        ({"$ref": "#/$defs/a"}, "there is no '#/$defs/a'"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "recursive"),
        (chain(40), f"is larger than {EXPANDED_LIMIT} subschemas"),
    ],
)
def test_schemas_are_bounded(schema: Any, problem: str) -> None:
    found = [message for _, message in schema_problems(schema)]
    assert bool(found) == bool(problem)
    assert not problem or problem in found[0]


@pytest.mark.parametrize(
    ("type", "valid"),
    [("com.acme.x", True), ("com.acme.*", False), ("penstock.run.finished.v1", False), ("", False), ("a b", False)],
)
def test_types_that_can_have_a_schema(type: str, valid: bool) -> None:
    assert (type_problem(type) == "") is valid


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        ({"rows": 5, "other": 1}, {}),
        ({"rows": -1}, {"data.rows": "-1 is less than the minimum of 0"}),
        ({"rows": "5", "tags": ["a", 2]}, {"data.rows": "is not of type", "data.tags[1]": "is not of type"}),
        ({}, {"data": '"rows" is a required property'}),
        (None, {"data": "null is not of type"}),
        ({"rows": 1, "customer": {"name": 1}}, {"data.customer.name": "is not of type"}),
    ],
)
def test_data_that_does_not_fit_is_described_by_its_path(data: Any, problems: dict[str, str]) -> None:
    found = dict(EventSchema(SCHEMA).problems(data))
    assert found.keys() == problems.keys()
    assert all(text in found[path] for path, text in problems.items())


def test_a_pattern_takes_linear_time_and_a_schema_must_be_one() -> None:
    found = EventSchema({"type": "string", "pattern": "^(a+)+$"}).problems("a" * 30_000 + "!")
    assert found[0][0] == "data"
    for wrong in ({"type": "text"}, {"pattern": "("}, {"minimum": "a"}, {"pattern": r"(a)\1"}):
        with pytest.raises(InvalidSchemaError):
            EventSchema(wrong)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("data.rows > 5 && data.url.startsWith('s3://')", ""),
        ("data['rows'] > 5", ""),
        ("data.customer.name == 'a' && data.tags[0] == 'b'", ""),
        ("data.extra.anything == 1", ""),
        ("event.type == 'x' && e.data.whatever", ""),
        ("'data.nothing' == data.url", ""),
        ("data.rowz > 5", "column 6: there is no field 'rowz' (did you mean 'rows'?)"),
        ("has(data.rowz)", "column 10: there is no field 'rowz'"),
        ("data.rows > 5 &&\n  data.customer.age > 3", "line 2, column 17: there is no field 'age' (fields: name, vip)"),
        ("data['typo'] == 1", "column 6: there is no field 'typo'"),
        ("data.url == '}' && data.x", "column 25: there is no field 'x'"),
    ],
)
def test_unknown_fields_of_expressions_have_their_position(expression: str, problem: str) -> None:
    found = [*expression_problems(expression, SCHEMA)]
    assert (found[0] if found else "").startswith(problem) and bool(found) == bool(problem)


@pytest.mark.parametrize(
    "open_ended", [{"additionalProperties": True}, {"patternProperties": {"^x": {}}}, {"anyOf": []}]
)
def test_a_schema_that_allows_other_fields_knows_no_wrong_ones(open_ended: dict[str, Any]) -> None:
    assert not [*expression_problems("data.rowz > 1", SCHEMA | open_ended)]


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("data.rows > 5 && data.share < 0.5 && data.customer.vip", ""),
        ("data.rows > 0.5 && data.rows % 2 == 0", ""),
        ("has(data.rows) && data.rows > 1", ""),
        ("data.url.size() > 3 && 'a' in data.tags && size(data.extra) == 0", ""),
        ("data.rows > 'many'", "column 11: found no matching overload for '_>_' applied to '(int, string)'"),
        ("has(data.url) && data.url > 3", "column 27: found no matching overload"),
        ("data.rows == 1 &&\n data.customer.name > 1", "line 2, column 21: found no matching overload"),
    ],
)
def test_types_of_fields_are_checked_with_their_position(expression: str, problem: str) -> None:
    evaluator = CelEvaluator()
    evaluator.check(expression)
    if not problem:
        evaluator.check_types(expression, cel_types(SCHEMA))
        return
    with pytest.raises(ExpressionError) as raised:
        evaluator.check_types(expression, cel_types(SCHEMA))
    assert str(raised.value).startswith(problem)
