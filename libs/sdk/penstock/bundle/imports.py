"""The project modules that a module imports, directly and transitively, read from their source; nothing is executed.

In: the root of a project and the name of one of its modules. Out: the SHA-256 of every project module that importing
it can execute, and, where reading the source cannot tell, the reason with file and line.

A project module is a Python file, or an extension module, below the project's root, below a folder of `sys.path` that
is neither the standard library nor `site-packages` (`PYTHONPATH`, editable installations), or found there by an
editable installation's import hook. Installed packages are part of the environment instead.

The search over-approximates: imports inside functions and under `TYPE_CHECKING`, both branches of an `if`, and texts
that name a project module all count. A module that imports by a computed name, executes other code, or opens files of
the project sets `dynamic`; callers then take the digest of the whole source bundle.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Names of folders that hold installed distributions."""

_OWN = re.compile(r"penstock(_\w+)?\Z")
_DOTTED = re.compile(r"\.*[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")
_LONGEST_PATH = 255

_DYNAMIC_MODULES = frozenset(
    {"code", "codeop", "imp", "importlib.machinery", "importlib.resources", "importlib.util", "importlib_resources"}
    | {"pkgutil", "pydoc", "runpy", "subprocess", "zipimport"}
)
_DYNAMIC_NAMES = frozenset(
    {"__file__", "__import__", "__loader__", "__path__", "__spec__", "compile", "eval", "exec", "import_module"}
)
_DYNAMIC_ATTRIBUTES = frozenset(
    {"__file__", "__import__", "__loader__", "__path__", "__spec__", "exec_module", "import_module", "load_module"}
    | {"getsourcefile", "reload", "run_module", "run_path", "spec_from_file_location"}
    | {"create_subprocess_exec", "create_subprocess_shell", "entry_points"}
)
# Functions that load pickles or create objects of classes that are named by data: they import any module.
_LOADERS = frozenset({"instantiate", "load_model", "read_pickle"})
_UNPICKLERS = frozenset({"Unpickler", "load", "loads", "open"})
_DYNAMIC_MEMBERS = {
    "sys": frozenset({"meta_path", "modules", "path", "path_hooks"}),
    "os": frozenset({"popen", "system"}),
    "importlib": frozenset({"machinery", "resources", "util"}),
    "builtins": frozenset({"compile", "eval", "exec"}),
    **dict.fromkeys(("cloudpickle", "dill", "joblib", "pickle", "shelve", "torch"), _UNPICKLERS),
}
_PROCESS_STARTS = re.compile(r"(exec|spawn)[vl]p?e?\Z|posix_spawnp?\Z")
_FILE_READS = re.compile(r"(open|[ir]?glob|iterdir|listdir|scandir|walk|read_\w+|load|load_\w+|loadtxt|imread)\Z")
_IMPORT_CALLS = frozenset({"__import__", "import_module"})


@dataclass(frozen=True, slots=True)
class ImportClosure:
    """What a module can execute when it is imported.

    Attributes:
        modules: SHA-256 in hexadecimal by name of the project module, sorted by name.
        dynamic: `file:line: reason` where the source does not show what is executed or read; empty otherwise.
    """

    modules: dict[str, str]
    dynamic: str = ""

    def digest(self, bundle: str) -> str:
        """SHA-256 over names and contents of the modules; where `dynamic` is set also over the digest of the bundle."""
        identity = [self.modules, bundle if self.dynamic else ""]
        return hashlib.sha256(json.dumps(identity, separators=(",", ":")).encode()).hexdigest()


