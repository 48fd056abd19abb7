"""The house stays in order: members, directions of imports, sizes of files, pinned dependencies."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WORKSPACE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["penstock"]["workspace"]
MEMBERS: list[str] = WORKSPACE["members"]
LONGEST = 400
"""Lines of a source file; about 250 is the aim."""


def project(member: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / member / "pyproject.toml").read_text())


def package(member: str) -> Path:
    (name,) = project(member)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return ROOT / member / name


PACKAGES = {member: package(member) for member in MEMBERS}
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


def test_the_linter_knows_every_member() -> None:
    packages = {root.name for root in PACKAGES.values()}
    assert set(linter()["importlinter"]["root_packages"].split()) == packages


def test_every_service_is_kept_apart_from_the_others_and_from_user_code() -> None:
    services = {root.name for member, root in PACKAGES.items() if member.startswith("services/")}
    contracts = linter()
    layers = set(re.split(r"[\s|]+", contracts["importlinter:contract:layers"]["layers"].strip()))
    assert services <= layers
    apart = contracts["importlinter:contract:services-and-user-code"]["source_modules"].split()
    # The composition root alone may reach for anything.
    assert services - {"penstock_standalone"} <= set(apart)


def test_the_members_are_the_folders_and_the_makefile_installs_them() -> None:
    folders = {
        relative(path.parent) for part in ("libs", "services") for path in (ROOT / part).glob("*/pyproject.toml")
    }
    assert set(MEMBERS) == folders
    assert len(MEMBERS) == len(set(MEMBERS))
    text = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    (made,) = re.findall(r"^MEMBERS := (.*)$", text, re.MULTILINE)
    assert made.split() == MEMBERS


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_is_a_typed_package_with_a_purpose(member: str) -> None:
    settings, root = project(member)["project"], PACKAGES[member]
    assert (root / "py.typed").is_file()
    assert ast.get_docstring(ast.parse((root / "__init__.py").read_text())), f"{root.name} says nothing of itself"
    assert settings["description"].strip()
    assert settings["requires-python"] == ">=3.11"
    assert settings["version"] == project("libs/core")["project"]["version"], "one workspace, one version"


@pytest.mark.parametrize("member", MEMBERS)
def test_a_dependency_has_a_lower_bound_and_no_address(member: str) -> None:
    own = {project(other)["project"]["name"] for other in MEMBERS}
    settings = project(member)["project"]
    groups: list[list[str]] = [settings.get("dependencies", []), *settings.get("optional-dependencies", {}).values()]
    for dependency in (item for group in groups for item in group):
        name = re.split(r"[\[<>=~! ;]", dependency)[0]
        assert name in own or ">=" in dependency, f"{dependency} has no lower bound"
        assert "@" not in dependency, f"{dependency} names an address"


def test_the_core_needs_nothing() -> None:
    assert project("libs/core")["project"].get("dependencies", []) == []


def test_the_sdk_needs_the_core_and_the_bus_only() -> None:
    names = {re.split(r"[\[<>=~! ;]", item)[0] for item in project("libs/sdk")["project"]["dependencies"]}
    assert names == {"penstock-core", "nats-py"}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_source_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= LONGEST, f"{lines} lines; the limit is {LONGEST}: split it"
    tree = ast.parse(text)
    assert not tree.body or ast.get_docstring(tree), "a module begins with what enters, what leaves, what holds"


def test_nothing_prints_but_the_command() -> None:
    """Services log. A line on standard error, for the person who starts one, names its stream."""
    found: list[str] = []
    for path in SOURCES:
        if path.is_relative_to(PACKAGES["libs/cli"]):
            continue
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            to_a_stream = any(keyword.arg == "file" for keyword in call.keywords)
            if name in ("breakpoint", "input") or (name == "print" and not to_a_stream):
                found.append(f"{relative(path)}:{call.lineno}: {name}()")
    assert not found


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [f"{relative(path)}: {m.group()}" for path in SOURCES for m in later.finditer(path.read_text())]
    assert not found


def test_nothing_speaks_of_the_machine_it_was_written_on() -> None:
    private = re.compile("/" + r"work/(main|shared|\.mirror)")
    folders = ("libs", "services", "docs", "deploy", "examples", "proto", "tests")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".conf", ".cfg", ".sh"}
    files = [path for part in folders for path in (ROOT / part).rglob("*") if path.suffix in kinds and path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in {"", ".md", ".toml", ".txt", ".yml"}]
    assert len(files) > 100
    assert not [relative(path) for path in files if private.search(path.read_text(errors="replace"))]


def test_constraints_are_exact_and_hold_no_addresses() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.strip()]
    assert len(lines) > 30
    pinned = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[^\s;@/]+( ; .+)?")
    for line in lines:
        assert line.startswith("#") or pinned.fullmatch(line), line
        assert "://" not in line, line
        assert not line.startswith("-"), line


def test_every_dependency_is_pinned() -> None:
    pinned = {line.partition("==")[0].partition("[")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    own = {project(member)["project"]["name"] for member in MEMBERS}
    for member in MEMBERS:
        for dependency in project(member)["project"].get("dependencies", []):
            name = re.split(r"[\[<>=~! ;]", dependency)[0].lower().replace("_", "-")
            assert name in own | pinned, f"{dependency} of {member} is not in constraints.txt: make constraints"


def test_test_files_have_names_of_their_own() -> None:
    """Files are imported by path; equal names would make reports ambiguous."""
    names: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        names.setdefault(path.name, []).append(relative(path))
    assert not {name: paths for name, paths in names.items() if len(paths) > 1}
