"""Errors show the user's code and hide the platform's."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import sdk_sample_pipelines as samples

from penstock import pipeline, step, tracebacks


@step
def failing(n: int) -> int:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


@pipeline
def failed(n: int) -> int:
    return failing(n)


def test_tracebacks_have_no_platform_frames() -> None:
    with pytest.raises(ValueError, match="outer") as caught:
        failed.local(n=1)
    text = tracebacks.user_traceback(caught.value)
    assert "local.py" not in text
    assert "penstock/authoring" not in text
    assert 'raise KeyError("inner")' in text
    assert 'raise ValueError("outer") from error' in text
    assert "direct cause" in text
    assert text.splitlines()[-2:] == ["ValueError: outer", "raised in step 'failing' of pipeline 'failed'"]
    file, line = tracebacks.where(caught.value)
    assert file == __file__
    assert line is not None
    assert 'raise ValueError("outer")' in Path(__file__).read_text().splitlines()[line - 1]


def test_the_place_of_an_error_is_the_users_line_not_a_librarys() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    file, line = tracebacks.where(caught.value)
    assert file == __file__
    assert line is not None and 'json.loads("{")' in Path(__file__).read_text().splitlines()[line - 1]


def test_long_tracebacks_are_truncated_in_the_middle() -> None:
    try:
        raise ValueError("x" * 50_000)
    except ValueError as error:
        text = tracebacks.user_traceback(error, limit=1_000)
    assert len(text) < 1_100
    assert "characters left out" in text


def test_a_syntax_error_has_its_own_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("x = 1\ny = (\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SyntaxError) as caught:
        importlib.import_module("broken_module")
    assert tracebacks.where(caught.value) == (str(tmp_path / "broken_module.py"), 2)
    assert "_gcd_import" not in tracebacks.user_traceback(caught.value)


def test_a_wrong_result_shows_only_user_code() -> None:
    with pytest.raises(TypeError) as caught:
        samples.split.split([1])
    shown = tracebacks.user_traceback(caught.value).split("TypeError")[0]
    assert "libs/sdk/penstock" not in shown
    assert "site-packages" not in shown
    assert Path(__file__).name in shown
