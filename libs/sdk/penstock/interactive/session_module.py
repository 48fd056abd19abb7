"""Writes the module of a pipeline that is defined in a notebook or an interactive session.

The module has the definitions that the pipeline and its steps use, transitively: imports, functions, classes, and
assignments at the top level of a cell. Of a name that was defined several times the present definition counts. Other
statements do not travel: calls such as `client.run(…)` or `plt.show()`, magics, loops, and everything under
`if __name__ == "__main__":`. A name whose value could differ when its assignment runs again is refused.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
import symtable
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from penstock.authoring import Pipeline, Step
from penstock.errors import SourceError
from penstock.interactive import bindings
from penstock.interactive.bindings import DEFINITIONS, IMPORTS
from penstock.interactive.cells import Cell

_NUMBERS = (bool, int, float, type(None))
_SHELL = "get_ipython"


@dataclass(frozen=True, slots=True)
class SessionModule:
    """The text of a module, and the names in it that were assigned, whose values must be those of the session."""

    text: str
    assigned: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Definition:
    """A statement that defines names: its source, the names it needs at once, and those that it needs when called."""

    source: str
    label: str
    at_once: frozenset[str]
    later: frozenset[str] = frozenset()
    assigns: bool = False


def write(name: str, namespace: Mapping[str, Any], history: list[Cell]) -> SessionModule:
    """Write the module of the pipeline that is called `name` in the session.

    Raises:
        SourceError: a definition is not kept, or cannot be repeated; the message says which.
    """
    return _Writer(namespace, history).write(name)


class _Writer:
    def __init__(self, namespace: Mapping[str, Any], history: list[Cell]) -> None:
        self._namespace = namespace
        self._history = history
        self._bindings = bindings.read(history)
        self._parts: dict[str, None] = {}
        self._assigned: list[str] = []
        self._seen: set[str] = set()

    def write(self, name: str) -> SessionModule:
        self._add(name, "")
        future = "from __future__ import annotations\n\n" if self._has_future_annotations() else ""
        return SessionModule(future + "\n\n".join(self._parts) + "\n", tuple(self._assigned))

    def _has_future_annotations(self) -> bool:
        statements = (one for cell in self._history for one in cell.statements())
        return any(
            isinstance(one, ast.ImportFrom) and one.module == "__future__" and one.names[0].name == "annotations"
            for one in statements
        )

    def _add(self, name: str, user: str) -> None:
        """Add the definition of a name: after those that it needs at once, and before those that it needs when called.

        Whatever calls it at once comes after all of them.
        """
        if name == _SHELL:
            raise SourceError(f"{user!r} uses a magic or a shell command, which steps cannot: write it as plain Python")
        if name in self._seen or self._is_given(name, user):
            return
        self._seen.add(name)
        found = self._definitions(name, user)
        for needed in sorted({needed for one in found for needed in one.at_once}):
            self._add(needed, name)
        for one in found:
            if one.assigns and name not in self._assigned:
                self._assigned.append(name)
            self._parts[one.source] = None
        for needed in sorted({needed for one in found for needed in one.later}):
            self._add(needed, name)

    def _is_given(self, name: str, user: str) -> bool:
        """Whether every module has the name, or none."""
        builtin = getattr(builtins, name, None)
        if name not in self._bindings.bound and str(getattr(builtin, "__module__", "")).startswith("IPython"):
            raise SourceError(f"{user!r} uses {name!r}, which only notebooks have: import it in a cell")
        if name in self._bindings.bound and name in self._namespace:
            return False
        special = name.startswith("__") and name.endswith("__")
        return special or self._namespace.get(name, builtin) is builtin

    def _definitions(self, name: str, user: str) -> list[_Definition]:
        value = self._namespace[name]
        if isinstance(value, ModuleType):
            return self._imports(name, value)
        function = _function(value)
        if function is not None and function.__module__ == "__main__" and function.__name__ == name:
            return [self._function(name, function)]
        if type(value) in _NUMBERS and (value is None or math.isfinite(value)):
            return [_Definition(f"{name} = {value!r}", "value when the run was submitted", frozenset())]
        return self._statement(name, value, user)

    def _imports(self, name: str, module: ModuleType) -> list[_Definition]:
        """Return every import of a name: `import a.b` and `import a.c` both bind `a`."""
        found = [(cell, one) for cell, one in self._bindings.bound.get(name, []) if isinstance(one, IMPORTS)]
        if not found:
            return [_Definition(f"import {module.__name__} as {name}", "import", frozenset())]
        return [_Definition(ast.unparse(one), cell.label, frozenset()) for cell, one in found]

    def _function(self, name: str, function: FunctionType) -> _Definition:
        try:
            source = textwrap.dedent(inspect.getsource(function))
            return _definition(source, f"function {name}")
        except (OSError, TypeError, SyntaxError):
            pass
        for cell, one in reversed(self._bindings.bound.get(name, [])):
            if isinstance(one, DEFINITIONS) and _is_code_of(cell.source, function):
                return _definition(_segment(cell, one), cell.label)
        raise SourceError(
            f"the source of {name!r} is not kept by this session: define it in a notebook, in IPython, or in a file"
        )

    def _statement(self, name: str, value: object, user: str) -> list[_Definition]:
        found = self._bindings.bound.get(name)
        where = f"{user!r} uses {name!r}, a {type(value).__name__}"
        if not found:
            module = getattr(value, "__module__", None)
            if isinstance(module, str) and module != "__main__":  # a star import
                return [_Definition(f"from {module} import {name}", "import", frozenset())]
            raise SourceError(f"{where} that no assignment at the top level of a cell makes: pass it as an input")
        cell, one = found[-1]
        if (change := self._bindings.changed.get(name)) is not None:
            raise SourceError(
                f"{where} that {change[0].label} changes (line {change[1].lineno}): pass it as an input, or make it in "
                "a function or in one assignment"
            )
        if any(isinstance(node, ast.Await) for node in ast.walk(one)) and not isinstance(one, DEFINITIONS):
            raise SourceError(f"{where} that {cell.label} makes with `await` (line {one.lineno}): pass it as an input")
        made = _definition(_segment(cell, one), cell.label, assigns=not isinstance(one, (*DEFINITIONS, ast.ImportFrom)))
        if _SHELL in made.at_once:
            raise SourceError(
                f"{where} that {cell.label} makes with a magic or a shell command (line {one.lineno}): pass it as an "
                "input, or write it as plain Python"
            )
        if name in made.at_once and not isinstance(one, DEFINITIONS):
            raise SourceError(
                f"{where} that {cell.label} makes from its own earlier value (line {one.lineno}): pass it as an input, "
                "or use another name"
            )
        return [made]


def _function(value: Any) -> FunctionType | None:
    """Return the function of a step, of a pipeline or of a decorated function."""
    if isinstance(value, Pipeline | Step):
        value = value.function
    inner = inspect.unwrap(value) if callable(value) else None
    return inner if isinstance(inner, FunctionType) else None


def _segment(cell: Cell, one: ast.stmt) -> str:
    """Return the source of a statement, with its decorators."""
    lines = cell.source.splitlines()
    decorators = one.decorator_list if isinstance(one, DEFINITIONS) else []
    first = min([one.lineno, *(node.lineno for node in decorators)])
    if len(lines) < (one.end_lineno or 0) or not decorators:
        return ast.get_source_segment(cell.source, one) or ast.unparse(one)
    return "\n".join(lines[first - 1 : one.end_lineno])


def _definition(source: str, label: str, *, assigns: bool = False) -> _Definition:
    """Read the global names that a statement uses: at once, and in the bodies of functions.

    Raises:
        SyntaxError: it is no complete statement.
    """
    source = source.rstrip()
    top = symtable.symtable(source, "<session>", "exec")
    at_once, later = set(_text_annotations(source)), set[str]()
    waiting = [(top, True)]
    while waiting:
        table, immediate = waiting.pop()
        names = {
            one.get_name() for one in table.get_symbols() if one.is_referenced() and (table is top or one.is_global())
        }
        (at_once if immediate else later).update(names)
        for inner in table.get_children():
            runs = inner.get_type() == "class" or inner.get_name() in ("listcomp", "setcomp", "dictcomp", "genexpr")
            waiting.append((inner, immediate and runs))
    return _Definition(source, label, frozenset(at_once), frozenset(later - at_once), assigns)


def _text_annotations(source: str) -> Iterator[str]:
    """Yield the names in annotations that are texts."""
    for node in ast.walk(ast.parse(source)):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
                try:
                    inner = ast.parse(annotation.value, mode="eval")
                except SyntaxError:
                    continue
                yield from (one.id for one in ast.walk(inner) if isinstance(one, ast.Name))


def _is_code_of(source: str, function: FunctionType) -> bool:
    """Whether a function was compiled from a statement."""
    wanted = _shape(function.__code__)
    waiting = [compile(source, "<session>", "exec")]
    while waiting:
        code = waiting.pop()
        if code.co_name == function.__name__ and _shape(code) == wanted:
            return True
        waiting += [one for one in code.co_consts if isinstance(one, CodeType)]
    return False


def _shape(code: CodeType) -> tuple[Any, ...]:
    consts = tuple(_shape(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts)
    return code.co_code, consts, code.co_names, code.co_varnames
