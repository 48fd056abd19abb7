"""The part of a module that one of its steps can run: everything but the bodies of other steps and pipelines.

The body of a step or pipeline runs only when it is called, and a call needs a reference. A body does not count if its
function has no other decorators, and nothing that counts contains its name: no identifier, attribute, import or text.
Where a module looks up names in other ways (`globals`, `inspect`, …), all of it counts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

_LOOKUPS = frozenset(
    {"__dict__", "__doc__", "__getattr__", "__globals__", "ctypes", "dir", "gc", "globals", "inspect", "locals", "vars"}
)
_DECORATORS = frozenset({"step", "pipeline"})


def relevant_code(source: bytes, function: str) -> str:
    """The syntax tree of a module as text, without what the step called `function` cannot run.

    Comments and formatting do not appear in it.

    Raises:
        SyntaxError: the source is no Python.
        ValueError: the module looks up names in ways that this function does not follow.
    """
    tree = ast.parse(source)
    tree.body = [statement for statement in tree.body if not _only_as_script(statement)]
    others = _steps(tree)
    others.pop(function, None)
    bodies = {name: node.body for name, node in others.items()}
    for node in others.values():
        node.body = [ast.Pass()]
    waiting = set(_identifiers([tree]))
    found = set(waiting)
    while waiting:
        if waiting & _LOOKUPS:
            raise ValueError(f"the module uses {min(waiting & _LOOKUPS)}")
        called = waiting & bodies.keys()
        waiting = set()
        for name in called:
            others[name].body = bodies.pop(name)
            waiting |= set(_identifiers(others[name].body)) - found
        found |= waiting
    return ast.dump(tree)


def _only_as_script(statement: ast.stmt) -> bool:
    """Whether it is `if __name__ == "__main__":`, which is never true where steps run."""
    match statement:
        case ast.If(
            test=ast.Compare(left=ast.Name("__name__"), ops=[ast.Eq()], comparators=[ast.Constant("__main__")])
        ):
            return not statement.orelse
        case _:
            return False


def _steps(tree: ast.Module) -> dict[str, Function]:
    """The top-level functions, defined once, whose only decorators are `@step` and `@pipeline`; by name."""
    decorators = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "penstock" and not node.level
        for alias in node.names
        if alias.name in _DECORATORS
    }
    found: dict[str, list[Function]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            plain = not isinstance(node, ast.ClassDef) and node.decorator_list
            if plain and all(_is_decorator(one, decorators) for one in node.decorator_list):
                found.setdefault(node.name, []).append(node)  # type: ignore[arg-type]
            else:
                found.setdefault(node.name, []).clear()
    return {name: nodes[0] for name, nodes in found.items() if len(nodes) == 1}


def _is_decorator(node: ast.expr, names: set[str]) -> bool:
    match node.func if isinstance(node, ast.Call) else node:
        case ast.Name(name):
            return name in names
        case ast.Attribute(ast.Name("penstock"), name):
            return name in _DECORATORS
        case _:
            return False


def _identifiers(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """All names, attributes, imported names and words of texts, without docstrings."""
    for top in nodes:
        docstrings = {
            id(node.value)
            for node in ast.walk(top)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(top):
            match node:
                case ast.Name(name) | ast.Attribute(attr=name):
                    yield name
                case ast.alias(name, other):
                    yield from (*name.split("."), other or "")
                case ast.Constant(str() as text) if id(node) not in docstrings:
                    yield from re.findall(r"\w+", text)
                case _:
                    pass
