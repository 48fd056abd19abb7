"""Several projects in one process: their modules have the same names and must not be confused."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import bundle, sources
from penstock.errors import SourceError

PIPELINE = """
from penstock import pipeline, step
from helpers import NUMBER

@step
def one() -> int:
    return NUMBER

@pipeline
def {name}():
    return one()
"""


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


def project(folder: Path, name: str, number: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "pipeline.py").write_text(PIPELINE.format(name=name))
    (folder / "helpers.py").write_text(f"NUMBER = {number}\n")
    return folder


def test_each_project_gets_its_own_modules(tmp_path: Path) -> None:
    folders = {name: project(tmp_path / name, name, number) for number, name in enumerate(["first", "second"])}
    loaded = {name: sources.load(folder) for name, folder in folders.items()}
    assert {name: one.local() for name, one in loaded.items()} == {"first": 0, "second": 1}
    prepared = {name: sources.prepare(folder) for name, folder in folders.items()}
    assert [one.ir.name for one in prepared.values()] == ["first", "second"]
    assert [one.source.root for one in prepared.values()] == list(folders.values())
    again = sources.prepare(folders["first"])
    assert again.source.digest == prepared["first"].source.digest
    assert sources.load(folders["first"]).local() == 0


def test_a_module_outside_the_projects_stays_imported(tmp_path: Path) -> None:
    folder = project(tmp_path / "x", "x", 1)
    json = sys.modules["json"]
    (folder / "json.py").write_text("")
    sources.load(folder)
    assert sys.modules["json"] is json


def test_the_root_is_the_import_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without `__init__.py`: the name of an imported module determines the root."""
    folder = project(tmp_path / "acme" / "models", "spaced", 3)
    (folder / "pipeline.py").write_text((folder / "pipeline.py").read_text().replace("from helpers", "from .helpers"))
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("acme.models.pipeline")
    prepared = sources.prepare(module.spaced)
    assert prepared.source.root == tmp_path
    assert prepared.ir.steps["one"].entrypoint == "acme.models.pipeline:one"
    assert "acme/models/pipeline.py" in prepared.source.files
    module.spaced.function.__module__ = "elsewhere"
    with pytest.raises(SourceError, match="was imported under the name 'elsewhere'"):
        sources.prepare(module.spaced)


@pytest.mark.parametrize(
    ("file", "module", "root"),
    [
        ("/a/b/c.py", "c", "/a/b"),
        ("/a/b/c.py", "b.c", "/a"),
        ("/a/b/__init__.py", "b", "/a"),
        ("/a/b/c.py", "x.c", None),
    ],
)
def test_roots(file: str, module: str, root: str | None) -> None:
    assert bundle.root_of(Path(file), module) == (Path(root) if root else None)
