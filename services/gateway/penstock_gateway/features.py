"""The features of the gateway by class: those that all projects share, and those of each project."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

T = TypeVar("T")

_PROJECTS = 1_000
"""Projects whose features are kept; those of another one are made again by its next request."""


class Features:
    """Features by class.

    Args:
        shared: those that all projects share.
        make: makes those of a project.
    """

    def __init__(self, shared: Iterable[object], make: Callable[[str], Iterable[object]]) -> None:
        self._shared: dict[type, Any] = {type(one): one for one in shared}
        self._make = make
        self._projects: OrderedDict[str, dict[type, Any]] = OrderedDict()

    def of(self, kind: type[T], project: Callable[[], str]) -> T:
        """Return the feature of a class; if it belongs to a project, that of the one that `project` returns."""
        found = self._shared.get(kind)
        return cast("T", found) if found is not None else self._of_project(project())[kind]

    def _of_project(self, project: str) -> dict[type, Any]:
        found = self._projects.get(project)
        if found is None:
            found = self._projects[project] = {type(one): one for one in self._make(project)}
            if len(self._projects) > _PROJECTS:
                self._projects.popitem(last=False)
        else:
            self._projects.move_to_end(project)
        return found
