"""Errors as RFC 9457 problem details: the one place that maps errors to HTTP.

Every response of 400 and above is made by `problem`, so a client can rely on the media type and the fields: `title` is
the reason of the status, `detail` says what happened and how to fix it, `errors` names the invalid fields.
"""

from __future__ import annotations

import math
from typing import Any

import orjson
import pydantic
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException

from penstock_adapters.errors import (
    ArtifactError,
    ArtifactMismatchError,
    ArtifactMissingError,
    ArtifactTooLargeError,
    StoreFullError,
)
from penstock_adapters.nats.buckets.versions import UnreadableVersionError
from penstock_adapters.nats.bus import BusError
from penstock_adapters.nats.run_log import FactTooLargeError
from penstock_adapters.sql.errors import DatabaseError
from penstock_contracts.archives import ArchiveDamagedError
from penstock_core.deployments.backfills import BackfillError, NoBackfillError
from penstock_core.deployments.state import ConflictError as DeploymentConflictError
from penstock_core.deployments.state import NoDeploymentError
from penstock_core.errors import InvalidInputsError, PenstockError
from penstock_core.registry import errors as registry
from penstock_gateway.errors import (
    BadReplyError,
    ConflictError,
    ContentTooLargeError,
    FieldErrors,
    ForbiddenError,
    GatewayError,
    NotFoundError,
    RequestTimeoutError,
    RunFailedError,
    TooManyRequestsError,
    UnverifiedError,
)

MEDIA_TYPE = "application/problem+json"

TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    410: "Gone",
    413: "Content too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    421: "Misdirected request",
    422: "Unprocessable",
    429: "Too many requests",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timeout",
    507: "Insufficient storage",
}

_STATUSES: dict[type[BaseException], int] = {
    NotFoundError: 404,
    ConflictError: 409,
    ContentTooLargeError: 413,
    TooManyRequestsError: 429,
    RequestTimeoutError: 504,
    UnverifiedError: 401,
    ForbiddenError: 403,
    RunFailedError: 500,
    BadReplyError: 502,
    ArtifactError: 500,
    ArtifactMissingError: 404,
    ArtifactMismatchError: 422,
    ArtifactTooLargeError: 413,
    StoreFullError: 507,
    ArchiveDamagedError: 500,
    NoDeploymentError: 404,
    DeploymentConflictError: 409,
    BackfillError: 409,
    NoBackfillError: 404,
    registry.RegistryError: 409,
    registry.NotFoundError: 404,
    DatabaseError: 503,
    UnreadableVersionError: 500,
    BusError: 502,
    FactTooLargeError: 413,
}
"""The statuses of errors, and of their subclasses, that `user_fault` and `retryable` do not determine."""

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_RETRY_AFTER = {"retry-after": "1"}


class RequestError(HTTPException):
    """The HTTP request itself cannot be used: its body, a header, a range.

    Args:
        status: of the response.
        detail: what is wrong and how to fix it.
        errors: the invalid fields.
        headers: of the response.
    """

    def __init__(
        self, status: int, detail: str, *, errors: FieldErrors = (), headers: dict[str, str] | None = None
    ) -> None:
        self.errors = errors
        super().__init__(status, detail, headers)


def problem(status: int, detail: str, errors: FieldErrors = (), headers: dict[str, str] | None = None) -> Response:
    """Return the response with a problem."""
    title = TITLES.get(status, "Request failed")
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = [{"field": field, "message": message} for field, message in errors]
    return Response(orjson.dumps(body), status, headers, MEDIA_TYPE)


def status_of(error: Exception) -> int | None:
    """Return the status of an expected error of the domain; None for a bug."""
    for kind in type(error).__mro__:
        if kind in _STATUSES:
            return _STATUSES[kind]
    if not isinstance(error, PenstockError):
        return None
    return 503 if error.retryable else 422 if error.user_fault else None


def response_to(error: Exception) -> Response | None:
    """Return the response to an expected error; None for a bug."""
    match error:
        case RequestError():
            return problem(error.status_code, error.detail, error.errors, dict(error.headers or {}))
        case StarletteHTTPException():
            return problem(error.status_code, _detail(error), headers=dict(error.headers or {}))
        case RequestValidationError():
            errors = field_errors(error)
            return problem(422, sentence(errors), errors)
        case PenstockError() if (status := status_of(error)) is not None:
            if error.retryable:
                return problem(status, f"{error}; try again", headers=_RETRY_AFTER)
            if isinstance(error, TooManyRequestsError):
                return problem(status, str(error), headers={"retry-after": str(max(1, math.ceil(error.retry_after)))})
            text = f"The gate is invalid: {error}" if isinstance(error, registry.GateError) else str(error)
            return problem(status, text, _invalid_fields(error))
        case _:
            return None


def _invalid_fields(error: PenstockError) -> FieldErrors:
    match error:
        case GatewayError() | InvalidInputsError():
            return error.errors
        case registry.GateRefusedError():
            return [("gate", clause) for clause in error.clauses]
        case registry.GateError():
            return [("gate", str(error))]
        case _:
            return ()


def install(app: FastAPI) -> None:
    """Have an application respond to expected errors with problems."""

    async def handle(_: Request, error: Exception) -> Response:
        response = response_to(error)
        if response is None:
            raise error
        return response

    for kind in (RequestValidationError, StarletteHTTPException, PenstockError):
        app.add_exception_handler(kind, handle)


def field_errors(error: pydantic.ValidationError | RequestValidationError) -> list[tuple[str, str]]:
    """Return field and message of each error that pydantic found, without the values."""
    found: list[tuple[str, str]] = []
    for item in error.errors()[:20]:
        where = [str(part) for part in item["loc"]]
        if len(where) > 1 and where[0] == "body":
            del where[0]
        message = "is unknown" if item["type"] in _UNKNOWN else str(item["msg"])
        found.append((".".join(where) or "body", message))
    return found


def sentence(errors: FieldErrors) -> str:
    """Return all errors as one line."""
    return "; ".join(f"{field}: {message}" for field, message in errors)


def _detail(error: StarletteHTTPException) -> str:
    if error.status_code == 404:
        return "No operation has this path: /docs lists all operations"
    if error.status_code == 405:
        return f"This path allows {(error.headers or {}).get('Allow', 'other methods')}"
    return str(error.detail)
