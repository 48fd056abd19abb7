"""Altered copies of core modules, to see that the tests notice: each mutant is a list of replacements in the source.

A text that is to be replaced must be in the source exactly once, so that a mutant that no longer fits fails loudly.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from penstock_testkit.states import Machine


class StaleMutant(Exception):
    """The source that a mutant alters has changed: the text that it replaces is not there exactly once."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A named alteration of `penstock_core.run` or `penstock_core.retry`: pairs of old and new text."""

    name: str
    module: str
    patches: tuple[tuple[str, str], ...]

    def machine(self) -> Machine:
        """The state machine with this alteration.

        Raises:
            StaleMutant: a text to replace is not in the source exactly once.
        """
        if self.module == "penstock_core.run":
            return Machine.of(load(self.module, self.patches, self.name))
        copy = load("penstock_core.run", (), self.name)
        part = self.module.rpartition(".")[2]
        if not hasattr(copy, part):
            raise StaleMutant(f"{self.name}: penstock_core.run does not use {self.module}")
        setattr(copy, part, load(self.module, self.patches, self.name))
        return Machine.of(copy)


def load(module: str, patches: tuple[tuple[str, str], ...], name: str) -> ModuleType:
    """A second copy of `module` with its source altered."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    source = Path(spec.origin).read_text()
    for old, new in patches:
        if source.count(old) != 1:
            raise StaleMutant(f"{name}: {source.count(old)} times in {module}: {old!r}")
        source = source.replace(old, new)
    alias = f"{module}_altered_{''.join(c if c.isalnum() else '_' for c in name)}"
    altered = importlib.util.module_from_spec(importlib.util.spec_from_loader(alias, loader=None) or spec)
    altered.__file__ = spec.origin
    sys.modules[alias] = altered  # dataclasses look their module up
    try:
        exec(compile(source, f"{spec.origin} ({name})", "exec"), altered.__dict__)  # noqa: S102 - our own source
    finally:
        del sys.modules[alias]
    return altered
