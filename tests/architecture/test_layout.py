"""The house stays in order: distributions, directions of imports, sizes of files, pinned dependencies."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
PACKAGES = {
    Path(folder).name: ROOT / folder for folder in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
}
DISTRIBUTIONS = {
    path.parent.name: tomllib.loads(path.read_text()) for path in (ROOT / "distributions").glob("*/pyproject.toml")
}


SOURCES = sorted(path for root in PACKAGES.values() for path in root.rglob("*.py") if "node_modules" not in path.parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def linter() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def test_imports_run_downwards_only() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--config", ".importlinter", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_the_linter_knows_every_package() -> None:
    assert set(linter()["importlinter"]["root_packages"].split()) == set(PACKAGES)


def test_services_import_neither_each_other_nor_user_code() -> None:
    services = {name for name, root in PACKAGES.items() if root.is_relative_to(ROOT / "services")}
    contracts = linter()
    layers = set(re.split(r"[\s|]+", contracts["importlinter:contract:layers"]["layers"].strip()))
    assert services <= layers
    apart = contracts["importlinter:contract:services-and-user-code"]["source_modules"].split()
    # Only the composition root may import everything.
    assert services - {"penstock_standalone"} <= set(apart)


def test_packages_match_folders() -> None:
    folders = {path.parent for part in ("libs", "services") for path in (ROOT / part).glob("*/*/__init__.py")}
    assert set(PACKAGES.values()) == folders


def test_each_package_is_in_one_distribution() -> None:
    """Every package is in one of the two wheels, and the one that is built at the root has all of both."""
    shares = {
        name: [
            (ROOT / "distributions" / name / source).resolve()
            for source in settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
        ]
        for name, settings in DISTRIBUTIONS.items()
    }
    assert set(shares) == {"penstock", "penstock-platform"}
    assert {path.name for path in shares["penstock"]} == {"penstock_core", "penstock", "penstock_cli"}
    assert sorted(path for share in shares.values() for path in share) == sorted(PACKAGES.values())
    for name, settings in DISTRIBUTIONS.items():
        included = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
        assert {Path(source).name: target for source, target in included.items()} == {
            path.name: path.name for path in shares[name]
        }
    hooks = [settings["tool"]["hatch"]["metadata"]["hooks"]["custom"] for settings in DISTRIBUTIONS.values()]
    whole = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["custom"]
    for kind in ("dependencies", "extras"):
        assert sorted(group for hook in hooks for group in hook[kind]) == sorted(whole[kind])
    assert whole == {kind: whole[kind] for kind in ("dependencies", "extras")}


@pytest.mark.parametrize("settings", [PROJECT, *DISTRIBUTIONS.values()], ids=["root", *DISTRIBUTIONS])
def test_distributions_have_a_description_and_the_common_version(settings: dict[str, dict[str, object]]) -> None:
    project = settings["project"]
    assert str(project["description"]).strip()
    assert project["requires-python"] == ">=3.11"
    assert project["dynamic"] == ["version", "dependencies", "optional-dependencies"], "one version, one list of each"


@pytest.mark.parametrize("root", PACKAGES.values(), ids=PACKAGES)
def test_packages_are_typed_and_have_a_description(root: Path) -> None:
    assert (root / "py.typed").is_file()
    assert ast.get_docstring(ast.parse((root / "__init__.py").read_text())), f"{root.name} says nothing of itself"


def names(dependencies: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ;]", item)[0].lower().replace("_", "-") for item in dependencies}


@pytest.mark.parametrize("dependency", [item for group in GROUPS.values() for item in group])
def test_dependencies_have_a_lower_bound_and_no_url(dependency: str) -> None:
    assert ">=" in dependency, f"{dependency} has no lower bound"
    assert "@" not in dependency, f"{dependency} names an address"


def test_core_imports_only_the_standard_library() -> None:
    """The core imports only the standard library, also inside functions."""
    found: list[str] = []
    for path in PACKAGES["penstock_core"].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            tops = {module.partition(".")[0] for module in modules}
            found += [f"{relative(path)}: {top}" for top in tops - sys.stdlib_module_names - {"penstock_core"}]
    assert not found


def test_client_depends_only_on_nats_and_cli_libraries() -> None:
    """The SDK and the runner need fewer dependencies: `.importlinter` keeps typer and rich out of `penstock`."""
    assert names(GROUPS["client"]) == {"nats-py", "typer", "rich", "pyyaml"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source_files_have_module_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree), "a module begins with what enters, what leaves, what holds"


def test_only_the_cli_prints() -> None:
    """Services log. A line on standard error for the operator names its stream explicitly."""
    found: list[str] = []
    for path in SOURCES:
        if path.is_relative_to(PACKAGES["penstock_cli"]):
            continue
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            to_a_stream = any(keyword.arg == "file" for keyword in call.keywords)
            if name in ("breakpoint", "input") or (name == "print" and not to_a_stream):
                found.append(f"{relative(path)}:{call.lineno}: {name}()")
    assert not found


def writes_to_the_terminal(node: ast.AST) -> bool:
    """Whether an expression names what prints: a standard stream, `print`, or what typer and Rich offer for it."""
    match node:
        case ast.Attribute(value=ast.Name("sys"), attr="stdout" | "stderr" | "__stdout__" | "__stderr__"):
            return True
        case ast.Attribute(value=ast.Name("typer"), attr="echo" | "secho" | "confirm" | "prompt" | "launch"):
            return True
        case ast.Call(func=ast.Name("print" | "input")) | ast.Attribute(value=ast.Name("os"), attr="write"):
            return True
        case ast.ImportFrom(module="rich.text" | "rich" | "rich.prompt" | "sys" | "click"):
            return True
        case ast.ImportFrom(module="rich.console", names=names):
            return any(name.name == "Console" for name in names)
        case _:
            return False


def test_commands_print_at_one_place() -> None:
    """`display/output.py` removes what could control the terminal from everything that is printed."""
    allowed = {
        "display/output.py": "prints",
        "main.py": "sets the errors of the streams, flushes them",
        "runs/run.py": "redirects what the user's module prints while it is imported, flushes",
    }
    found: list[str] = []
    root = PACKAGES["penstock_cli"]
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        typed_only = {
            below
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for below in ast.walk(node)
        }
        for node in ast.walk(tree):
            if node in typed_only or not writes_to_the_terminal(node):
                continue
            if str(path.relative_to(root)) not in allowed:
                found.append(f"{relative(path)}:{getattr(node, 'lineno', 0)}: use penstock_cli.display.output")
    assert not found


def test_no_todo_comments() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [f"{relative(path)}: {m.group()}" for path in SOURCES for m in later.finditer(path.read_text())]
    assert not found


def test_no_machine_specific_paths_or_hosts() -> None:
    private = re.compile("/" + r"work/(main|shared|\.mirror)")
    folders = ("libs", "services", "distributions", "docs", "deploy", "examples", "proto", "tests")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".conf", ".cfg", ".sh"}
    files = [path for part in folders for path in (ROOT / part).rglob("*") if path.suffix in kinds and path.is_file()]
    files += [
        path
        for path in ROOT.iterdir()
        if path.name != ".git" and path.is_file() and path.suffix in {"", ".md", ".toml", ".txt", ".yml"}
    ]
    assert len(files) > 100
    assert not [relative(path) for path in files if private.search(path.read_text(errors="replace"))]


def test_constraints_are_exact_and_have_no_urls() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.strip()]
    assert len(lines) > 30
    pinned = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[^\s;@/]+( ; .+)?")
    for line in lines:
        assert line.startswith("#") or pinned.fullmatch(line), line
        assert "://" not in line, line
        assert not line.startswith("-"), line


def test_every_dependency_is_pinned() -> None:
    pinned = {line.partition("==")[0].partition("[")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for group in ("client", "platform"):
        assert not names(GROUPS[group]) - pinned, f"these of {group} are not in constraints.txt: make constraints"


def test_test_files_have_unique_names() -> None:
    """Equal file names would make reports ambiguous."""
    paths_of: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        paths_of.setdefault(path.name, []).append(relative(path))
    assert not {name: paths for name, paths in paths_of.items() if len(paths) > 1}
