"""A Python file taken apart by the names that its top-level statements bind and read; nothing in it is run.

In: a file. Out: for each name what binds it, what that reads, and which modules are imported. What does not change
what code does is left out at once: comments, form, docstrings, and `@step(...)`, whose options matter elsewhere.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

_UNKNOWABLE = frozenset({"exec", "eval", "globals"})
_MAX_KEPT = 1000

Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class UnknowableCodeError(Exception):
    """What code does cannot be told by reading it; says where and why."""


@dataclass(frozen=True, slots=True)
class Import:
    """One name of an import statement: `import module` or `from module import name`, `level` dots up."""

    module: str
    name: str = ""
    level: int = 0


@dataclass(frozen=True)
class Unit:
    """A top-level statement, without what does not matter, and the names that it binds."""

    node: ast.stmt
    binds: frozenset[str]
    file: Path

    @cached_property
    def text(self) -> str:
        """Equal for equal code, whatever its form."""
        return ast.dump(self.node, annotate_fields=False)

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the module, or built in, that it reads when it runs or when something that it defines is called."""
        table = symtable.symtable(ast.unparse(self.node), str(self.file), "exec")
        return frozenset(_globals(table)) | frozenset(_annotation_names(self.node))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """What it imports, also in the bodies of its functions.

        Raises:
            Unknowable: the name of a module is worked out when it runs.
        """
        return tuple(_imports(self.node, self.file))


@dataclass
class Source:
    """A parsed file."""

    file: Path
    units: list[Unit] = field(default_factory=list[Unit])
    options: set[str] = field(default_factory=set[str])
    """Names that are read where the options of steps are given."""

    @cached_property
    def binding(self) -> dict[str, list[Unit]]:
        """The units that bind or change each name."""
        found: dict[str, list[Unit]] = {}
        for unit in self.units:
            for name in unit.binds:
                found.setdefault(name, []).append(unit)
        return found

    @cached_property
    def side_effect_imports(self) -> list[Unit]:
        """Imports of which no name is read anywhere in the file: they are there for what they do. Star imports, too."""
        read = {name for unit in self.units for name in unit.reads} | self.options
        return [
            unit for unit in self.units if isinstance(unit.node, ast.Import | ast.ImportFrom) and not unit.binds & read
        ]

    def check(self, units: list[Unit]) -> None:
        """Raise `UnknowableCodeError` when one of `units` runs code that is not in a file."""
        for unit in units:
            found = sorted((unit.reads & _UNKNOWABLE) - set(self.binding))
            if found:
                line = _line_of(unit.node, found[0])
                raise UnknowableCodeError(
                    f"{self.file}:{line}: it uses {found[0]}, so that what it runs shows only then"
                )


_kept: dict[tuple[Path, int, int], Source] = {}


def parse(file: Path) -> Source:
    """Take a file apart; one that has not changed is read once.

    Raises:
        Unknowable: it cannot be read, or is no Python.
    """
    try:
        status = file.stat()
        key = (file, status.st_mtime_ns, status.st_size)
        if key not in _kept:
            tree = ast.parse(file.read_bytes(), str(file))
            if len(_kept) >= _MAX_KEPT:
                _kept.clear()
            _kept[key] = _parse_units(tree, file)
        return _kept[key]
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise UnknowableCodeError(f"{file} cannot be read: {error}") from error


def _parse_units(tree: ast.Module, file: Path) -> Source:
    bare = _Normalizer(tree)
    source = Source(file, options=bare.options)
    for statement in tree.body:
        if _only_as_script(statement):
            continue
        for part in _split_imports(statement):
            node = bare.visit(part)
            source.units.append(Unit(node, frozenset(_binds(node)), file))
    if source.units and bare.has_docstring(tree):
        del source.units[0]
    return source


