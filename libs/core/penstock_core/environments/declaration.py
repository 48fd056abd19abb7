"""What a user declares that steps need installed: part of a pipeline, resolved to a lock by the builder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import field
from typing import ClassVar

from penstock_core import ids
from penstock_core.environments.image_options import ImageOptions
from penstock_core.errors import PenstockError
from penstock_core.frozen import frozen

LINES = 2000
"""Requirements and constraints of one declaration."""

LINE = 1000
"""Characters of one of them."""

FILE = 512 * 1024
"""Characters of a `pyproject.toml` or `uv.lock`."""

_PYTHON = re.compile(r"3\.\d{1,2}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\])?\s*")
_INDEX = re.compile(r"https?://\S+\Z")
_CREDENTIALS = re.compile(r"://[^/\s@]*@")
_FILE_CREDENTIALS = re.compile(r"https?://[^/\s@?#\"']+@")
_AFTER_NAME = ("", *"=<>!~;(@")


class InvalidDeclarationError(PenstockError, ValueError):
    """A declaration of an environment is not valid; the message says which part and what to do."""

    user_fault: ClassVar[bool] = True


@frozen(kw_only=True)
class EnvironmentDeclaration:
    """An environment as declared: names of distributions with or without versions, not yet resolved.

    Attributes:
        name: of the environment, unique in a pipeline.
        python: minor version of Python, such as `3.12`.
        requirements: requirements as in `requirements.txt` (PEP 508), such as `pandas>=2`.
        constraints: versions of distributions that are installed only if something needs them.
        index: URL of the package index instead of the platform's own default.
        extra_indexes: URLs of further indexes.
        pyproject, uv_lock: contents of these files; if given, the environment is what `uv.lock` locks.
        extras: optional dependencies of the project in `pyproject`.
        image: how the image for pods is made.

    Raises:
        InvalidDeclarationError: a part is not valid.
    """

    name: str
    python: str
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    index: str = ""
    extra_indexes: tuple[str, ...] = ()
    pyproject: str = ""
    uv_lock: str = ""
    extras: tuple[str, ...] = ()
    image: ImageOptions = field(default_factory=ImageOptions)

    def __post_init__(self) -> None:
        ids.check_name(self.name, "environment")
        if (problem := next(self._problems(), None)) is not None:
            raise InvalidDeclarationError(f"environment {self.name!r}: {problem}")

    def digest(self) -> str:
        """SHA-256 of everything but the name; the order of requirements does not count."""
        parts = [
            1,
            self.python,
            sorted({normal(line) for line in self.requirements}),
            sorted({normal(line) for line in self.constraints}),
            self.index,
            list(self.extra_indexes),
            self.pyproject,
            self.uv_lock,
            sorted(self.extras),
            self.image.identity(),
        ]
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

    @property
    def installs(self) -> bool:
        """Whether distributions are to be installed; otherwise an image can be the whole environment."""
        return bool(self.requirements or self.uv_lock)

    def _problems(self) -> Iterator[str]:
        if not _PYTHON.match(self.python):
            yield f'python must be a minor version such as "3.12", not {self.python[:50]!r}'
        if len(self.requirements) + len(self.constraints) > LINES:
            yield f"it has more than {LINES} requirements"
        for line in (*self.requirements, *self.constraints):
            if (problem := _line_problem(line)) is not None:
                yield f"requirement {_CREDENTIALS.sub('://***@', line)[:200]!r} {problem}"
        for index in (self.index, *self.extra_indexes):
            if index and (problem := _index_problem(index)) is not None:
                yield problem
        yield from self._file_problems()
        yield from self.image.problems()
        if self.image.image and self.installs:
            yield "an image by digest contains everything: leave requirements and project out, or use base=…"

    def _file_problems(self) -> Iterator[str]:
        if max(len(self.pyproject), len(self.uv_lock)) > FILE:
            yield f"pyproject.toml or uv.lock has more than {FILE} characters"
        for name, content in (("pyproject.toml", self.pyproject), ("uv.lock", self.uv_lock)):
            if _FILE_CREDENTIALS.search(content):
                yield f"a URL in {name} contains a user or a password: configure them where the builder runs"
        if self.uv_lock and not self.pyproject:
            yield "uv.lock needs the pyproject.toml that it belongs to"
        if self.uv_lock and (self.requirements or self.constraints):
            yield "uv.lock says everything that is installed: leave requirements and constraints out"


def normal(line: str) -> str:
    """Return a requirement without superfluous spaces, and the name of the distribution in lower case."""
    line = re.sub(r"\s+", " ", line.strip())
    found = _NAME.match(line)
    if found is None:
        return line
    name = re.sub(r"[-_.]+", "-", found[0].replace(" ", "")).lower()
    return name + line[found.end() :].replace(" ", "" if ";" not in line and "@" not in line else " ")


def _index_problem(index: str) -> str | None:
    if _CREDENTIALS.search(index):
        return "the URL of an index contains a user or a password: configure them where the builder runs"
    if not _INDEX.match(index) or len(index) > LINE or "${" in index:
        return f"{index[:200]!r} is not the URL of a package index"
    return None


def _line_problem(line: str) -> str | None:
    if not line.strip() or len(line) > LINE or not line.isprintable():
        return f"must have 1 to {LINE} printable characters"
    if line.lstrip().startswith("-"):
        return "is an option: only requirements such as 'pandas>=2' are possible here"
    name = _NAME.match(line.strip())
    rest = line.strip()[name.end() :] if name is not None else "?"
    if rest[:1] not in _AFTER_NAME:
        return (
            "does not begin with the name of a distribution: expected 'NAME', 'NAME>=1' or 'NAME @ https://…'; "
            "local files and folders cannot be installed"
        )
    if "${" in line:
        return "refers to an environment variable: the builder has none of yours"
    target = rest[1:].strip().lower() if rest.startswith("@") else ""
    if re.match(r"(git|hg|svn|bzr)\+", target):
        return "refers to a repository, for which no hash can be locked: put a wheel of it on an index"
    if target and not target.startswith(("http://", "https://")):
        return "refers to a file: the builder has none of your files. Put the package on an index"
    if _CREDENTIALS.search(line):
        return "contains a user or a password: configure them where the builder runs"
    return None