class ProjectModules:
    """Finds and reads the modules of one project.

    Args:
        root: the folder that is first on the module path when the project's modules are imported.
    """

    def __init__(self, root: Path) -> None:
        self._roots = [root.resolve(), *_project_paths(root.resolve())]
        self._found: dict[str, Path | None] = {}
        self._hooked: dict[str, Path | None] = {}
        self._listed: dict[Path, frozenset[str]] = {}

    def closure(self, *modules: str) -> ImportClosure:
        """The modules that importing `modules` can execute, with themselves and the packages around them."""
        digests: dict[str, str] = {}
        reasons: list[str] = []
        waiting = list(modules)
        while waiting:
            name = waiting.pop()
            if name in digests or (file := self.find(name)) is None:
                continue
            status = file.stat()
            parsed = _parse(file, status.st_mtime_ns, status.st_size)
            digests[name] = parsed.digest
            if parsed.dynamic:
                reasons.append(parsed.dynamic)
            package = name if file.stem == "__init__" else name.rpartition(".")[0]
            waiting += _parents(name)
            for imported in parsed.imports:
                full = _absolute(imported, package)
                self._look_for_hook(full.partition(".")[0])
                waiting += [full, *_parents(full)]
            reasons += self._mentions(parsed, file, package, waiting)
        return ImportClosure(dict(sorted(digests.items())), min(reasons, default=""))

    def find(self, name: str) -> Path | None:
        """The file of a project module; None for other modules."""
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def _search(self, name: str) -> Path | None:
        parts = name.split(".")
        if not name or _OWN.match(parts[0]):
            return None
        for root in self._roots:
            if (file := self._module_file(root, parts)) is not None:
                return file
        top = self._hooked.get(parts[0])
        return None if top is None else self._module_file(top.parent, [top.name, *parts[1:]])

    def _module_file(self, root: Path, parts: Sequence[str]) -> Path | None:
        folder, name = root, parts[-1]
        for part in parts[:-1]:
            if part not in self._names(folder):
                return None
            folder /= part
        names = self._names(folder)
        if name in names and "__init__.py" in self._names(folder / name):
            return folder / name / "__init__.py"
        if f"{name}.py" in names:
            return folder / f"{name}.py"
        binary = min((one for one in names if one.startswith(f"{name}.") and one.endswith(".so")), default=None)
        return None if binary is None else folder / binary

    def _names(self, folder: Path) -> frozenset[str]:
        """The names in a folder; none where there is no such folder."""
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))  # noqa: PTH208 - only names are needed
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def _look_for_hook(self, top: str) -> None:
        """Ask the import hooks of editable installations for a module that is imported, but not for mere texts."""
        if top not in self._hooked and self.find(top) is None:
            self._hooked[top] = None if _OWN.match(top) or top in sys.stdlib_module_names else _hooked(top)
            self._found.pop(top, None)

    def _mentions(self, parsed: _Parsed, file: Path, package: str, waiting: list[str]) -> Iterator[str]:
        """Add project modules that texts name to `waiting`; yield a reason for each text that names a project file."""
        for text, line in parsed.texts:
            if _DOTTED.match(dotted := text.partition(":")[0]):
                relative = _absolute(f".{dotted}", package) if package else dotted
                names = [_absolute(dotted, package)] if dotted.startswith(".") else [dotted, relative]
                # The last part may be a class or a function: `package.module.Model`.
                for name in names:
                    waiting += [name, *_parents(name)]
            if any(_is_data(folder, text) for folder in (self._roots[0], file.parent)):
                yield f"{file}:{line}: it names {text!r}, a file or folder of the project"


@dataclass(frozen=True, slots=True)
class _Parsed:
    digest: str
    imports: tuple[str, ...] = ()
    texts: tuple[tuple[str, int], ...] = ()
    dynamic: str = ""


@functools.lru_cache(maxsize=4096)
def _parse(file: Path, changed_ns: int, size: int) -> _Parsed:
    """Read a file once for each state of it; a module's imports keep their leading dots."""
    del changed_ns, size
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if file.suffix != ".py":
        return _Parsed(digest)
    try:
        tree = ast.parse(data, str(file))
    except (SyntaxError, ValueError, RecursionError) as error:
        return _Parsed(digest, dynamic=f"{file}: it cannot be parsed: {error}")
    reader = _Reader(tree)
    reader.visit(tree)
    dynamic = f"{file}:{reader.dynamic[0]}: {reader.dynamic[1]}" if reader.dynamic else ""
    return _Parsed(digest, tuple(dict.fromkeys(reader.imports)), tuple(reader.texts.items()), dynamic)


