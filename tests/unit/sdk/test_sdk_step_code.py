"""The code of a cached step: a changed file that the step may run changes it, or makes the whole bundle count."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.authoring.pipelines import Pipeline
from penstock_core.pipeline import ir

HEAD = "from penstock import pipeline, step\n"
END = "\n@pipeline\ndef main() -> int: return use(5)\n"
STEP = HEAD + "{imports}\n@step(cache=True)\ndef use(x: int) -> int: return {result}\n" + END


def project_of(imports: str, result: str, **files: str) -> dict[str, str]:
    found = {name.replace("__", "/", 1) + ".py": text for name, text in files.items()}
    return {"main.py": STEP.format(imports=imports, result=result), **found}


LIB = "def f(x): return x * 2\n"
OWN = {
    "a registry filled by a decorator": """
        REGISTRY = {}
        def register(f):
            REGISTRY[f.__name__] = f
            return f
        @register
        def model_a(x): return x * 2
        @step(cache=True)
        def use(x: int) -> int: return REGISTRY["model_a"](x)
        """,
    "singledispatch": """
        import functools
        @functools.singledispatch
        def work(x): return 0
        @work.register
        def _(x: int): return x * 2
        @step(cache=True)
        def use(x: int) -> int: return work(x)
        """,
    "subclasses": """
        class Base: pass
        class Model(Base):
            def predict(self, x): return x * 2
        @step(cache=True)
        def use(x: int) -> int: return Base.__subclasses__()[0]().predict(x)
        """,
    "an attribute that is set by a call": """
        class C: pass
        done = setattr(C, "k", x := 5 * 2)
        @step(cache=True)
        def use(x: int) -> int: return x * C.k
        """,
    "globals": """
        def f(x): return x * 2
        @step(cache=True)
        def use(x: int) -> int: return globals()["f"](x)
        """,
}
# Files of a project whose step runs the one that is edited.
FILES: dict[str, tuple[dict[str, str], str]] = {
    **{name: ({"main.py": HEAD + textwrap.dedent(text) + END}, "main.py") for name, text in OWN.items()},
    "a star import": (project_of("from lib import *", "f(x)", lib=LIB), "lib.py"),
    "an import inside the function": (
        project_of("", "__import__('sub.lib').lib.f(x)", sub__lib=LIB), "sub/lib.py",
    ),
    "a package that exports it": (
        project_of("import sub", "sub.f(x)", sub____init__="from .lib import f\n", sub__lib=LIB), "sub/lib.py",
    ),
    "a module imported for its effect": (
        project_of("from reg import R\nimport plug", "R['f'](x)", reg="R = {}\n",
                   plug=f"from reg import R\n{LIB}R['f'] = f\n"),
        "plug.py",
    ),
    "plugins found by pkgutil": (
        project_of(
            "import plugs", "plugs.R['f'](x)",
            plugs____init__="import pkgutil, importlib\nR = {}\nfor m in pkgutil.iter_modules(__path__):\n"
            "    importlib.import_module(f'{__name__}.{m.name}')\n",
            plugs__a=f"from plugs import R\n{LIB}R['f'] = f\n",
        ),
        "plugs/a.py",
    ),
    "runpy": (project_of("import runpy", "runpy.run_path('l' + 'ib.py')['f'](x)", lib=LIB), "lib.py"),
    "a module loaded from a file": (
        project_of("import importlib.util as u", "u.spec_from_file_location('lib2', 'l' + 'ib.py')", lib=LIB), "lib.py",
    ),
    "a script in another process": (
        project_of("import subprocess", "int(subprocess.check_output(['python', 'l' + 'ib.py']))", lib=LIB), "lib.py",
    ),
    "a script by asyncio": (
        project_of("import asyncio", "asyncio.create_subprocess_exec('python', 'l' + 'ib.py')", lib=LIB), "lib.py",
    ),
    "importlib under another name": (
        project_of("import importlib as il", "il.import_module('li' + 'b').f(x)", lib=LIB), "lib.py",
    ),
    "import_module under another name": (
        project_of("from importlib import import_module as load", "load('li' + 'b').f(x)", lib=LIB), "lib.py",
    ),
    "os under another name": (project_of("import os as o", "o.system('python l' + 'ib.py')", lib=LIB), "lib.py"),
    "exec": (project_of("", "exec(open('l' + 'ib.py').read())", lib=LIB), "lib.py"),
    "sys.modules": (project_of("import sys", "sys.modules['li' + 'b'].f(x)", lib=LIB), "lib.py"),
    "an import by a known name": (
        project_of("import importlib", "importlib.import_module('lib').f(x)", lib=LIB), "lib.py",
    ),
    "a module named by a text": (project_of("", "load('lib:f', x)", lib=LIB), "lib.py"),
    "a pickle": (project_of("import pickle as p", "p.loads(b'').f(x)", lib=LIB), "lib.py"),
    "a pickle by joblib": (
        project_of("def g():\n    from joblib import load\n    return load('/tmp/x')", "g().f(x)", lib=LIB), "lib.py",
    ),
    "an array of objects": (
        project_of("def g():\n    import numpy\n    return numpy.load('/x', allow_pickle=1)", "g()", lib=LIB),
        "lib.py",
    ),
    "a data file beside the module": (
        {**project_of("from pathlib import Path", "len(Path('t.csv').read_text())"), "t.csv": "x * 2\n"}, "t.csv",
    ),
    "a decorator of another module": (
        {
            "main.py": f"{HEAD}from lib import deco\n@step(cache=True)\n@deco\ndef use(x: int) -> int: return x\n{END}",
            "lib.py": "import functools\ndef deco(f):\n    @functools.wraps(f)\n"
            "    def g(x: int) -> int: return f(x) * 2\n    return g\n",
        },
        "lib.py",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]


Compile = Callable[[], ir.StepSpec]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], Compile]:
    """Write a project; return a function that compiles its pipeline and returns the specification of step `use`."""

    def make(files: dict[str, str], step: str = "use") -> Compile:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        sys.path.insert(0, str(tmp_path))
        importlib.invalidate_caches()
        main = importlib.import_module("main").main
        assert isinstance(main, Pipeline)
        return lambda: main.compile().steps[step]

    return make


def edit(path: Path, old: str = "* 2", new: str = "* 3") -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    # A file changed within the resolution of the clock must be detected as changed.
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))


@pytest.mark.parametrize("case", FILES.values(), ids=FILES)
def test_a_file_that_the_step_runs_counts(
    write: Callable[[dict[str, str]], Compile], case: tuple[dict[str, str], str], tmp_path: Path
) -> None:
    files, changed = case
    compiled = write(files)
    before = compiled()
    edit(tmp_path / changed)
    after = compiled()
    assert before.code and after.code
    assert after.dynamic_code or before.code != after.code


def test_modules_that_are_not_imported_do_not_count(write: Callable[[dict[str, str]], Compile], tmp_path: Path) -> None:
    compiled = write({**project_of("import lib", "lib.f(x)", lib=LIB), "other.py": LIB, "notes.md": "x * 2"})
    before = compiled()
    edit(tmp_path / "other.py")
    edit(tmp_path / "notes.md")
    assert compiled() == before
    assert before.code and before.dynamic_code == ""


TWO = (
    HEAD
    + """
