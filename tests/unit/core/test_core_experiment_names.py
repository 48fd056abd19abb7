"""Names of experiments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import ids, script_runs
from penstock_core.pipeline import ir_check


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("my experiment", "my-experiment"), ("fit", "fit"), ("a_b-c", "a_b-c"), ("Deep Net 3", "Deep-Net-3")],
)
def test_names_that_need_no_digest(given_name: str, name: str) -> None:
    assert script_runs.pipeline_name(given_name) == name


@pytest.mark.parametrize("given_name", ["größe", "a/b", "x" * 61, "***", "", "a.b"])
def test_altered_names_get_a_digest(given_name: str) -> None:
    assert script_runs.pipeline_name(given_name)[-9] == "-"


@given(st.text(max_size=120))
def test_every_name_is_a_valid_pipeline_name(given_name: str) -> None:
    name = script_runs.pipeline_name(given_name)
    assert ids.check_name(name) == name


@given(st.text(alphabet="ab/. -_", max_size=8), st.text(alphabet="ab/. -_", max_size=8))
def test_names_with_different_words_differ(one: str, other: str) -> None:
    if script_runs.pipeline_name(one) == script_runs.pipeline_name(other):
        assert one.replace("-", " ").split() == other.replace("-", " ").split()


def test_the_pipeline_of_a_script_is_valid() -> None:
    ir_check.check(script_runs.pipeline("fit"))
