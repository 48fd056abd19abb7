"""Which statements of a session bind its names, and which change the values of names that are bound."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from penstock.interactive.cells import Cell

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)


@dataclass(slots=True)
class Bindings:
    """The statements of a session by the names that they bind, oldest first, and those that change a name."""

    bound: dict[str, list[tuple[Cell, ast.stmt]]] = field(default_factory=dict[str, list[tuple[Cell, ast.stmt]]])
    changed: dict[str, tuple[Cell, ast.stmt]] = field(default_factory=dict[str, tuple[Cell, ast.stmt]])


def read(history: list[Cell]) -> Bindings:
    """Read the statements of a history."""
    found = Bindings()
    for cell in history:
        for one in cell.statements():
            for name in _bound(one):
                found.bound.setdefault(name, []).append((cell, one))
                found.changed.pop(name, None)
            for name in _changed(one):
                found.changed[name] = (cell, one)
    return found


def _bound(one: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement binds in a way that can be repeated."""
    match one:
        case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) | ast.ClassDef(name):
            yield name
        case ast.Import(names) | ast.ImportFrom(names=names):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
        case ast.Assign() | ast.AnnAssign(value=ast.expr()):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            yield from (name for target in targets for name in _stored(target))
        case ast.If() | ast.Try() | ast.With() if not _is_main_guard(one):
            yield from (name for inner in ast.iter_child_nodes(one) for name in _bound_inside(inner))
        case _:
            pass


def _bound_inside(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.stmt):
        yield from _bound(node)
    elif isinstance(node, ast.ExceptHandler | ast.withitem):
        yield from (name for inner in ast.iter_child_nodes(node) for name in _bound_inside(inner))


def _changed(one: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement changes: `x += 1`, `x[0] = 1`, `x.a = 1`, `del x`, `for x in …`."""
    if isinstance(one, DEFINITIONS) or _is_main_guard(one):
        return
    for node in ast.walk(one):
        match node:
            case ast.AugAssign(target=target):
                yield from _root(target)
            case ast.Assign(targets=targets):
                yield from (name for target in targets if not isinstance(target, ast.Name) for name in _root(target))
            case ast.Delete(targets=targets):
                yield from (name for target in targets for name in _root(target))
            case ast.For() | ast.While() | ast.Match():
                yield from _stored(node)
            case _:
                pass


def _root(target: ast.expr) -> Iterator[str]:
    while isinstance(target, ast.Subscript | ast.Attribute):
        target = target.value
    if isinstance(target, ast.Name):
        yield target.id


def _stored(node: ast.AST) -> list[str]:
    return [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]


def _is_main_guard(one: ast.stmt) -> bool:
    return isinstance(one, ast.If) and any(
        isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(one.test)
    )
