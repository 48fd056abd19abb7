"""Resolving the user's argument to a pipeline object: file, pipeline and error messages."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import sources, user_modules
from penstock.errors import SourceError

ONE = """
from penstock import pipeline, step

@step
def one() -> int:
    return 1

@pipeline
def only():
    return one()
"""
TWO = ONE + "\n@pipeline(name='second')\ndef other():\n    return one()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("penstock"):  # imported late, by others as well
            del sys.modules[name]


def write(path: str, text: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_only_pipeline_of_a_file() -> None:
    write("train_one.py", ONE)
    assert sources.load("train_one.py").name == "only"
    assert sources.load(Path("train_one.py")).name == "only"


@pytest.mark.parametrize(("named", "found"), [("only", "only"), ("other", "second"), ("second", "second")])
def test_a_pipeline_is_named_by_variable_or_name(named: str, found: str) -> None:
    write("train_two.py", TWO)
    assert sources.load(f"train_two.py:{named}").name == found


@pytest.mark.parametrize("name", ["pipeline.py", "proj.py", "main.py", "whatever.py"])
def test_a_folder_resolves_to_its_default_file(name: str) -> None:
    write(f"proj/{name}", ONE)
    target = user_modules.locate("proj")
    assert (target.file.name, target.name) == (name, name.removesuffix(".py"))


def test_a_module_of_a_package_is_imported_as_such() -> None:
    write("lib/acme/__init__.py", "")
    write("lib/acme/helpers.py", "VALUE = 3\n")
    write("lib/acme/flows/__init__.py", "")
    file = write("lib/acme/flows/train.py", ONE + "\nfrom ..helpers import VALUE\n")
    target = user_modules.locate(str(file))
    assert (target.name, target.root) == ("acme.flows.train", Path("lib").resolve())
    assert sources.load(str(file)).function.__module__ == "acme.flows.train"


def test_pipelines_defined_in_the_file_take_precedence_over_imported_ones() -> None:
    write("base_flow.py", ONE)
    write(
        "own_flow.py",
        "from base_flow import only, one\nfrom penstock import pipeline\n@pipeline\ndef mine():\n    return one()\n",
    )
    assert sources.load("own_flow.py").name == "mine"
    write("again_flow.py", "from base_flow import only\n")
    assert sources.load("again_flow.py").name == "only"


@pytest.mark.parametrize(
    ("files", "source", "message"),
    [
        ({}, "nothing.py", "there is no file 'nothing.py'"),
        ({"training.py": ONE}, "trainig.py", "did you mean 'training.py'"),
        ({"a/x.py": ONE, "a/y.py": ONE}, "a", r"has no pipeline.py: pass a file \(there are: a/x.py, a/y.py\)"),
        ({"notes.txt": ""}, "notes.txt", "not a Python file"),
        ({"my.flow.py": ONE}, "my.flow.py", "'my.flow' has a dot in it"),
        ({"empty_flow.py": ""}, "empty_flow.py", "has no pipeline: decorate a function"),
        ({"both_flow.py": TWO}, "both_flow.py", "contains 2 pipelines: .* both_flow.py:only or both_flow.py:other"),
        ({"some_flow.py": ONE}, "some_flow.py:othr", r"has no pipeline 'othr' \(its pipelines: only\)"),
        ({"json.py": ONE}, "json.py", "its name shadows the module 'json'"),
        ({"broken_flow.py": "x = 1\nx.y\n"}, "broken_flow.py", r"broken_flow\.py:2: AttributeError"),
        ({"syntax_flow.py": "x = 1\nx = = 2\n"}, "syntax_flow.py", r"syntax_flow\.py:2: SyntaxError"),
        ({"ends_flow.py": "import sys\n\nsys.exit(3)\n"}, "ends_flow.py", r"ends_flow\.py:3: .*__main__"),
        ({"needs_flow.py": "import nosuchlibrary\n"}, "needs_flow.py", r"needs_flow\.py:1: .*install it into"),
    ],
)
def test_invalid_input_is_reported(files: dict[str, str], source: str, message: str) -> None:
    for path, text in files.items():
        write(path, text)
    with pytest.raises(SourceError, match=message):
        sources.load(source)


def test_the_traceback_of_an_import_shows_only_user_frames() -> None:
    write("deep_flow.py", "def f():\n    return 1 / 0\n\nf()\n")
    with pytest.raises(SourceError) as caught:
        sources.load("deep_flow.py")
    assert "ZeroDivisionError" in caught.value.trace and caught.value.trace.count("File ") == 2
    assert not re.search(r"importlib|sources\.py", caught.value.trace)


def test_the_arguments_of_the_command_are_hidden_from_the_users_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["penstock", "run", "--json"])
    write("argv_flow.py", ONE + "\nimport sys\nseen = list(sys.argv)\n")
    sources.load("argv_flow.py")
    assert [Path(item).name for item in sys.modules["argv_flow"].seen] == ["argv_flow.py"]
    assert sys.argv == ["penstock", "run", "--json"]
