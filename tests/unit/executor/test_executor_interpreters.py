"""The interpreter for an environment: found by installed packages, with clear errors about missing ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from penstock import bundle
from penstock_contracts.commands import EnvironmentInfo, InterpreterHint, InterpreterHints
from penstock_core.environments import installed
from penstock_core.environments.installed import Environment
from penstock_executor.interpreters import EnvironmentMissingError, Interpreters
from penstock_executor.settings import ExecutorSettings


def here(**changes: object) -> EnvironmentInfo:
    info = EnvironmentInfo(**bundle.environment_info())
    changed = info.model_copy(update=changes)
    environment = Environment(implementation=changed.implementation, version=changed.version, packages=changed.packages)
    return changed.model_copy(update={"digest": environment.digest()})


def interpreters(*hints: InterpreterHint, pythons: tuple[str, ...] = (sys.executable,)) -> Interpreters:
    async def known(digest: str) -> InterpreterHints:
        return InterpreterHints(interpreters=list(hints))

    return Interpreters(known, pythons)


def fake_python(folder: Path, *lines: str) -> str:
    """A program used as an interpreter."""
    path = folder / "python"
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)
    return str(path)


async def test_an_interpreter_is_cached_until_packages_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = interpreters()
    wanted = here()
    assert (await found.find(wanted)).python == sys.executable
    monkeypatch.setattr(found, "_hints", None)  # no interpreter is queried a second time
    assert (await found.find(wanted)).digest == wanted.digest


async def test_a_hint_is_trusted_while_its_folders_are_unchanged(tmp_path: Path) -> None:
    python, site = fake_python(tmp_path, "exit 9"), tmp_path / "site-packages"
    site.mkdir()
    hint = InterpreterHint(python=python, folders={str(site): site.stat().st_mtime_ns})
    found = interpreters(hint)
    assert (await found.find(here())).python == python
    os.utime(site, (1, 1))  # a package was installed: this one is queried, and does not answer
    assert (await found.find(here())).python == sys.executable


async def test_attempts_share_a_look_at_the_package_folders_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, site = fake_python(tmp_path, "exit 9"), tmp_path / "site-packages"
    site.mkdir()
    found = interpreters(InterpreterHint(python=python, folders={str(site): site.stat().st_mtime_ns}))
    monkeypatch.setattr("penstock_executor.interpreters.RECHECK", 1000.0)
    assert [(await found.find(here())).python for _ in range(2)] == [python] * 2
    os.utime(site, (1, 1))
    assert (await found.find(here())).python == python
    monkeypatch.setattr("penstock_executor.interpreters.RECHECK", 0.0)
    assert (await found.find(here())).python == sys.executable


async def test_a_hint_from_another_machine_falls_back_to_a_local_interpreter() -> None:
    hint = InterpreterHint(python="/home/ada/venv/bin/python", folders={"/home/ada/venv/lib": 1})
    assert (await interpreters(hint).find(here())).python == sys.executable


async def test_extra_distributions_are_allowed_and_in_the_digest() -> None:
    fewer = dict(list(here().packages.items())[:5])
    wanted = here(packages=fewer)
    found = await interpreters().find(wanted)
    assert (found.python, found.digest) == (sys.executable, here().digest)
    assert found.digest != wanted.digest


async def test_missing_and_different_packages_are_reported_with_a_hint() -> None:
    packages = here().packages | {"numpy": "0.1", "absent-one": "3.0"}
    with pytest.raises(EnvironmentMissingError) as raised:
        await interpreters(pythons=("/no/python", sys.executable)).find(here(packages=packages))
    message = str(raised.value)
    assert f"{sys.executable}: absent-one 3.0 is missing; numpy 0.1 is required, it has " in message
    assert "penstock register FILE" in message and "PENSTOCK_PYTHONS" in message


async def test_an_unresponsive_interpreter_is_reported(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "echo \"No module named 'penstock'\" >&2", "exit 1")
    with pytest.raises(EnvironmentMissingError, match="does not say what it has installed: No module named 'penstock'"):
        await interpreters(pythons=(python,)).find(here())
    with pytest.raises(EnvironmentMissingError, match=r"/no/python: it is not on this machine"):
        await interpreters(pythons=("/no/python",)).find(here())


def test_differences_exclude_installers_and_the_platform() -> None:
    packages = {"numpy": "2.0", "pip": "1", "penstock": "1", "penstock-platform": "1"}
    wanted = Environment(implementation="cpython", version="3.11.2", packages=packages)
    found = Environment(implementation="cpython", version="3.11.9", packages={"numpy": "2.0", "more": "1"})
    assert installed.differences(wanted, found) == []
    other = Environment(implementation="cpython", version="3.12.1", packages={"numpy": "2.0"})
    assert installed.differences(wanted, other) == ["Python cpython 3.11 is required, it has cpython 3.12"]
    assert wanted.digest() == Environment(implementation="cpython", version="3.11", packages={"numpy": "2.0"}).digest()
    assert installed.shorten([str(n) for n in range(7)]) == "0; 1; 2; 3; 4; and 2 more"


def test_the_setting_accepts_interpreters_and_virtual_environments(tmp_path: Path) -> None:
    settings = ExecutorSettings(pythons=f"/usr/bin/python3:{tmp_path}")
    assert settings.interpreters() == ["/usr/bin/python3", f"{tmp_path}/bin/python"]
