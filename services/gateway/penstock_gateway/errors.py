"""Errors of the gateway's features, without HTTP; `http.problems` maps each to a status.

GatewayError
├── NotFoundError           the run, step, version, ... does not exist
├── ConflictError           the request contradicts the present state
├── UnprocessableError      the request is well-formed and its content is invalid
├── ContentTooLargeError    the content exceeds a limit
├── TooManyRequestsError    a limit of requests is exceeded: retry later
├── ForbiddenError          the principal lacks a permission
├── RequestTimeoutError     the request was not answered within its time limit
├── UnverifiedError         a signature, or another proof of a secret, is missing or wrong
├── RunFailedError          the run whose output was requested did not succeed
└── BadReplyError           another service sent a reply that cannot be used

All but `BadReplyError` are the caller's to fix; only after `TooManyRequestsError` it helps to retry unchanged. The core
has two more: `InvalidInputsError` for an invalid run request, and `UnavailableError`, which can be retried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from penstock_core.errors import PenstockError

FieldErrors = Sequence[tuple[str, str]]
"""Pairs of a field and what is wrong with it, such as `("inputs.depth", "expected int, got 3.5")`."""


class GatewayError(PenstockError):
    """A request cannot be served.

    Args:
        message: what happened.
        advice: how to fix it.
        errors: the fields of the request that are invalid.
    """

    user_fault: ClassVar[bool] = True

    def __init__(self, message: str, advice: str = "", *, errors: FieldErrors = ()) -> None:
        self.errors = errors
        super().__init__(f"{message}: {advice}" if advice else message)


class NotFoundError(GatewayError):
    """The run, step, version or other object does not exist."""


class ConflictError(GatewayError):
    """The request contradicts the present state."""


class UnprocessableError(GatewayError):
    """The request is well-formed and its content is invalid."""


class ContentTooLargeError(GatewayError):
    """The content exceeds a limit."""


class TooManyRequestsError(GatewayError):
    """A limit of requests is exceeded. `retry_after` is when it may be repeated, in seconds."""

    def __init__(self, message: str, advice: str = "", *, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message, advice)


class ForbiddenError(GatewayError):
    """The principal lacks a permission."""


class RequestTimeoutError(GatewayError):
    """The request was not answered within its time limit."""


class UnverifiedError(GatewayError):
    """A signature, or another proof of a secret, is missing or wrong."""


class RunFailedError(GatewayError):
    """The run whose output was requested did not succeed."""


class BadReplyError(GatewayError):
    """Another service sent a reply that cannot be used."""

    user_fault: ClassVar[bool] = False
