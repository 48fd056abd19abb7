"""The errors of the core.

PenstockError                   base of all errors that Penstock raises on purpose
├── DefinitionError             a pipeline or step is defined wrongly; has the file and line [user]
├── InvalidIdError              a name or identifier has invalid characters or an invalid length [user]
├── InvalidFactError            a fact contradicts its own rules [platform]
├── InputError                  the inputs of a run or a query are wrong [user]
│   ├── InvalidInputsError      a run request is invalid; lists every problem [user]
│   └── InvalidQueryError       (queries.search) a filter or an order is invalid [user]
├── InvalidDeclarationError     (environments.declaration) a declared environment is invalid [user]
├── InvalidLockError            (environments.lock) a text is no lock of an environment [platform]
├── UnavailableError            a service did not answer in time [platform, retryable]
├── ConditionError              (pipeline.conditions) a condition cannot be evaluated [user]
├── NoSuchPartError             (pipeline.tagged) a value has no such index or key [user]
├── UnresolvableBindingError    (run.value_resolution) an input of a step cannot be resolved [user]
├── UnsafeFolderError           (folders) a folder manifest has a path outside of its folder [user]
├── SecretError                 (secrets.records) a secret is missing, refused or unreadable [user]
├── InvalidPolicyError          (retention) a retention policy is invalid [user]
├── GateError                   (registry.errors) a gate expression is invalid [user]
└── RegistryError               (registry.errors) a change of a registered model is refused [user]

Two attributes classify every error: `retryable`, whether the same call may succeed later, and `user_fault`, whether the
user has to change something, as opposed to the platform's operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class PenstockError(Exception):
    """Base of all errors that Penstock raises on purpose. By default final, and the platform's fault."""

    retryable: ClassVar[bool] = False
    user_fault: ClassVar[bool] = False


class UnavailableError(PenstockError):
    """A service did not answer in time or cannot be reached."""

    retryable: ClassVar[bool] = True


class InvalidIdError(PenstockError, ValueError):
    """A name or identifier has invalid characters or an invalid length."""

    user_fault: ClassVar[bool] = True


class InvalidFactError(PenstockError, ValueError):
    """A fact contradicts its own rules."""


class InputError(PenstockError, ValueError):
    """The inputs of a run or a query are wrong."""

    user_fault: ClassVar[bool] = True


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
        message: what is wrong and how to fix it, without the location.
        file: the user's file, or None if unknown.
        line: the line in that file, counted from 1.
    """

    user_fault: ClassVar[bool] = True

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        self.message = message
        self.file = file
        self.line = line
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(where + message)
