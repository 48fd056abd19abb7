"""Finds in the source where a list with `*scores` in it is measured: its length is known to the run only.

`[*scores, 1]` is a plain list for Python, in which one element takes the place of all scores. So `len([*scores, 1])`
would be 2. No placeholder notices that; the source around the `*` shows it, if it can be read.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import itertools
from types import CodeType, FrameType

_COPIES = frozenset({"list", "tuple"})
_METHODS = frozenset({"append", "copy", "extend"})
"""Methods that do not depend on the length of a list."""


def measured(frame: FrameType) -> tuple[str, int] | None:
    """The expression that measures the list which user code is extending by a list of unknown length, and its line.

    Args:
        frame: the frame of the user code, in the operation that extends the list.
    """
    positions = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    parents = _parents(frame.f_code)
    node = next((one for one in parents if _position(one) == positions and isinstance(one, _LISTS)), None)
    if node is None:
        return None
    found = _Uses(parents, frame).of(node)
    return None if found is None else (ast.unparse(found), found.lineno)


_LISTS = (ast.List, ast.AugAssign, ast.BinOp)


def _position(node: ast.AST) -> tuple[int, int, int, int]:
    return tuple(getattr(node, name, -1) for name in ("lineno", "end_lineno", "col_offset", "end_col_offset"))  # pyright: ignore[reportReturnType] - four of them


@functools.lru_cache(maxsize=32)
def _parents(code: CodeType) -> dict[ast.AST, ast.AST]:
    """The nodes of the file of a function's code with the nodes around them; none if it cannot be read."""
    try:
        tree = ast.parse("".join(inspect.findsource(code)[0]))
    except (OSError, SyntaxError, TypeError, ValueError, RecursionError):
        return {}
    return {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}


class _Uses:
    """What a function does with a list."""

    def __init__(self, parents: dict[ast.AST, ast.AST], frame: FrameType) -> None:
        self._parents = parents
        self._shadowed = {**frame.f_globals, **frame.f_locals}

    def of(self, node: ast.AST) -> ast.expr | None:
        """The expression that measures the value of a node; None if nothing does."""
        if isinstance(node, ast.AugAssign):
            return self._of_name(node.target, node)
        parent = self._parents[node]
        match parent:
            case ast.Call(func=ast.Name(name)) if node is not parent.func and self._is_builtin(name):
                return self.of(parent) if name in _COPIES else parent
            case ast.Attribute(attr=name):
                return None if name in _METHODS else parent
            case ast.Subscript() | ast.Compare() | ast.UnaryOp(op=ast.Not()) | ast.BoolOp():
                return parent
            case ast.For() | ast.comprehension() if node is parent.iter:
                return node  # pyright: ignore[reportReturnType] - an expression
            case ast.If() | ast.While() | ast.IfExp() | ast.Assert() if node is parent.test:
                return node  # pyright: ignore[reportReturnType] - an expression
            case ast.Starred() if isinstance(self._parents[parent], ast.List):
                return self.of(self._parents[parent])
            case ast.BinOp() | ast.IfExp() | ast.AugAssign():
                return self.of(parent)
            case ast.NamedExpr():
                return self._of_name(parent.target, parent) or self.of(parent)
            case ast.Assign():
                return next(filter(None, (self._of_name(target, parent) for target in parent.targets)), None)
            case ast.AnnAssign():
                return self._of_name(parent.target, parent)
            case _:
                return None

    def _is_builtin(self, name: str) -> bool:
        return hasattr(builtins, name) and name not in self._shadowed and name != "print"

    def _of_name(self, target: ast.expr, statement: ast.AST) -> ast.expr | None:
        """What measures a variable after a statement has set it, until it is set again."""
        if isinstance(target, ast.Tuple | ast.List):
            return target
        if not isinstance(target, ast.Name):
            return None
        function = self._function(statement)
        after = (getattr(statement, "end_lineno", 0), getattr(statement, "end_col_offset", 0))
        names = [one for one in ast.walk(function) if isinstance(one, ast.Name) and one.id == target.id]
        for name in sorted(names, key=lambda one: (one.lineno, one.col_offset)):
            if (name.lineno, name.col_offset) < after or self._function(name) is not function:
                continue
            if isinstance(name.ctx, ast.Store) and not isinstance(self._parents[name], ast.AugAssign):
                return None
            found = self.of(name) if isinstance(name.ctx, ast.Load) else None
            if found is not None:
                return found
        return None

    def _function(self, node: ast.AST) -> ast.AST:
        while not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module):
            node = self._parents[node]
        return node
