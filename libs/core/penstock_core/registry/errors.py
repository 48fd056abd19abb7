"""The errors of the model registry.

RegistryError            a request is refused; `advice` says what to do
├── NotFoundError        there is no such model, version or alias
├── ConflictError        the request conflicts with the present state
└── GateRefusedError     the version does not pass the gate; has the result of each comparison
GateError                a gate is invalid; says where
"""

from __future__ import annotations

from typing import ClassVar

from penstock_core.errors import PenstockError


class RegistryError(PenstockError):
    """A request is refused. `advice` says what to do."""

    user_fault: ClassVar[bool] = True

    def __init__(self, message: str, advice: str = "") -> None:
        self.message = message
        self.advice = advice
        super().__init__(f"{message}: {advice}" if advice else message)


class NotFoundError(RegistryError):
    """There is no such model, version or alias."""


class ConflictError(RegistryError):
    """The request conflicts with the present state."""


class GateRefusedError(RegistryError):
    """The version does not pass the gate."""

    def __init__(self, message: str, advice: str, clauses: tuple[str, ...]) -> None:
        self.clauses = clauses
        super().__init__(message, advice)


class GateError(PenstockError, ValueError):
    """A gate is invalid. `at` is the index of the character, from 0."""

    user_fault: ClassVar[bool] = True

    def __init__(self, text: str, at: int, problem: str) -> None:
        self.at = at
        previous = text[:at].rstrip()
        where = f"after {previous[-60:]!r}" if previous else "at its beginning"
        super().__init__(f"{problem}, {where} (character {at + 1} of the gate)")
