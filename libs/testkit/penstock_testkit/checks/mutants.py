"""Altered copies of core modules, to see that the tests notice: each mutant is a list of replacements in the source.

A text that is to be replaced must be in the source exactly once, so that a mutant that no longer fits fails loudly.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import penstock_core
from penstock_testkit.checks.state_machine import Machine

MODULES = (
    "retry",
    "plan",
    "state",
    "endings",
    "resolve",
    "fans",
    "suspend",
    "settle",
    "decide",
    "stops",
    "evolve",
    "run",
)
"""The modules of the run state machine, each after those that it imports."""

Patches = Sequence[tuple[str, str]]


class StaleMutantError(Exception):
    """The source that a mutant alters has changed: the text that it replaces is not there exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A named alteration of a module of the run state machine: pairs of old and new text."""

    name: str
    module: str
    patches: tuple[tuple[str, str], ...]

    def machine(self) -> Machine:
        """The state machine with this alteration.

        Raises:
            StaleMutant: a text to replace is not in the source exactly once.
        """
        if self.module not in MODULES:
            raise StaleMutantError(f"{self.name}: the run state machine does not use {self.module}")
        return Machine.of(load({self.module: self.patches}, self.name))


def load(patches: Mapping[str, Patches], name: str) -> ModuleType:
    """A second copy of `penstock_core.run.machine` that uses altered modules; `patches` are by module."""
    first = min(MODULES.index(part) for part in patches)
    parts = MODULES[first:]
    before = {part: sys.modules[f"penstock_core.{part}"] for part in parts}
    try:
        for part in parts:
            # Later modules find the altered ones by their names, so that all of a copy belongs together.
            copy = _copy(before[part], patches.get(part, ()), name)
            sys.modules[f"penstock_core.{part}"] = copy
            setattr(penstock_core, part, copy)
        return sys.modules["penstock_core.run.machine"]
    finally:
        for part, module in before.items():
            sys.modules[f"penstock_core.{part}"] = module
            setattr(penstock_core, part, module)


def _copy(module: ModuleType, patches: Patches, name: str) -> ModuleType:
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    for old, new in patches:
        if source.count(old) != 1:
            raise StaleMutantError(f"{name}: {source.count(old)} times in {module.__name__}: {old!r}")
        source = source.replace(old, new)
    copy = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = copy  # dataclasses look their module up
    exec(compile(source, f"{spec.origin} ({name})", "exec"), copy.__dict__)  # noqa: S102 - our own source
    return copy
