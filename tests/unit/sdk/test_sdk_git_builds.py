"""What builders do with a checked out repository: what is packed, and what is refused."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.git_builds import pack
from penstock_core.errors import DefinitionError

FLOW = """
from penstock import pipeline, step


@step
def first() -> int:
    return 1


@pipeline
def training():
    return first()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    (made / "pipeline.py").write_text(FLOW)
    return made


@pytest.mark.parametrize("option", ["-r ", "--requirement ", "-c "])
@pytest.mark.parametrize("absolute", [True, False])
def test_requirements_cannot_include_files_of_the_builder(
    checkout: Path, tmp_path: Path, option: str, absolute: bool
) -> None:
    """They would become the names of distributions in errors and locks."""
    secret = tmp_path / "secret"
    secret.write_text("seed=SUABC")
    (checkout / "requirements.txt").write_text(f"{option}{secret if absolute else '../secret'}")
    with pytest.raises(DefinitionError, match="not in the repository") as refused:
        pack.pack(checkout, "", tmp_path / "bundle")
    assert "SUABC" not in str(refused.value)


def test_requirements_include_files_of_the_repository(checkout: Path, tmp_path: Path) -> None:
    (checkout / "train").mkdir()
    (checkout / "pipeline.py").rename(checkout / "train" / "pipeline.py")
    (checkout / "base.txt").write_text("attrs")
    (checkout / "train" / "requirements.txt").write_text("-r ../base.txt")
    found = pack.pack(checkout, "train", tmp_path / "bundle")
    assert found["environment"]["requirements"] == ("attrs",)


def packed(checkout: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    order = {"checkout": str(checkout), "path": "", "bundle": str(target)}
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order)))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=output))
    pack.main()
    return json.loads(output.getvalue().decode())


def test_names_that_are_not_utf_8_are_refused_or_shown(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Path(os.fsdecode(os.fsencode(checkout) + b"/bad\xff.txt"))
    named.write_text("x")
    assert "is not UTF-8" in packed(checkout, tmp_path / "bundle", monkeypatch)["error"]
    named.write_bytes(b"x" * 2_000_000)  # not packed, but named in a warning
    assert "bad?.txt" in packed(checkout, tmp_path / "bundle", monkeypatch)["warnings"][0]
