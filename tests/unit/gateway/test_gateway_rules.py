"""The gateway's rules without HTTP: host names, ranges, cursors, file names."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_adapters.errors import ArtifactDamagedError, ArtifactMissingError
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.run_log import FactTooLargeError
from penstock_core.errors import InvalidIdError, InvalidInputsError, PenstockError, UnavailableError
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.retention import InvalidPolicyError
from penstock_gateway.access import guard
from penstock_gateway.errors import BadReplyError, ConflictError, UnprocessableError
from penstock_gateway.http import bodies, downloads, problems
from penstock_gateway.http.problems import RequestError


def test_invalid_inputs_are_a_problem_with_each_field() -> None:
    response = problems.response_to(
        InvalidInputsError("Invalid run request for pipeline 'p'", [("inputs.n", "is missing")])
    )
    assert response is not None and response.status_code == 422
    assert orjson.loads(response.body) == {
        "type": "about:blank",
        "title": "Unprocessable",
        "status": 422,
        "detail": "Invalid run request for pipeline 'p': inputs.n: is missing",
        "errors": [{"field": "inputs.n", "message": "is missing"}],
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnavailableError("down"), 503),
        (InvalidIdError("odd"), 422),
        (UnprocessableError("odd"), 422),
        (BadReplyError("odd"), 502),
        (ArtifactMissingError("0" * 64, "store"), 404),
        (ArtifactDamagedError("0" * 64, "1" * 64, "store"), 500),
        (BusError("refused"), 502),
        (FactTooLargeError("2 MiB"), 413),
        (ConflictError("changed"), 409),
        (InvalidPolicyError("age", "odd"), 422),
        (PenstockError("a bug"), None),
        (KeyError("a bug"), None),
    ],
)
def test_the_class_of_an_error_determines_its_status(error: Exception, status: int | None) -> None:
    response = problems.response_to(error)
    assert (response and response.status_code) == status == problems.status_of(error)
    if response is not None:
        assert ("retry-after" in response.headers) == (status == 503)


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
def test_parsing_the_host_header(header: str, name: str) -> None:
    # `::1` without brackets is no valid header; however it is parsed, it must not be an allowed name.
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
def test_when_host_names_are_checked(host: str, loopback: bool) -> None:
    assert guard.is_loopback(host) == loopback
    assert (guard.allowed_names(host, []) is not None) == loopback
    assert "extra.example" in (guard.allowed_names(host, ["extra.example"]) or ())


@given(st.text(max_size=30))
def test_no_host_header_breaks_the_guard(header: str) -> None:
    guard.host_name(header)


# ------------------------------------------------------------------------------------------------------------- ranges


@given(st.integers(0, 20), st.integers(0, 30) | st.none(), st.integers(0, 30) | st.none())
def test_ranges_match_python_slices(size: int, first: int | None, last: int | None) -> None:
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
    except RequestError as problem:
        assert problem.status_code == 416
        assert not expected
    else:
        assert (None if span is None else data[slice(*span)]) == expected


@given(st.text(max_size=20))
def test_arbitrary_range_headers_never_break_a_download(text: str) -> None:
    for header in (text, f"bytes={text}"):
        try:
            span = downloads.parse_range(header, 10)
        except RequestError:
            continue
        assert span is None or 0 <= span[0] < span[1] <= 10


# -------------------------------------------------------------------------------------------------------------- names


@given(st.text(max_size=300))
def test_file_names_cannot_escape_header_or_folder(name: str) -> None:
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
def test_media_types_cannot_escape_the_header(text: str, unsafe: bool) -> None:
    about = ArtifactRef(sha256="a" * 64, size=1, media_type=text, format="pickle", unsafe=unsafe)
    found = downloads.media_type(about)
    assert found.isascii()
    assert found.isprintable()
    assert found == downloads.BYTES if unsafe else "/" in found


# ------------------------------------------------------------------------------------------------------------ cursors


# ------------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(("depth", "deep"), [(1, False), (3, False), (4, True), (50, True)])
def test_body_nesting_depth(depth: int, deep: bool) -> None:
    nested: Any = 1
    for level in range(depth):
        nested = [nested, 2] if level % 2 else {"a": nested, "b": {}}
    assert bodies.too_deep(nested, 3) == deep
