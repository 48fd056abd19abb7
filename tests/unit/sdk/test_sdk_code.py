"""The digest of a step's code: changed by whatever the step may run, and by nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.authoring.source_code import code_digest
from penstock.authoring.steps import Step

HEAD = """
from __future__ import annotations

import math
from dataclasses import dataclass

from penstock import Resources, pipeline, step
from helpers import scale
from settings import RETRIES
import registry
"""

MAIN = (
    HEAD
    + '''
FACTOR = 3
WORDS = {"a": 1}
WORDS["b"] = 2
WORDS.update(c=3)

@dataclass
class Config:
    """How."""
    depth: int = 2

def noise(function):
    return function

def inner(x: float) -> float:
    return x * FACTOR

def helper(x: float) -> float:
    """Help."""
    return inner(x) + math.sqrt(x)

@step(retries=RETRIES, resources=Resources(cpu=1))
def train(x: float, config: "Config | None" = None) -> float:
    """Train."""
    # a comment
    return scale(helper(x)) + len(WORDS)

@step
def other(x: float) -> float:
    return x - 1

@pipeline
def flow(x: float = 1.0):
    return other(train(x))

if __name__ == "__main__":
    print(flow.local())
'''
)
FILES = {
    "main.py": MAIN,
    "helpers.py": "from deep import base\n\ndef scale(x):\n    return x * base()\n",
    "deep/__init__.py": "from .numbers import ONE\n\ndef base():\n    return ONE\n",
    "deep/numbers.py": "ONE = 1\n",
    "registry.py": "import sys\n",
    "settings.py": "RETRIES = 2\n",
    "unused.py": "X = 1\n",
}


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


Digest = Callable[..., code_digest.CodeDigest]


@pytest.fixture
def project(tmp_path: Path) -> Digest:
    """The code of step `train` of a project in which files were changed."""
    count = 0

    def make(
        changed: dict[str, str] | None = None, name: str = "train", module: str = "main"
    ) -> code_digest.CodeDigest:
        nonlocal count
        count += 1
        root = tmp_path / str(count)
        for file, text in {**FILES, **(changed or {})}.items():
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        sys.path.insert(0, str(root))
        for loaded in [*sys.modules]:
            if loaded.partition(".")[0] in {
                Path(file).parts[0].removesuffix(".py") for file in {**FILES, **(changed or {})}
            }:
                del sys.modules[loaded]
        importlib.invalidate_caches()
        found = getattr(importlib.import_module(module), name)
        result = code_digest.of(found.function if isinstance(found, Step) else found)
        assert bool(result.digest) == (not result.why)
        return result

    return make


def edited(old: str, new: str) -> dict[str, str]:
    assert old in MAIN
    return {"main.py": MAIN.replace(old, new)}


@pytest.mark.parametrize(
    "change",
    {
        "the function": edited("+ len(WORDS)", "- len(WORDS)"),
        "a default": edited('"Config | None" = None', '"Config | None" = Config()'),
        "a helper": edited("math.sqrt(x)", "math.log(x)"),
        "a helper of a helper": edited("x * FACTOR", "x / FACTOR"),
        "a constant": edited("FACTOR = 3", "FACTOR = 4"),
        "an entry of a constant": edited('WORDS["b"] = 2', 'WORDS["b"] = 3'),
        "a call that changes a constant": edited("WORDS.update(c=3)", "WORDS.update(c=4)"),
        "a class in a hint that is text": edited("depth: int = 2", "depth: int = 3"),
        "another decorator": edited("Resources(cpu=1))\n", "Resources(cpu=1))\n@noise\n"),
        "what a name is imported from": {
            "main.py": MAIN.replace("from helpers", "from helpers2"),
            "helpers2.py": FILES["helpers.py"],
        },
        "an imported module": {"helpers.py": FILES["helpers.py"].replace("x * base()", "x + base()")},
        "a module that it imports": {
            "deep/__init__.py": FILES["deep/__init__.py"].replace("return ONE", "return -ONE")
        },
        "a relative import": {"deep/numbers.py": "ONE = 2\n"},
        "a module that is imported for its effect": {"registry.py": "import os\n"},
        "a conditional definition": edited("FACTOR = 3", "if math.pi > 3:\n    FACTOR = 3\nelse:\n    FACTOR = 2"),
    }.items(),
    ids=lambda case: case[0],
)
def test_what_a_step_may_run_counts(project: Digest, change: tuple[str, dict[str, str]]) -> None:
    # A file that is changed again within the clock's tick must not be taken for the former.
    assert project(change[1]) != project()


@pytest.mark.parametrize(
    "change",
    {
        "nothing": {},
        "comments": edited("# a comment", "# another\n\n\n"),
        "form": edited("return scale(helper(x)) + len(WORDS)", "return (scale(  helper( x ))\n        + len(WORDS))"),
        "quotes": edited('{"a": 1}', "{'a': 1}"),
        "docstrings": edited('"""Train."""', '"""Train well."""'),
        "docstrings of classes": edited('    """How."""\n', ""),
        "docstrings of helpers": edited('    """Help."""\n', ""),
        "another step": edited("x - 1", "x - 2"),
        "a new step": edited("@pipeline", "@step\ndef third(x: int) -> int:\n    return x\n\n@pipeline"),
        "the pipeline": edited("other(train(x))", "train(other(x))"),
        "options of the step": edited(
            "retries=RETRIES, resources=Resources(cpu=1)", "retries=RETRIES + 1, timeout='1m'"
        ),
        "what options of steps are made of": {"settings.py": "RETRIES = 3\n"},
        "what runs as a script only": edited("print(flow.local())", "print(train(1.0))"),
        "a module that nobody imports": {"unused.py": "X = 2\n"},
        "comments in an imported module": {"helpers.py": "# hello\n" + FILES["helpers.py"]},
        "an import that is not used": edited("import math\n", "import math\nimport json\n"),
        "imports in another order": edited(
            "from helpers import scale\nfrom settings import RETRIES\n",
            "from settings import RETRIES\nfrom helpers import scale\n",
        ),
    }.items(),
    ids=lambda case: case[0],
)
def test_what_it_does_not_run_does_not_count(project: Digest, change: tuple[str, dict[str, str]]) -> None:
    assert project(change[1]) == project()


def test_two_steps_have_two_digests_even_where_they_reach_the_same(project: Digest) -> None:
    both = {
        "main.py": "from penstock import step\n@step\ndef a(x: int) -> int:\n    return b.function(x)\n"
        "@step\ndef b(x: int) -> int:\n    return a.function(x)\n"
    }
    assert project(both, "a") != project(both, "b")


def test_imports_in_functions_and_packages(project: Digest) -> None:
    lazy = {
        "main.py": "from penstock import step\n@step\ndef train() -> int:\n"
        "    import deep.numbers as n\n    return n.ONE\n"
    }
    before = project(lazy)
    assert project({**lazy, "deep/numbers.py": "ONE = 2\n"}) != before
    assert project({**lazy, "deep/__init__.py": "ONE = 2\n"}) != before  # it runs before the module inside
    assert project({**lazy, "helpers.py": ""}) == before


def test_a_step_inside_a_package(project: Digest) -> None:
    inside = {
        "pack/__init__.py": "from .flow import train\n",
        "pack/flow.py": "from penstock import step\nfrom . import tools\nfrom .more import M\n"
        "@step\ndef train() -> int:\n    return tools.T\n@step\ndef other() -> int:\n    return M\n",
        "pack/tools.py": "T = 1\n",
        "pack/more.py": "M = 1\n",
    }
    before = project(inside, module="pack.flow")
    assert project({**inside, "pack/tools.py": "T = 2\n"}, module="pack.flow") != before
    assert project({**inside, "pack/more.py": "M = 2\n"}, module="pack.flow") == before


def test_modules_on_pythonpath_count_too(project: Digest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(shared))
    sys.path.append(str(shared))
    main = {"main.py": "from penstock import step\nimport common\n@step\ndef train() -> int:\n    return common.C\n"}
    (shared / "common.py").write_text("C = 1\n")
    before = project(main)
    (shared / "common.py").write_text("C = 22\n")
    assert project(main) != before


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return eval('x')", "main.py:4: it uses eval, so that what it runs shows only then"),
        ("exec('x = 2')\n    return x", "main.py:4: it uses exec"),
        (
            "import importlib\n    return importlib.import_module('a' + 'b').x",
            "main.py:5: it imports a module whose name",
        ),
        ("return globals()['x']", "main.py:4: it uses globals"),
    ],
)
def test_code_that_cannot_be_told_by_reading_has_no_digest(project: Digest, body: str, why: str) -> None:
    found = project({"main.py": f"from penstock import step\n@step\ndef train(x: int) -> int:\n    {body}\n"})
    assert found.digest == ""
    assert why in found.why


def test_dynamic_imports_of_known_modules_and_methods_of_such_names_are_fine(project: Digest) -> None:
    main = {
        "main.py": "import importlib\nfrom penstock import step\n@step\ndef train(x: float) -> float:\n"
        "    x.eval('a')\n    return importlib.import_module('deep.numbers').ONE\n"
    }
    before = project(main)
    assert before.digest
    assert project({**main, "deep/numbers.py": "ONE = 2\n"}) != before


def test_an_imported_module_that_cannot_be_told_says_where(project: Digest) -> None:
    found = project({"helpers.py": "def scale(x):\n    return eval('x')\n"})
    assert "helpers.py:2: it uses eval" in found.why


def test_there_is_no_digest_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict[str, object] = {"__name__": "typed"}
    exec("def train(x):\n    return x\n", space)  # noqa: S102
    assert "no file that holds its source" in code_digest.of(space["train"]).why  # type: ignore[arg-type]

    def local() -> None: ...

    assert "inside a function" in code_digest.of(local).why


def test_a_function_that_exec_made_in_a_module_with_a_file_has_no_digest(project: Digest) -> None:
    made = "space = {'__name__': __name__}\nexec('def train(x): return x', space)\ntrain = space['train']\n"
    assert "it was made by <string>" in project({"main.py": made}).why
