"""Finds in the source of a pipeline's body what no placeholder can notice: `x is None`, `type(x)`, `match x`.

Only what is certainly a placeholder is reported: a parameter, or a variable that only ever gets results of steps.
Source that cannot be read, as in an interactive session, is not checked.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from penstock_core.errors import DefinitionError

_ADVICE = (
    "Pass it to a step, and do this inside the step; for steps that depend on it, use 'with when(...):', as in "
    "when({name} == None)"
)


def check(function: Callable[..., Any], what: str) -> None:
    """Check a pipeline's function.

    Raises:
        DefinitionError: it decides by the identity or type of a placeholder; with the user's line.
    """
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError, TypeError):
        return
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return
    known = _placeholders(definition, _names(function))
    for node in _walk(definition.body):
        found = _identity(node, known)
        if found is not None:
            used, expression = found
            name = ast.unparse(expression)
            raise DefinitionError(
                f"{name} has no value yet while {what} is compiled, so {used} here does not mean what it says. "
                + _ADVICE.format(name=name),
                function.__code__.co_filename,
                first + expression.lineno - 1,
            )


def _identity(node: Any, known: _Known) -> tuple[str, ast.expr] | None:
    """What decides by a placeholder's identity or type, and the placeholder."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for operator, pair in zip(node.ops, itertools.pairwise(sides), strict=True):
            if isinstance(operator, ast.Is | ast.IsNot):
                found = next((side for side in pair if known.is_placeholder(side)), None)
                if found is not None:
                    return f"{ast.unparse(node)!r}", found
    elif isinstance(node, ast.Match) and known.is_placeholder(node.subject):
        return "'match'", node.subject
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("type", "callable", "hasattr", "id")
        and node.args
        and known.is_placeholder(node.args[0])
    ):
        return f"{ast.unparse(node)!r}", node.args[0]
    return None


class _Known:
    """The names of a body that are certainly placeholders, and the functions of the platform that make them."""

    def __init__(self, names: set[str], makers: dict[str, Any]) -> None:
        self.names = names
        self.makers = makers

    def is_placeholder(self, node: ast.expr) -> bool:
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Name):
            return node.id in self.names
        return isinstance(node, ast.Call) and self.is_call(node)

    def is_call(self, node: ast.Call) -> bool:
        """Whether a call is one of a step, such as `train(x)`, `train.map(x)` or `module.train(x)`."""
        path: list[str] = []
        target: ast.expr = node.func
        while isinstance(target, ast.Attribute):
            path.insert(0, target.attr)
            target = target.value
        if isinstance(target, ast.Call):
            return self.is_call(target)
        if not isinstance(target, ast.Name):
            return False
        found = self.makers.get(target.id)
        for part in path:
            if _is_step(found):
                break
            found = getattr(found, part, None) if inspect.ismodule(found) else None
        return _is_step(found)


def _is_step(found: Any) -> bool:
    return type(found).__module__.startswith("penstock.authoring.") and not isinstance(found, type)


def _placeholders(definition: ast.FunctionDef, makers: dict[str, Any]) -> _Known:
    """Parameters and variables all of whose values are placeholders."""
    arguments = definition.args
    known = _Known({one.arg for one in (*arguments.args, *arguments.kwonlyargs)}, makers)
    values: dict[str, list[ast.expr | None]] = {}
    for node in _walk(definition.body):
        for name, value in _assigned(node):
            values.setdefault(name, []).append(value)
    known.makers = {name: one for name, one in makers.items() if name not in values and name not in known.names}
    for name, several in values.items():
        if all(value is not None and known.is_placeholder(value) for value in several):
            known.names.add(name)
        else:
            known.names.discard(name)
    return known


def _assigned(node: Any) -> Iterator[tuple[str, ast.expr | None]]:
    """The names that a statement or expression sets, each with its value where that is one expression."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        yield node.targets[0].id, node.value
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name):
        yield node.target.id, node.value
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
        yield node.id, None


def _walk(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes of a body, without those of functions inside."""
    waiting: list[ast.AST] = list(reversed(body))
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            waiting.append(node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name):
            waiting += [node.value] if node.value is not None else []
        else:
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def _names(function: Callable[..., Any]) -> dict[str, Any]:
    """The names that the body can see around it."""
    closure = inspect.getclosurevars(function)
    return {**closure.builtins, **function.__globals__, **closure.nonlocals}
