"""Errors of the client. Every message says what happened and what to do next.

ClientError
├── NoPlatformError        no platform is running for this state folder, and no URL was given
├── PlatformFailedError    an embedded platform did not start, or stopped; shows the end of its log
├── UnreachableError       the platform did not answer in time
├── RefusedError           the platform rejected the request; carries the HTTP status
│   ├── NotFoundError      the run, version, step, output or artifact does not exist
│   └── UnauthorizedError  the token is missing or wrong
├── RunFailedError         a run that should have succeeded failed or was cancelled
├── JobFailedError         a maintenance job of the platform failed or stopped answering
└── SourceError            the user's file could not be imported; carries the user's traceback
"""

from __future__ import annotations

from penstock_core.errors import PenstockError


class ClientError(PenstockError):
    """Base of the errors of the client."""


class NoPlatformError(ClientError):
    """No platform is running here."""


class PlatformFailedError(ClientError):
    """An embedded platform did not start, or stopped."""


class UnreachableError(ClientError):
    """The platform did not answer in time."""


class RefusedError(ClientError):
    """The platform rejected a request.

    Attributes:
        status: the HTTP status.
        title: what happened.
        detail: the cause, and how to fix it.
        errors: pairs of a field and the problem with its value.
    """

    def __init__(self, status: int, title: str, detail: str = "", errors: tuple[tuple[str, str], ...] = ()) -> None:
        self.errors = errors
        self.status = status
        self.title = title
        self.detail = detail
        super().__init__(f"{title}: {detail}" if detail else title)


class NotFoundError(RefusedError):
    """A resource does not exist on the platform."""


class UnauthorizedError(RefusedError):
    """The token is missing or wrong."""


class RunFailedError(ClientError):
    """A run did not succeed. `state` is `failed` or `cancelled`; `error` names the step and the cause."""

    def __init__(self, run_id: str, state: str, error: str | None) -> None:
        self.run_id = run_id
        self.state = state
        self.error = error
        super().__init__(f"run {run_id} {state}" + (f": {error}" if error else ""))


class JobFailedError(ClientError):
    """A maintenance job of the platform failed, or stopped reporting progress."""


class SourceError(ClientError):
    """The user's file could not be imported. `trace` is the user's traceback without platform frames, or empty."""

    def __init__(self, message: str, trace: str = "") -> None:
        self.trace = trace
        super().__init__(message)
