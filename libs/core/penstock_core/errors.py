"""The errors of the domain.

PenstockError
├── DefinitionError     a pipeline or step is wrong; carries the user's file and line
├── InvalidId           a name or id has characters or a length it may not have
├── InvalidFact         a fact contradicts its own rules
└── InputError          the inputs given to a run do not fit the pipeline
"""

from __future__ import annotations

from collections.abc import Sequence


class PenstockError(Exception):
    """Base of all errors that Penstock raises on purpose."""


class InvalidIdError(PenstockError, ValueError):
    """A name or id has characters or a length it may not have."""


class InvalidFactError(PenstockError, ValueError):
    """A fact contradicts its own rules."""


class InputError(PenstockError, ValueError):
    """The inputs given to a run do not fit the pipeline."""


class InvalidInputsError(InputError):
    """A run request is invalid.

    Attributes:
        title: one sentence without the details.
        errors: pairs of a path, such as `inputs.depth`, and what is wrong there.
    """

    def __init__(self, title: str, errors: Sequence[tuple[str, str]]) -> None:
        self.title = title
        self.errors = tuple(errors)
        super().__init__(f"{title}: {self.detail}")

    @property
    def detail(self) -> str:
        """All problems in one line."""
        return "; ".join(f"{path}: {message}" for path, message in self.errors)


class DefinitionError(PenstockError):
    """A pipeline or step is defined wrongly.

    Attributes:
        message: what is wrong and what to do, without the location.
        file: the user's file, or None where it is unknown.
        line: the line in that file, counted from 1.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        self.message = message
        self.file = file
        self.line = line
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(where + message)
