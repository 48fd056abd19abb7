"""Documentation pages as tests: parse fenced blocks, and compare real output with the output shown.

A Markdown block, with the comments that may precede it:

- a first line `# file: NAME` makes it a file; one that ends in `.py` is imported, unless a command uses it;
- `python` is a script of its own, or a session when it begins with `>>>`;
- `console` holds commands, in lines that begin with `$ `, and below each what it prints;
- `<!-- not run: REASON -->` leaves it alone, `<!-- exits CODE -->` says how its commands end (0 if nothing is said),
  `<!-- kept running -->` that its last command goes on, until `^C` or the end of the page, `<!-- kept running: all -->`
  that all of them do, each in a terminal of its own;
- `<!-- hidden` … `-->` holds lines that are run like a `console` block and that readers do not see.

In shown output `…` matches anything. Ids, times, durations, sizes, ports and paths are compared by their form only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_COMMENT = re.compile(r"<!--\s*(?:(?P<mark>not run|exits|kept running)\s*:?\s*(?P<value>.*?)|.*?)\s*-->\s*\Z")
_FENCE = re.compile(r"(?P<ticks>```+)(?P<language>\w*)\s*\Z")
_FILE = re.compile(r"#\s*file:\s*(?P<name>[\w./-]+)\s*\Z")
_HIDDEN = "<!-- hidden"


@dataclass(frozen=True, slots=True)
class Command:
    """A command as typed, and its expected output lines."""

    text: str
    line: int
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: `line` is the first line of its content, `marks` the comments before it."""

    language: str
    lines: tuple[str, ...]
    line: int
    marks: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def text(self) -> str:
        """The whole content."""
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def file(self) -> str | None:
        """The name of the file that the block contains."""
        found = _FILE.match(self.lines[0]) if self.lines else None
        return found["name"] if found else None

    @property
    def commands(self) -> list[Command]:
        """The commands of a `console` block."""
        found: list[Command] = []
        for number, line in enumerate(self.lines, self.line):
            if line.startswith("$ "):
                found.append(Command(line[2:], number))
            elif found and found[-1].text.endswith("\\"):
                found[-1] = Command(f"{found[-1].text}\n{line}", found[-1].line)
            elif found:
                found[-1] = Command(found[-1].text, found[-1].line, (*found[-1].shown, line))
        return found


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    lines = text.splitlines()
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        fence = _FENCE.match(line)
        if fence or line == _HIDDEN:
            closing = fence["ticks"] if fence else "-->"
            end = number + 1
            while lines[end].strip() != closing:
                end += 1
            language = fence["language"] if fence else "console"
            yield Block(language, tuple(lines[number + 1 : end]), number + 2, marks)
            number, marks = end, {}
        elif comment := _COMMENT.match(line):
            if comment["mark"]:
                marks = {**marks, comment["mark"]: comment["value"]}
        elif line:
            marks = {}
        number += 1


# --------------------------------------------------------------------------------------------------------- comparing

# Patterns of output that varies between runs, in the order of application.
_FORMS: tuple[tuple[str, str], ...] = (
    (r"\x1b\[[0-9;]*m", ""),
    (r"[^\s'\"=(]*/\.venv/", "VENV/"),
    (r"sha256/[0-9a-f]{2}/[0-9a-f]{64}", "OBJECT"),
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\b[0-9a-f]{12,40}\b", "DIGEST"),
    (r"\b[0-9a-hjkmnp-tv-z]{26}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?)?( ?[+-]\d\d:?\d\d|Z)?", "DATE"),
    (r"\b\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(\.\d+)?", "DATE"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "CLOCK"),
    (r"\b\d+(\.\d+)? (kB|MB|GB|TB|KiB|MiB|GiB|B)\b", "SIZE"),
    (r"\b(\d+ (min|h) )?\d+(\.\d+)? (ms|s|min|h)\b(?! left)", "TOOK"),
    (r"\b\d{9,}\.\d+\b", "TIME"),
    (r"\bv\d+\b", "vN"),  # changes of the environment create new versions, too
    (r"127\.0\.0\.1:\d+", "HOST:PORT"),
    (r'(\b(process|pid|kill|port) |"(pid|port)": ?)\d+', r"\1N"),
    (r"\[\d+\]", "[N]"),
    (r"[░█─]+", " "),
    (r"\s+", " "),
)
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _FORMS]
_RUNNING = re.compile(r"CLOCK \S+ running( attempt \d+)?\Z")


def plain(line: str) -> str:
    """Replace everything in a line that varies between runs."""
    for pattern, replacement in _COMPILED:
        line = pattern.sub(replacement, line)
    return line.strip()


def missing(shown: tuple[str, ...], output: str) -> list[str]:
    """Return the lines that are shown but were not printed.

    Lines about running steps are ignored: a step that finishes at once prints none.
    """
    real = {plain(line) for line in output.splitlines()}
    return [line for line in shown if not _printed(plain(line), real)]


def _printed(line: str, real: set[str]) -> bool:
    if not line.strip("… ") or _RUNNING.match(line) or line in real:
        return True
    if "…" not in line:
        return False
    pattern = re.compile(".*".join(re.escape(part) for part in line.split("…")))
    return any(pattern.fullmatch(one) for one in real)


_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)#\s]*)(#(?P<anchor>[^)\s]+))?\)")
_HEADING = re.compile(r"#{1,6} +(?P<title>.+?)\s*\Z")


def _prose(text: str) -> Iterator[str]:
    """Yield the lines of a page outside its fenced blocks."""
    fenced = False
    for line in text.splitlines():
        if line.strip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield line


def links(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the files that a page links to, each with its anchor; external URLs are left out."""
    for line in _prose(text):
        for found in _LINK.finditer(line):
            if "://" not in found["target"]:
                yield found["target"], found["anchor"]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = [found["title"] for line in _prose(text) if (found := _HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def pages(root: Path) -> list[Path]:
    """Return the README and all pages of the user documentation whose examples are run.

    The command reference is excluded: its blocks show excerpts of many different runs, terminals and servers.
    """
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]