"Steps: use and other."
FACTOR = 2

@step(cache=True)
def use(x: int) -> int:
    # a comment
    return x * FACTOR

@step(retries=1)
def other(x: int) -> int:
    return x * 2

@pipeline
def inner(x: int) -> int:
    y = [1 * 2]
    return other(x)
{more}
@pipeline
def main() -> int:
    return inner(use(5))

if __name__ == "__main__":
    print(main.local(), other(1 * 2))
"""
)


@pytest.mark.parametrize(
    "line", ["    # a comment", "    return x * 2\n\n@p", "y = [1 * 2]", "print(main.local(), other(1 * 2))"]
)
def test_bodies_of_other_steps_and_pipelines_do_not_count(
    write: Callable[[dict[str, str]], Compile], tmp_path: Path, line: str
) -> None:
    compiled = write({"main.py": TWO.replace("{more}", "")})
    before = compiled()
    edit(tmp_path / "main.py", line, line.replace("2", "3").replace("a comment", "another"))
    assert compiled() == before


@pytest.mark.parametrize(
    "more",
    [
        "ALL = [other]",
        "fast = other.with_options(retries=2)",
        "def helper(x): return other.function(x)",
        "import sys\ndef helper(): return getattr(sys, 'other')",
        "@step\ndef other(x: int) -> int: return 1",
        "def helper(): return globals()",
        "def helper(): return inner",
        "import lib",
    ],
)
def test_bodies_of_steps_that_the_module_uses_count(
    write: Callable[[dict[str, str]], Compile], tmp_path: Path, more: str
) -> None:
    compiled = write(
        {"main.py": TWO.replace("{more}", more), "lib.py": "def g():\n    import main\n    main.other(1)\n"}
    )
    before = compiled()
    edit(tmp_path / "main.py", "    return x * 2\n\n@p", "    return x * 3\n\n@p")
    assert compiled().code != before.code


def test_options_of_other_steps_count(write: Callable[[dict[str, str]], Compile], tmp_path: Path) -> None:
    # Everything evaluated at import may change the step's behaviour.
    compiled = write({"main.py": TWO.replace("{more}", "")})
    before = compiled()
    edit(tmp_path / "main.py", "retries=1", "retries=2")
    assert compiled().code != before.code


def test_code_is_read_at_each_compilation(write: Callable[[dict[str, str]], Compile], tmp_path: Path) -> None:
    compiled = write(project_of("import lib", "lib.f(x)", lib=LIB))
    before = compiled()
    edit(tmp_path / "lib.py")
    assert compiled().code != before.code


def test_the_reason_names_file_and_line_within_the_project(write: Callable[[dict[str, str]], Compile]) -> None:
    assert write(project_of("", "eval('x')"))().dynamic_code == "main.py:4: it uses eval"


def test_local_libraries_outside_the_project_count_completely(
    write: Callable[[dict[str, str]], Compile],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    (shared / "common.py").write_text("C = 1 * 2\n")
    monkeypatch.setenv("PYTHONPATH", str(shared))
    compiled = write(project_of("", "x"))
    before = compiled()
    edit(shared / "common.py")
    assert compiled().code != before.code


def test_editable_installations_count_completely(
    write: Callable[[dict[str, str]], Compile], tmp_path_factory: pytest.TempPathFactory
) -> None:
    library, site = tmp_path_factory.mktemp("library"), tmp_path_factory.mktemp("env") / "site-packages"
    (library / "common.py").write_text("C = 1 * 2\n")
    info = site / "common-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "direct_url.json").write_text(f'{{"url": "file://{library}", "dir_info": {{"editable": true}}}}')
    sys.path.append(str(site))
    compiled = write(project_of("", "x"))
    before = compiled()
    edit(library / "common.py")
    assert compiled().code != before.code


def test_a_pipeline_outside_a_project_module_uses_its_bundle_digest() -> None:
    # It is not importable by another process either; the registration rejects it with the reason.
    from penstock import pipeline, step
    from penstock.authoring import step_code

    @step(cache=True)
    def use(x: int) -> int:
        return x

    spec = ir.StepSpec(name="use", entrypoint="nowhere:use", cache=True)

    @pipeline
    def flow() -> None: ...

    compiled = ir.Pipeline(name="flow", steps={"use": spec}, nodes=(ir.Node(key="use", step="use"),))
    found = step_code.identify(compiled, flow.function).steps["use"]
    assert found.dynamic_code == "module 'nowhere' is not a module of the project"