def _only_as_script(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":` never holds in a step's process."""
    return (
        isinstance(statement, ast.If)
        and not statement.orelse
        and isinstance(test := statement.test, ast.Compare)
        and isinstance(test.left, ast.Name)
        and test.left.id == "__name__"
        and isinstance(test.ops[0], ast.Eq)
    )


def _split_imports(statement: ast.stmt) -> Iterator[ast.stmt]:
    """An import of several names as several imports, so that each counts for itself."""
    match statement:
        case ast.Import(names):
            yield from (ast.copy_location(ast.Import([alias]), statement) for alias in names)
        case ast.ImportFrom(module, names, level):
            yield from (ast.copy_location(ast.ImportFrom(module, [alias], level), statement) for alias in names)
        case _:
            yield statement


class _Normalizer(ast.NodeTransformer):
    """Takes docstrings away, and the decorators that only say how the platform runs a step."""

    def __init__(self, tree: ast.Module) -> None:
        self.steps: set[str] = set()
        self.packages: set[str] = set()
        self.options: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "penstock" and not node.level:
                self.steps |= {alias.asname or alias.name for alias in node.names if alias.name == "step"}
            elif isinstance(node, ast.Import):
                self.packages |= {alias.asname or alias.name for alias in node.names if alias.name == "penstock"}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._scope(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._scope(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._scope(node)

    def _scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.AST:
        for one in node.decorator_list:
            if self._is_step(one):
                self.options |= {part.id for part in ast.walk(one) if isinstance(part, ast.Name)}
        node.decorator_list = [one for one in node.decorator_list if not self._is_step(one)]
        if self.has_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    def _is_step(self, decorator: ast.expr) -> bool:
        match decorator.func if isinstance(decorator, ast.Call) else decorator:
            case ast.Name(name):
                return name in self.steps
            case ast.Attribute(ast.Name(package), "step"):
                return package in self.packages
            case _:
                return False

    @staticmethod
    def has_docstring(node: Scope) -> bool:
        match node.body:
            case [ast.Expr(ast.Constant(str())), *_]:
                return True
            case _:
                return False


def _binds(statement: ast.stmt) -> Iterator[str]:
    """The names of the module that a top-level statement binds, or whose object it changes as far as that shows."""
    for node in _module_level_nodes(statement):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Name(name, ast.Store() | ast.Del()):
                yield name
            case ast.Import([alias]):
                yield alias.asname or alias.name.partition(".")[0]
            case ast.ImportFrom(_, [alias]):
                yield alias.asname or alias.name
            case ast.ExceptHandler(_, str() as name) | ast.MatchAs(_, str() as name) | ast.MatchStar(str() as name):
                yield name
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                yield from _root(node)
            case ast.Expr(value):
                # `TABLE.update(…)`, `register(TABLE)`: any of these may be changed by it.
                yield from (part.id for part in ast.walk(value) if isinstance(part, ast.Name))
            case _:
                pass
    for node in ast.walk(statement):
        if isinstance(node, ast.Global):
            yield from node.names


def _module_level_nodes(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes that run with the module itself: not those inside functions and classes."""
    level: list[ast.AST] = [statement]
    while level:
        node = level.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            level += [
                part
                for child in ast.iter_child_nodes(node)
                for part in (_split_imports(child) if isinstance(child, ast.stmt) else (child,))
            ]


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    """The names that a statement reads from its module, here and in all scopes inside."""
    top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (top or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals(child)


def _annotation_names(statement: ast.stmt) -> Iterator[str]:
    """The names in annotations that are written as texts."""
    for node in ast.walk(statement):
        match node:
            case ast.arg(annotation=ast.expr() as hint) | ast.AnnAssign(annotation=hint):
                hints = [hint]
            case ast.FunctionDef(returns=ast.expr() as hint) | ast.AsyncFunctionDef(returns=ast.expr() as hint):
                hints = [hint]
            case _:
                continue
        texts = [part.value for hint in hints for part in ast.walk(hint) if isinstance(part, ast.Constant)]
        for text in texts:
            try:
                tree = ast.parse(text, mode="eval") if isinstance(text, str) else None
            except SyntaxError:
                continue
            yield from (part.id for part in ast.walk(tree) if isinstance(part, ast.Name)) if tree else ()


def _imports(statement: ast.stmt, file: Path) -> Iterator[Import]:
    for node in ast.walk(statement):
        match node:
            case ast.Import(names):
                yield from (Import(alias.name) for alias in names)
            case ast.ImportFrom(module, names, level):
                yield from (Import(module or "", alias.name, level) for alias in names)
            case ast.Call(ast.Attribute(attr="import_module") | ast.Name("import_module" | "__import__"), arguments):
                match arguments:
                    case [ast.Constant(str() as name)]:
                        yield Import(name)
                    case _:
                        where = f"{file}:{node.lineno}"
                        raise UnknowableCodeError(f"{where}: it imports a module whose name shows only when it runs")
            case _:
                pass


def _line_of(statement: ast.stmt, name: str) -> int:
    return next(
        (node.lineno for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id == name),
        statement.lineno,
    )
