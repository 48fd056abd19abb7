"""Which saved values contain objects of the project's own classes: loading these imports modules by name.

A cached step that gets such a value runs code that its own module need not import; see `penstock_core.cache`.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_OWN = re.compile(r"penstock(_\w+)?\Z")
_TAG = re.compile(rb'"\$type": ?"([^":]+):')
"""The codec's tag of objects. A quote inside of a text is escaped, so that only keys match."""


def any_in_project(modules: Iterable[str]) -> bool:
    """Whether one of the modules belongs to neither Python nor an installed distribution."""
    return any(_in_project(name) for name in modules)


def _in_project(name: str) -> bool:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or _OWN.match(top):
        return False
    file = getattr(sys.modules.get(name), "__file__", None) or getattr(sys.modules.get(top), "__file__", None)
    return file is None or not _INSTALLED & set(Path(file).parts)


def in_json(data: bytes) -> bool:
    """Whether JSON that the codec encoded has objects of project classes."""
    return any_in_project({found.decode() for found in _TAG.findall(data)})


class Pickler(pickle.Pickler):
    """A pickler that collects the modules that unpickling imports."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, protocol=5)
        self._modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Remember the module of a class, a function or an object; let all be pickled in the usual way."""
        module = getattr(obj, "__module__", None)
        self._modules.add(module if type(module) is str else type(obj).__module__)
        return NotImplemented

    def saw_project_types(self) -> bool:
        """Whether something of the project was pickled."""
        return any_in_project(self._modules)
