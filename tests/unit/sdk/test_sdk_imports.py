"""Which project modules a module imports, transitively, and which constructs make the whole bundle count."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.bundle.imports import ImportClosure, ProjectModules

PROJECT = {
    "pipeline.py": "import json\nimport numpy\nfrom features import steps\nfrom features.models import Model\n",
    "features/__init__.py": "",
    "features/steps.py": "def late():\n    from . import helpers\n    import other.deep\n",
    "features/models.py": "class Model: ...\n",
    "features/helpers.py": "from ..pipeline import json\n",
    "features/unused.py": "",
    "other/deep.py": "",
    "unrelated.py": "import features.unused\n",
    "notes.md": "",
    "data/small.csv": "",
    "plain/__init__.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    return tmp_path / "root"


def closure(root: Path, module: str = "pipeline") -> ImportClosure:
    return ProjectModules(root).closure(module)


def test_a_closure_contains_direct_and_transitive_imports(root: Path) -> None:
    found = closure(root)
    assert list(found.modules) == [
        "features",
        "features.helpers",
        "features.models",
        "features.steps",
        "other.deep",
        "pipeline",
    ]
    assert found.dynamic == ""
    # The packages around a module are executed before it.
    assert list(closure(root, "features.models").modules) == ["features", "features.models"]


def test_only_modules_of_the_closure_change_the_digest(root: Path) -> None:
    before = closure(root).digest("bundle")
    (root / "unrelated.py").write_text("changed = 1")
    (root / "new.py").write_text("")
    (root / "notes.md").write_text("changed")
    assert closure(root).digest("other bundle") == before
    (root / "other/deep.py").write_text("changed = 1")
    assert closure(root).digest("bundle") != before


def test_the_bundle_counts_for_dynamic_code(root: Path) -> None:
    (root / "features/steps.py").write_text("exec('x = 1')")
    assert closure(root).digest("bundle") != closure(root).digest("other bundle")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("exec('x = 1')", "it uses exec"),
        ("from importlib import import_module\nimport_module(name)", "a computed name"),
        ("import importlib\nimportlib.import_module('.x', __package__)", "a computed name"),
        ("import importlib.util as u", "it imports importlib.util"),
        ("from importlib import resources", "importlib.resources"),
        ("import runpy", "it imports runpy"),
        ("import subprocess", "it imports subprocess"),
        ("import os\ndef f():\n    os.execv('a', [])", "it uses os.execv"),
        ("import sys\nsys.path.insert(0, 'lib')", "it uses sys.path"),
        ("from sys import modules", "it uses sys.modules"),
        ("from pathlib import Path\nHERE = Path(__file__).parent", "it uses __file__"),
        ("import features\nfeatures.__path__", "__path__"),
        ("CONFIG = open(name + '.json').read()", "reads files while it is imported"),
        ("import pandas\nTABLE = pandas.read_csv(name)", "reads files while it is imported"),
        ("def f():\n    return 'notes.md'", "it names 'notes.md'"),
        ("def f():\n    return 'data'", "it names 'data'"),
        ("def f():\n    return './data/small.csv'", "it names './data/small.csv'"),
        ("x = (", "cannot be parsed"),
    ],
)
def test_dynamic_constructs_are_reported_with_their_line(root: Path, source: str, reason: str) -> None:
    (root / "features/steps.py").write_text(source)
    found = closure(root)
    assert reason in found.dynamic
    assert found.dynamic.startswith(f"{root / 'features/steps.py'}:")


@pytest.mark.parametrize(
    "source",
    [
        '"""Reads notes.md with exec."""',
        "import importlib.metadata\nimport re\nPATTERN = re.compile('x')",
        "def f(folder):\n    with open(folder / 'x.csv') as file:\n        return file.read()",
        "NAMES = ['/tmp', '.', '..', '', 'plain', 'a\\0b', 'x' * 400]",
        "import os\nos.environ['HOME']",
    ],
)
def test_ordinary_code_is_not_dynamic(root: Path, source: str) -> None:
    (root / "features/steps.py").write_text(source)
    assert closure(root).dynamic == ""


@pytest.mark.parametrize(
    "source",
    [
        "__import__('features.unused')",
        "import importlib\nimportlib.import_module('features.unused')",
        "TARGET = 'features.unused:Thing'",
        "TARGET = 'features.unused.Thing'",
        "from features import *\n",
        "from .unused import *",
        "if False:\n    import features.unused",
    ],
)
def test_module_names_count_anywhere_in_the_source(root: Path, source: str) -> None:
    (root / "features/__init__.py").write_text("__all__ = ['unused']" if source.endswith("*\n") else "")
    (root / "features/steps.py").write_text(source)
    assert "features.unused" in closure(root).modules


def test_a_module_shadowing_the_standard_library_counts(root: Path) -> None:
    (root / "json.py").write_text("")
    assert "json" in closure(root).modules


def test_local_libraries_outside_the_root_count(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library"
    (library / "mylib").mkdir(parents=True)
    (library / "mylib/__init__.py").write_text("from mylib import inner")
    (library / "mylib/inner.py").write_text("")
    (root / "other/deep.py").write_text("import mylib")
    assert "mylib" not in closure(root).modules
    monkeypatch.setattr(sys, "path", [*sys.path, str(library)])
    assert {"mylib", "mylib.inner"} <= set(closure(root).modules)


def test_installed_packages_and_penstock_are_part_of_the_environment(root: Path) -> None:
    (root / "other/deep.py").write_text("import numpy, penstock, penstock.bundle, penstock_core.errors, os.path")
    assert list(closure(root, "other.deep").modules) == ["other.deep"]
