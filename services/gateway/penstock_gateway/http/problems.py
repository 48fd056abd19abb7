"""Errors as RFC 9457 problem details: the one place that maps errors to HTTP.

Every response of 400 and above is made by `problem`, so a client can rely on the media type and the fields: `title` is
the reason of the status, `detail` says what happened and how to fix it, `errors` names the invalid fields.
"""

from __future__ import annotations

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
from penstock_adapters.nats.bus import BusError
from penstock_adapters.sql.errors import DatabaseError
from penstock_contracts.archives import ArchiveDamagedError
from penstock_core.deployments.state import ConflictError as DeploymentConflictError
from penstock_core.deployments.state import DeploymentError, NoDeploymentError
from penstock_core.errors import (
    DefinitionError,
    InputError,
    InvalidIdError,
    InvalidInputsError,
    PenstockError,
    UnavailableError,
)
from penstock_core.registry import errors as registry
from penstock_gateway.errors import (
    BadReplyError,
    ConflictError,
    ContentTooLargeError,
    FieldErrors,
    GatewayError,
    NotFoundError,
    UnprocessableError,
)

MEDIA_TYPE = "application/problem+json"

TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    421: "Misdirected request",
    422: "Unprocessable",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
    507: "Insufficient storage",
}

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (UnprocessableError, 422),
    (ContentTooLargeError, 413),
    (BadReplyError, 502),
    (UnavailableError, 503),
    (ArtifactMissingError, 404),
    (ArtifactTooLargeError, 413),
    (ArtifactMismatchError, 422),
    (StoreFullError, 507),
    (ArtifactError, 500),
    (ArchiveDamagedError, 500),
    (NoDeploymentError, 404),
    (DeploymentConflictError, 409),
    (DeploymentError, 422),
    (registry.NotFoundError, 404),
    (registry.RegistryError, 409),
    (registry.GateError, 422),
    (InvalidIdError, 422),
    (InputError, 422),
    (DefinitionError, 422),
    (DatabaseError, 503),
    (BusError, 502),
)
"""The status of each expected error; the first entry that matches counts."""


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
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), None)


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
        case GatewayError():
            return problem(status_of(error) or 500, str(error), error.errors)
        case InvalidInputsError():
            return problem(422, str(error), error.errors)
        case registry.GateRefusedError():
            return problem(409, str(error), [("gate", clause) for clause in error.clauses])
        case registry.GateError():
            return problem(422, f"The gate is invalid: {error}", [("gate", str(error))])
        case UnavailableError():
            return problem(503, f"{error}; try again", headers={"retry-after": "1"})
        case _:
            status = status_of(error)
            return None if status is None else problem(status, str(error))


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
        found.append((".".join(where) or "body", str(item["msg"])))
    return found


def sentence(errors: FieldErrors) -> str:
    """Return all errors as one line."""
    return "; ".join(f"{field}: {message}" for field, message in errors)


def _detail(error: StarletteHTTPException) -> str:
    if error.status_code == 404:
        return "No operation has this path: see proto/openapi.json"
    if error.status_code == 405:
        return f"This path allows {(error.headers or {}).get('Allow', 'other methods')}"
    return str(error.detail)
