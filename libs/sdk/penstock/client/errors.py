"""What can go wrong between a client and the platform. Every message says what happened and what to do next.

ClientError
├── NoPlatform       no platform is running for this state folder, and no address was given
├── PlatformFailed   an embedded platform did not start, or stopped; shows the end of its log
├── Unreachable      the platform is known but did not answer in time
├── Refused          the platform answered "no"; carries the HTTP status
│   ├── NotFound     there is no such run, version, step, output or artifact
│   └── Unauthorized the token is missing or wrong
├── RunFailed        `wait` or `value` met a run that failed or was cancelled
└── SourceError      the user's file could not be loaded; carries the user's traceback
"""

from __future__ import annotations

from penstock_core.errors import PenstockError


class ClientError(PenstockError):
    """Base of the errors of `penstock.client.client`."""


class NoPlatformError(ClientError):
    """No platform is running here."""


class PlatformFailedError(ClientError):
    """An embedded platform did not start or stopped by itself."""


class UnreachableError(ClientError):
    """The platform did not answer in time."""


class RefusedError(ClientError):
    """The platform refused a request.

    Attributes:
        status: the HTTP status.
        title: what happened.
        detail: what to do.
        errors: pairs of a field and what is wrong with it, where the platform names fields.
    """

    def __init__(self, status: int, title: str, detail: str = "", errors: tuple[tuple[str, str], ...] = ()) -> None:
        self.errors = errors
        self.status = status
        self.title = title
        self.detail = detail
        super().__init__(f"{title}: {detail}" if detail else title)


class NotFoundError(RefusedError):
    """There is no such thing on the platform."""


class UnauthorizedError(RefusedError):
    """The token is missing or wrong."""


class RunFailedError(ClientError):
    """A run did not succeed. `state` is `failed` or `cancelled`; `error` says which step and why."""

    def __init__(self, run_id: str, state: str, error: str | None) -> None:
        self.run_id = run_id
        self.state = state
        self.error = error
        super().__init__(f"run {run_id} {state}" + (f": {error}" if error else ""))


class SourceError(ClientError):
    """The user's file could not be loaded. `trace` is the user's traceback without platform frames, or empty."""

    def __init__(self, message: str, trace: str = "") -> None:
        self.trace = trace
        super().__init__(message)
