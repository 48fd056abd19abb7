"""Errors of the SDK and the client. Every message says what happened, where, and what to do next.

PenstockError (penstock_core.errors)
├── DefinitionError         a pipeline or step is defined wrongly; carries the user's file and line
├── InputError              inputs do not fit a pipeline
│   └── MissingAnswerError  a local run waits for an answer, event or run that the caller did not pass
├── UnloadableError         a saved value cannot be read
│   └── UnsafeFormatError   loading it could execute code, and the project forbids that
├── ArtifactMissingError    the artifact store has no object with this digest
├── ArtifactDamagedError    the bytes of an object differ from those that were stored
├── ArtifactTooLargeError   an artifact is larger than the platform's limit
├── StoreFullError          the disk or its quota is full
├── NotInScriptsError       an operation needs a step of a run on the platform
└── ClientError
    ├── NoPlatformError        no platform is running for this state folder, and no URL was given
    ├── PlatformFailedError    an embedded platform did not start, or stopped; shows the end of its log
    ├── UnreachableError       the platform did not answer in time
    ├── RefusedError           the platform rejected the request; carries the HTTP status
    │   ├── NotFoundError      the run, version, step, output or artifact does not exist
    │   └── UnauthorizedError  the token is missing or wrong
    ├── BuildFailedError      a version cannot be built from its repository
    ├── EnvironmentFailedError a declared environment cannot be resolved or installed
    ├── RunFailedError         a run that should have succeeded failed or was cancelled
    ├── JobFailedError         a maintenance job of the platform failed or stopped answering
    └── SourceError            the user's file could not be imported; carries the user's traceback
TypeError
└── UnsavableError          a value cannot be saved
    └── ForbiddenFormatError   only a format that can execute code could keep it, and the project forbids these
"""

from __future__ import annotations

from penstock_core.errors import InputError, PenstockError


class MissingAnswerError(InputError):
    """A local run waits for an answer, an event or a run that the caller did not pass."""


class UnsavableError(TypeError):
    """A value cannot be saved; the message names the value and says what to do."""


class ForbiddenFormatError(UnsavableError):
    """Only a format whose loading can execute code could keep a value, and the project forbids these formats."""


class UnloadableError(PenstockError):
    """A saved value cannot be read."""


class UnsafeFormatError(UnloadableError):
    """Loading a value can execute code, and the project forbids that."""


class ArtifactMissingError(PenstockError, LookupError):
    """The store has no object with this digest."""


class ArtifactDamagedError(PenstockError):
    """The bytes of an object differ from those that were stored."""


class ArtifactTooLargeError(PenstockError, ValueError):
    """An artifact is larger than the platform's limit; nothing was stored."""


class StoreFullError(PenstockError):
    """The disk or its quota is full; no partial object is visible."""


class NotInScriptsError(PenstockError, NotImplementedError):
    """An operation needs a step of a run on the platform, and this is a script."""


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
        title: the reason phrase of the status, such as `Not found`.
        detail: what happened and how to fix it: the message of the error.
        errors: pairs of a field and the problem with its value.
    """

    def __init__(self, status: int, title: str, detail: str = "", errors: tuple[tuple[str, str], ...] = ()) -> None:
        self.errors = errors
        self.status = status
        self.title = title
        self.detail = detail
        super().__init__(detail or title)


class NotFoundError(RefusedError):
    """A resource does not exist on the platform."""


class UnauthorizedError(RefusedError):
    """The token is missing or wrong."""


class EnvironmentFailedError(ClientError):
    """A declared environment cannot be resolved or installed; the message has the words of the resolver."""


class BuildFailedError(ClientError):
    """A version cannot be built from its repository, or its build was cancelled; the message says why."""


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
