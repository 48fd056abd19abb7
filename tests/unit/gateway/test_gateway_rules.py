"""The gateway's rules without HTTP: inputs, host names, ranges, cursors, file names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.pipeline.ir import Port
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored
from penstock_gateway.http import bodies, downloads, guard
from penstock_gateway.http.problems import InvalidInputsError, ProblemError
from penstock_gateway.runs import inputs

# ------------------------------------------------------------------------------------------------------------- inputs

INT, TEXT = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        (3, INT, None),
        (3.0, INT, "must be an integer, not 3.0"),
        (True, INT, "must be an integer, not true"),
        ("3", INT, 'must be an integer, not "3"'),
        (None, INT, "must be an integer, not null"),
        (3, {"type": "number"}, None),
        (2.5, {"type": "number"}, None),
        (False, {"type": "number"}, "must be a number, not false"),
        (False, {"type": "boolean"}, None),
        (0, {"type": "boolean"}, "must be true or false, not 0"),
        ("x", TEXT, None),
        (None, {"type": "null"}, None),
        ([1], {"type": "array"}, None),
        ({}, {"type": "array"}, "must be a list, not {}"),
        ([1, "x"], {"type": "array", "items": INT}, '[1] must be an integer, not "x"'),
        (
            [[1], [None]],
            {"type": "array", "items": {"type": "array", "items": INT}},
            "[1][0] must be an integer, not null",
        ),
        ({"a": 1}, {"type": "object", "additionalProperties": INT}, None),
        ({"a": "1"}, {"type": "object", "additionalProperties": INT}, 'a must be an integer, not "1"'),
        ({"a": 1}, {"type": "object", "properties": {"a": TEXT}}, "a must be text, not 1"),
        ({"b": 1}, {"type": "object", "properties": {}, "additionalProperties": False}, "b is not known here"),
        ({}, {"type": "object", "required": ["a"]}, "a is missing"),
        ([{"a": 1}], {"items": {"properties": {"a": TEXT}}}, "[0].a must be text, not 1"),
        ("b", {"enum": ["a", "b"]}, None),
        ("c", {"enum": ["a", "b"]}, 'must be one of "a", "b", not "c"'),
        (True, {"enum": [1]}, "must be one of 1, not true"),
        (1, {"const": 1}, None),
        (2, {"const": 1}, "must be 1, not 2"),
        (None, {"anyOf": [INT, {"type": "null"}]}, None),
        ("x", {"anyOf": [INT, {"type": "null"}]}, 'must be an integer or null, not "x"'),
        (
            [1, "x"],
            {"anyOf": [{"type": "array", "items": TEXT}, {"type": "null"}]},
            'must be a list or null, not [1,"x"]',
        ),
        ("x", {"type": ["integer", "string"]}, None),
        (1.5, {"type": ["integer", "string"]}, "must be an integer or text, not 1.5"),
        ("x" * 100, INT, f'must be an integer, not text ("{"x" * 39}…)'),
        ("anything", None, None),
        ("anything", {}, None),
        ("anything", {"$ref": "#/$defs/X"}, None),
        ("x", {"type": "odd"}, None),
    ],
)
def test_types_of_inputs(value: Any, schema: dict[str, Any] | None, words: str | None) -> None:
    assert inputs.mismatch(value, schema) == words


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


KEYWORDS = ["type", "enum", "const", "items", "properties", "required", "additionalProperties", "anyOf"]
SCHEMAS = st.recursive(
    JSON,
    lambda inner: st.dictionaries(st.sampled_from(KEYWORDS), inner | st.lists(inner, max_size=2), max_size=4),
    max_leaves=6,
)


@given(JSON, SCHEMAS)
def test_no_value_and_no_schema_break_the_check(value: Any, schema: Any) -> None:
    """The schema in a registered version may be anything."""
    inputs.mismatch(value, schema)
    inputs.mismatch([value], {"items": schema})
    inputs.mismatch({"a": value}, {"properties": {"a": schema}, "required": ["a"]})


def test_defaults_are_filled_in_and_order_is_the_pipelines() -> None:
    params = (Port(name="a"), Port(name="b", required=False, default=[1]), Port(name="c", required=False))
    found = inputs.check("p", params, {"c": {"artifact": "mine"}, "a": None})
    assert list(found.items()) == [("a", Inline(None)), ("b", Inline([1])), ("c", Inline({"artifact": "mine"}))]


def test_a_reference_to_an_artifact() -> None:
    params = (Port(name="a", schema=INT),)
    reference = {"sha256": "0" * 64, "size": 3}
    assert inputs.check("p", params, {"a": {"artifact": reference}}) == {
        "a": Stored(ArtifactRef(sha256="0" * 64, size=3, media_type="application/octet-stream", format="file"))
    }
    for wrong in ({"sha256": "0" * 64}, reference | {"sha256": "0" * 63}, reference | {"size": "many"}):
        with pytest.raises(InvalidInputsError) as caught:
            inputs.check("p", params, {"a": {"artifact": wrong}})
        assert [field for field, _ in caught.value.errors] == ["inputs.a"]


@pytest.mark.parametrize(("length", "fits"), [(64 * 1024 - 2, True), (64 * 1024 - 1, False)])
def test_the_limit_of_an_inline_value(length: int, fits: bool) -> None:
    params = (Port(name="a"),)
    if fits:
        inputs.check("p", params, {"a": "x" * length})
    else:
        with pytest.raises(InvalidInputsError):
            inputs.check("p", params, {"a": "x" * length})


# -------------------------------------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:80", "localhost"),
        ("localhost.", "localhost"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("::1", "::1"),
        ("a:b", "a:b"),
        ("", ""),
        (" localhost ", "localhost"),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    # `::1` without brackets is no valid header; whatever it is read as, it must be no allowed name.
    found = guard.host_name(header)
    assert found == name or (header == "::1" and found not in (guard.allowed_names("127.0.0.1", []) or ()))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - a name to judge, nothing is bound to it
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_where_names_are_checked(host: str, loopback: bool) -> None:
    assert guard.is_loopback(host) == loopback
    assert (guard.allowed_names(host, []) is not None) == loopback
    assert "extra.example" in (guard.allowed_names(host, ["extra.example"]) or ())


@given(st.text(max_size=30))
def test_no_host_header_breaks_the_guard(header: str) -> None:
    guard.host_name(header)


# ------------------------------------------------------------------------------------------------------------- ranges


@given(st.integers(0, 20), st.integers(0, 30) | st.none(), st.integers(0, 30) | st.none())
def test_a_range_is_what_slicing_says(size: int, first: int | None, last: int | None) -> None:
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    data = bytes(range(size))
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        expected = None
    elif first is None:
        assert last is not None
        expected = data[max(0, size - last) :]
    else:
        expected = data[first : size if last is None else last + 1]
    try:
        span = downloads.parse_range(text, size)
    except ProblemError as problem:
        assert problem.status == 416
        assert not expected
    else:
        assert (None if span is None else data[slice(*span)]) == expected


@given(st.text(max_size=20))
def test_no_range_header_breaks_a_download(text: str) -> None:
    for header in (text, f"bytes={text}"):
        try:
            span = downloads.parse_range(header, 10)
        except ProblemError:
            continue
        assert span is None or 0 <= span[0] < span[1] <= 10


# -------------------------------------------------------------------------------------------------------------- names


@given(st.text(max_size=300))
def test_no_file_name_leaves_its_header_or_its_folder(name: str) -> None:
    about = ArtifactRef(sha256="a" * 64, size=1, media_type="text/plain", format="file", filename=name)
    header = downloads.disposition(about, "a" * 64)
    assert header.startswith('attachment; filename="')
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert not {"/", "\\"} & set(header.partition("*=")[0])
    plain = header.split('"')[1]
    assert plain
    assert not plain.startswith(".")


@given(st.text(max_size=60), st.booleans())
def test_no_media_type_leaves_its_header(text: str, unsafe: bool) -> None:
    about = ArtifactRef(sha256="a" * 64, size=1, media_type=text, format="pickle", unsafe=unsafe)
    found = downloads.media_type(about)
    assert found.isascii()
    assert found.isprintable()
    assert found == downloads.BYTES if unsafe else "/" in found


# ------------------------------------------------------------------------------------------------------------ cursors


# ------------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(("depth", "deep"), [(1, False), (3, False), (4, True), (50, True)])
def test_depth_of_a_body(depth: int, deep: bool) -> None:
    nested: Any = 1
    for level in range(depth):
        nested = [nested, 2] if level % 2 else {"a": nested, "b": {}}
    assert bodies.too_deep(nested, 3) == deep
