"""Mutation tests of the run state machine: altered copies that the checks must detect. Mutants are written as code.

A mutant names the function that it alters and is itself a function, whose source is parsed and which is never
called. `with BEFORE:` holds the code to find, an expression or consecutive statements, and `with AFTER:` the code to
put there:

    @alters(retry.decide)
    def one_retry_too_few(history, policy):
        with BEFORE:
            history.failures > policy.retries
        with AFTER:
            history.failures >= policy.retries

Parameters match any expression, the same one everywhere. All other names are those of the source. Since a mutant is
code that refers to the code, tools that rename one rename the other, and formatting and local names do not matter.
Code that is not found exactly once in the function raises `StaleMutantError`.
"""

from __future__ import annotations

import ast
import copy
import functools
import graphlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import penstock_core.run
from penstock_core.run import machine
from penstock_testkit.checks.state_machine import Machine

BEFORE: Any = nullcontext()
AFTER: Any = nullcontext()

_PACKAGE = penstock_core.run.__name__
_MACHINE = machine.__name__


class StaleMutantError(Exception):
    """The code that a mutant replaces does not occur exactly once in its function."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `before` by `after` in a function; `wildcards` are names that match any expression."""

    before: Sequence[ast.stmt]
    after: Sequence[ast.stmt]
    wildcards: frozenset[str]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A named alteration of one function of the run state machine. `names` are additional names for `AFTER`."""

    name: str
    function: Callable[..., Any]
    edits: tuple[Edit, ...]
    names: dict[str, Any] = field(default_factory=dict[str, Any])

    def module(self) -> ModuleType:
        """Return a copy of `penstock_core.run.machine` that uses the altered function.

        Raises:
            StaleMutantError: the function is not part of the machine, or an edit does not match exactly once.
        """
        altered = self.function.__module__
        modules = _dependents(altered)
        if not modules:
            raise StaleMutantError(f"{self.name}: the run state machine does not use {altered}")
        originals = {name: sys.modules[name] for name in modules}
        try:
            for name in modules:
                # Modules copied later import the earlier copies, so that a copied machine is consistent.
                duplicate = _copy(originals[name], self if name == altered else None)
                setattr(penstock_core.run, name.rpartition(".")[2], duplicate)
            return sys.modules[_MACHINE]
        finally:
            for name, module in originals.items():
                sys.modules[name] = module
                setattr(penstock_core.run, name.rpartition(".")[2], module)

    def machine(self) -> Machine:
        """Return the altered state machine."""
        return Machine.of(self.module())


def alters(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Mutant]:
    """Make a mutant of `function` from a function whose body consists of `with BEFORE:` and `with AFTER:` blocks."""

    def read(written: Callable[..., Any]) -> Mutant:
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(written))).body
        assert isinstance(definition, ast.FunctionDef)
        wildcards = frozenset(argument.arg for argument in definition.args.args)
        blocks = [block.body for block in definition.body if isinstance(block, ast.With)]
        edits = [Edit(old, new, wildcards) for old, new in zip(blocks[::2], blocks[1::2], strict=True)]
        return Mutant(definition.name.replace("_", " "), function, tuple(edits), written.__globals__)

    return read


# ---------------------------------------------------------------------------------------------------- copies of modules


@functools.cache
def _dependents(module: str) -> tuple[str, ...]:
    """Return the modules to copy when one is altered, each after the modules it imports."""
    imports = {name: _imports(name) for name in sys.modules if name.startswith(f"{_PACKAGE}.")}
    used = {_MACHINE}
    for name in reversed(order := [*graphlib.TopologicalSorter(imports).static_order()]):
        used |= imports[name] if name in used else set()
    affected = {module} & used
    for name in order:
        affected |= {name} if name in used and imports[name] & affected else set()
    return tuple(name for name in order if name in affected)


def _imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_source(module))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name in sys.modules and name.startswith(f"{_PACKAGE}.")}


def _source(module: str) -> str:
    return Path(str(sys.modules[module].__file__)).read_text()


def _copy(module: ModuleType, mutant: Mutant | None) -> ModuleType:
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(_source(module.__name__))
    duplicate = importlib.util.module_from_spec(spec)
    if mutant is not None:
        _alter(tree, mutant)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & mutant.names.keys()
        duplicate.__dict__.update((name, mutant.names[name]) for name in names)
    sys.modules[module.__name__] = duplicate  # dataclasses look up their module
    code = compile(ast.fix_missing_locations(tree), f"{spec.origin} (mutant)", "exec")
    exec(code, duplicate.__dict__)  # noqa: S102 - our own source
    return duplicate


# -------------------------------------------------------------------------------------------------------- edits of code


def _alter(tree: ast.Module, mutant: Mutant) -> None:
    function = _definition(tree, mutant.function.__qualname__.split("."))
    for edit in mutant.edits:
        places = [*_matches(function, edit)]
        if len(places) != 1:
            code = ast.unparse(ast.Module([*edit.before], []))
            where = f"{mutant.function.__module__}.{mutant.function.__qualname__}"
            raise StaleMutantError(f"{mutant.name}: {len(places)} times in {where}: {code!r}")
        (replace,) = places
        replace()


def _definition(tree: ast.AST, path: list[str]) -> ast.AST:
    for name in path:
        tree = next(node for node in ast.iter_child_nodes(tree) if getattr(node, "name", None) == name)
    return tree


def _matches(function: ast.AST, edit: Edit) -> Iterator[Callable[[], None]]:
    """Return, for each occurrence of the code, a function that replaces it."""
    pair = (edit.before, edit.after)
    expressions = [block[0].value for block in pair if len(block) == 1 and isinstance(block[0], ast.Expr)]
    for parent in ast.walk(function):
        for attribute, value in ast.iter_fields(parent):
            entries = value if isinstance(value, list) else [value]
            for at, entry in enumerate(entries):
                found: dict[str, ast.expr] = {}
                if len(expressions) == 2:
                    if isinstance(entry, ast.expr) and _equal(expressions[0], entry, edit.wildcards, found):
                        yield functools.partial(_put, parent, attribute, at, 1, [_filled(expressions[1], found)])
                elif isinstance(entry, ast.stmt):
                    here = entries[at : at + len(edit.before)]
                    if _equal([*edit.before], here, edit.wildcards, found):
                        after = [_filled(statement, found) for statement in edit.after]
                        yield functools.partial(_put, parent, attribute, at, len(here), after)


def _put(parent: ast.AST, field: str, at: int, length: int, nodes: list[ast.AST]) -> None:
    value = getattr(parent, field)
    if isinstance(value, list):
        value[at : at + length] = nodes
    else:
        setattr(parent, field, nodes[0])


def _equal(pattern: Any, code: Any, wildcards: frozenset[str], found: dict[str, ast.expr]) -> bool:
    if isinstance(pattern, ast.Name) and pattern.id in wildcards and isinstance(code, ast.expr):
        known = found.setdefault(pattern.id, code)
        return known is code or _equal(known, code, frozenset(), {})
    if isinstance(pattern, ast.expr_context):
        return True
    if isinstance(pattern, list):
        return (
            isinstance(code, list)
            and len(pattern) == len(code)
            and all(_equal(one, other, wildcards, found) for one, other in zip(pattern, code, strict=True))
        )
    if isinstance(pattern, ast.AST):
        return type(pattern) is type(code) and all(
            _equal(value, getattr(code, field, None), wildcards, found) for field, value in ast.iter_fields(pattern)
        )
    return type(pattern) is type(code) and pattern == code


def _filled(node: ast.AST, found: dict[str, ast.expr]) -> ast.AST:
    """Return a copy of the replacement in which each wildcard is the expression that it matched."""

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return copy.deepcopy(found.get(node.id, node))

    return Fill().visit(copy.deepcopy(node))
