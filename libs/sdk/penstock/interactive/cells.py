"""The inputs of an interactive session: of IPython and Jupyter, and of Python's own prompt."""

from __future__ import annotations

import ast
import codeop
import importlib
import linecache
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_PROMPT_INPUT = re.compile(r"<python-input-(\d+)>\Z")
_TRANSPARENT = frozenset({"capture", "prun", "time"})
"""Magics of cells that run the cell in the session."""

_CONTINUES = re.compile(r"\s|(elif|else|except|finally)\b")


@dataclass(frozen=True, slots=True)
class Cell:
    """An input: where it was entered, for messages, and its source; magics are calls of `get_ipython()`."""

    label: str
    source: str

    def statements(self) -> list[ast.stmt]:
        """Return its top-level statements; none if it is not valid Python."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                return compile(self.source, self.label, "exec", flags, dont_inherit=True).body
        except (SyntaxError, ValueError):
            return []


def history() -> list[Cell]:
    """Return the inputs of this session, oldest first; none where they are not kept."""
    shell = ipython()
    if shell is not None:
        sources = shell.history_manager.input_hist_parsed
        return [Cell(f"cell [{number}]", _body(source)) for number, source in enumerate(sources) if source]
    numbered = sorted((int(match[1]), name) for name in linecache.cache if (match := _PROMPT_INPUT.match(name)))
    if numbered:  # Python 3.13 and later
        return [Cell(f"input {number}", "".join(linecache.getlines(name))) for number, name in numbered]
    return [Cell(f"input {number}", source) for number, source in enumerate(_statements(_typed_lines()), 1)]


def _body(source: str) -> str:
    """Return the body of a cell whose magic runs it in the session, such as `%%time`; any other cell as it is."""
    match Cell("", source).statements():
        case [
            ast.Expr(
                ast.Call(
                    func=ast.Attribute(attr="run_cell_magic"),
                    args=[ast.Constant(str() as magic), _, ast.Constant(str() as body)],
                )
            )
        ] if magic in _TRANSPARENT:
            return body
        case _:
            return source


def ipython() -> Any:
    """Return the shell of IPython or Jupyter that this process runs; None elsewhere."""
    module: Any = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def _typed_lines() -> list[str]:
    """Return the lines that readline has of this and of earlier sessions."""
    try:
        readline = importlib.import_module("readline")
    except ImportError:
        return []
    length = readline.get_current_history_length()
    return [readline.get_history_item(number) or "" for number in range(1, length + 1)]


def _statements(lines: Sequence[str]) -> Iterator[str]:
    """Split lines into statements. The history has no empty lines, so the next statement ends an indented block."""
    buffer = ""
    for line in [*lines, ""]:
        complete = _is_complete(buffer) if buffer else False
        if complete and not _CONTINUES.match(line):
            yield buffer
        if complete is False or (complete and not _CONTINUES.match(line)):
            buffer = ""
        buffer += f"{line}\n" if line else ""


def _is_complete(source: str) -> bool | None:
    """Whether a source is complete: None if more lines may complete it, False if it can never be valid."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return True if codeop.compile_command(f"{source}\n", symbol="exec") is not None else None
    except (SyntaxError, ValueError, OverflowError):
        return False
