"""Patterns of files to exclude, in the syntax of `.gitignore` (gitignore(5)): the last match decides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_WILD = re.compile(r"/\*\*/|^\*\*/|/\*\*$|\*+|\?|\[!?[^\]/]*\]|\\.")


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    folders_only: bool
    keeps: bool


class Rules:
    """The patterns of one file."""

    def __init__(self, lines: list[str]) -> None:
        self._rules = [rule for line in lines if (rule := _rule(line)) is not None]

    @classmethod
    def read(cls, file: Path) -> Rules:
        """Read the patterns of a file; no patterns if it does not exist."""
        try:
            return cls(file.read_text(encoding="utf-8", errors="replace").splitlines())
        except (FileNotFoundError, IsADirectoryError):
            return cls([])

    def match(self, name: str, folder: bool) -> bool:
        """Whether a file or folder, given relative to the root, is excluded."""
        left_out = False
        for rule in self._rules:
            if (folder or not rule.folders_only) and rule.pattern.match(name):
                left_out = not rule.keeps
        return left_out


def _rule(line: str) -> _Rule | None:
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    keeps = text.startswith("!")
    text = text.removeprefix("!")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    # A slash at the beginning or in the middle ties the pattern to the root.
    anchored = "/" in text
    text = text.removeprefix("/")
    if not text:
        return None
    body = _WILD.sub(lambda found: _translate(found[0]), _quote(text))
    try:
        pattern = re.compile(("" if anchored else "(?:.*/)?") + body + r"\Z", re.DOTALL)
    except re.error:
        # Brackets that form no set are literal.
        pattern = re.compile(("" if anchored else "(?:.*/)?") + re.escape(text) + r"\Z", re.DOTALL)
    return _Rule(pattern, folders_only, keeps)


def _quote(text: str) -> str:
    """Escape what regular expressions know and patterns do not."""
    return re.sub(r"[.^$+{}()|]", lambda found: "\\" + found[0], text)


def _translate(wild: str) -> str:
    match wild:
        case "/**/":
            return "/(?:.*/)?"
        case "**/":
            return "(?:.*/)?"
        case "/**":
            return "/.*"
        case "?":
            return "[^/]"
        case _ if wild.startswith("*"):
            return "[^/]*"
        case _ if wild.startswith("[!"):
            return "[^" + wild[2:]
        case _:
            return wild
