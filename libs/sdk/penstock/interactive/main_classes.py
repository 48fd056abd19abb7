"""Classes of `__main__` under the name of the module that steps import.

The module's classes are replaced by those of the session, so that results are objects of the classes that the user has.
While inputs are encoded, these classes have the module's name, so that steps find them.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType

MAIN = "__main__"

_modules: dict[type, str] = {}
"""The module that steps find a class in."""


def share(module: ModuleType) -> None:
    """Use the classes of `__main__` in `module`, where it defines classes of the same names."""
    main = sys.modules[MAIN]
    for name, own in list(vars(module).items()):
        live = getattr(main, name, None)
        if not isinstance(own, type) or own.__module__ != module.__name__ or not isinstance(live, type):
            continue
        if live.__module__ == MAIN:
            setattr(module, name, live)
            _modules[live] = module.__name__


@contextmanager
def named_for_steps() -> Generator[None]:
    """Let the shared classes have the name of their module for steps within a `with` block."""
    for cls, module in _modules.items():
        cls.__module__ = module
    try:
        yield
    finally:
        for cls in _modules:
            cls.__module__ = MAIN