class _Reader(ast.NodeVisitor):
    """Collects imports, texts (without docstrings), and the first construct whose effect only shows at run time."""

    def __init__(self, tree: ast.Module) -> None:
        self._modules = {
            alias.asname: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.asname
        }
        self.imports: list[str] = []
        self.texts: dict[str, int] = {}
        self.dynamic: tuple[int, str] | None = None
        self._depth = 0

    def _report(self, node: ast.expr | ast.stmt, reason: str) -> None:
        if self.dynamic is None or node.lineno < self.dynamic[0]:
            self.dynamic = (node.lineno, reason)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = "." * node.level + (node.module or "")
        self._import(node, base)
        for alias in node.names:
            if alias.name != "*":
                self._import(node, f"{base}{'' if base.endswith('.') or not base else '.'}{alias.name}")
            renamed = alias.asname and alias.name in _DYNAMIC_ATTRIBUTES
            if renamed or alias.name in _LOADERS or alias.name in _DYNAMIC_MEMBERS.get(node.module or "", ()):
                self._report(node, f"it uses {node.module}.{alias.name}")

    def _import(self, node: ast.stmt, name: str) -> None:
        if name in _DYNAMIC_MODULES:
            self._report(node, f"it imports {name}")
        self.imports.append(name)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in _IMPORT_CALLS:
            match node.args:
                case [ast.Constant(str() as name)]:
                    self.imports.append(name)
                case _:
                    self._report(node, f"it imports a module by a computed name ({called})")
            for part in [*node.args, *node.keywords]:
                self.visit(part)
            return
        if self._depth == 0 and _FILE_READS.match(called):
            self._report(node, f"it reads files while it is imported ({called})")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in _DYNAMIC_NAMES and isinstance(node.ctx, ast.Load):
            self._report(node, f"it uses {node.id}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = node.value.id if isinstance(node.value, ast.Name) else ""
        owner = self._modules.get(owner, owner)
        if (
            node.attr in _DYNAMIC_ATTRIBUTES
            or node.attr in _LOADERS
            or node.attr in _DYNAMIC_MEMBERS.get(owner, ())
            or (owner == "os" and _PROCESS_STARTS.match(node.attr))
        ):
            self._report(node, f"it uses {owner or '…'}.{node.attr}")
        self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg == "allow_pickle":
            self._report(node.value, "it loads pickles (allow_pickle)")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value.strip("./ ") and len(node.value) <= _LONGEST_PATH:
            self.texts.setdefault(node.value, node.lineno)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # docstrings name modules and files in prose
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node)

    def _function(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1


def _absolute(name: str, package: str) -> str:
    """The full name of an import with leading dots in a module of `package`."""
    rest = name.lstrip(".")
    level = len(name) - len(rest)
    if not level:
        return name
    parts = package.split(".") if package else []
    return ".".join([*parts[: max(0, len(parts) - level + 1)], *([rest] if rest else [])])


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _project_paths(root: Path) -> list[Path]:
    """Folders of the module path, besides `root`, whose modules belong to no installed distribution."""
    library = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    found: list[Path] = []
    for entry in dict.fromkeys(sys.path):
        folder = Path(entry).resolve()
        outside = not INSTALLED & set(folder.parts) and not library & {folder, folder.parent}
        if entry and outside and folder != root and folder.is_dir():
            found.append(folder)
    return found


def _hooked(top: str) -> Path | None:
    """Where an editable installation's import hook finds a top-level module; None for installed and missing modules."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin).resolve()
    if INSTALLED & set(path.parts) or Path(sysconfig.get_path("stdlib")).resolve() in path.parents:
        return None
    return path.parent if path.stem == "__init__" else path.with_suffix("")


def _is_data(folder: Path, text: str) -> bool:
    """Whether a text names a file in `folder`, or a folder that is no package: packages count as modules."""
    path = os.path.join(folder, text)  # noqa: PTH118 - once for each text of each module
    try:
        exists = not os.path.isabs(text) and os.path.lexists(path)  # noqa: PTH117
    except ValueError:  # a character that no path can have
        return False
    return exists and not os.path.exists(os.path.join(path, "__init__.py"))  # noqa: PTH110, PTH118
