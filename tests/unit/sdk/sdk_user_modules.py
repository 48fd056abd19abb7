"""User modules for the tests of rejected definitions."""

from __future__ import annotations

import importlib
import itertools
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from penstock import DefinitionError, Pipeline

HEAD = """\
from __future__ import annotations
import enum, functools, typing
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar
from penstock import Cache, Resources, pipeline, step

class Parts(NamedTuple):
    train: list[int]
    test: list[int]

@step
def load(url: str = "") -> str: ...

@step
def split(text: str, size: float = 0.5) -> Parts: ...

@step
def train(data: list[int], depth: int = 3) -> float: ...

@step
def pick(scores: list[float], names: dict[str, float] | None = None) -> float: ...

@step
def loose(x, y=None): ...

"""
numbers = itertools.count()


class UserModules:
    """Writes and imports user modules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, body: str, head: str = HEAD) -> ModuleType:
        name = f"user_module_{next(numbers)}"
        (self.folder / f"{name}.py").write_text(head + textwrap.dedent(body))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def refused(self, body: str, head: str = HEAD) -> str:
        """Return the message of the error, whose line must be the one marked `# here`."""
        text = head + textwrap.dedent(body)
        with pytest.raises(DefinitionError) as caught:
            next(one for one in vars(self.load(body, head)).values() if isinstance(one, Pipeline)).compile()
        error = caught.value
        assert error.file is not None
        assert Path(error.file).parent == self.folder
        marked = [n for n, line in enumerate(text.splitlines(), 1) if line.endswith("# here")]
        assert [error.line] == marked, f"{error} should be at line {marked}"
        return error.message
