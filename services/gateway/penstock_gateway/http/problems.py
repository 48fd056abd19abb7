"""Errors as RFC 9457 problem details: what happened, in which field, what to do next.

Every answer of 400 and above goes through `answer`, so a client can rely on the media type and the fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson
import pydantic
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

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
from penstock_core.errors import DefinitionError, InputError, InvalidIdError, InvalidInputsError, PenstockError
from penstock_core.ports import UnavailableError
from penstock_core.registry.errors import GateError, GateRefusedError, NotFoundError, RegistryError

MEDIA_TYPE = "application/problem+json"

Errors = Sequence[tuple[str, str]]
"""Pairs of a field and what is wrong with it."""


class ProblemError(PenstockError):
    """A request cannot be served. `title` says what happened, `detail` what to do, `errors` in which fields."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        *,
        errors: Errors = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors
        self.headers = headers
        super().__init__(title)


def answer(
    status: int, title: str, detail: str = "", errors: Errors = (), headers: dict[str, str] | None = None
) -> Response:
    """The response of a problem."""
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if errors:
        body["errors"] = [{"field": field, "message": message} for field, message in errors]
    return Response(orjson.dumps(body), status, headers, MEDIA_TYPE)


def from_validation(error: pydantic.ValidationError | RequestValidationError) -> list[tuple[str, str]]:
    """Field and message of each thing that pydantic found wrong; the values themselves stay out."""
    found: list[tuple[str, str]] = []
    for item in error.errors()[:20]:
        field = ".".join(str(part) for part in item["loc"]) or "body"
        found.append((field, str(item["msg"])))
    return found


def sentence(errors: Errors) -> str:
    """All errors as one line for people."""
    return "; ".join(f"{field}: {message}" for field, message in errors)


def of(error: Exception) -> Response | None:
    """The answer to an error that is expected to happen, or None for a fault of ours."""
    match error:
        case ProblemError():
            return answer(error.status, error.title, error.detail, error.errors, error.headers)
        case InvalidInputsError():
            return answer(422, error.title, error.detail, error.errors)
        case RequestValidationError():
            errors = from_validation(error)
            return answer(422, "The request is not valid", sentence(errors), errors)
        case HTTPException():
            return answer(error.status_code, _title(error), _detail(error), headers=dict(error.headers or {}))
        case UnavailableError():
            retry = {"retry-after": "1"}
            return answer(503, "A part of the platform does not answer", f"{error}; try again", headers=retry)
        case ArtifactError() | ArchiveDamagedError():
            return _of_artifact(error)
        case RegistryError():
            return _of_registry(error)
        case GateError():
            return answer(422, "The gate cannot be read", str(error), [("gate", str(error))])
        case InvalidIdError() | InputError() | DefinitionError():
            return answer(422, "The request is not valid", str(error))
        case DatabaseError():
            return answer(503, "The read model cannot be used", str(error))
        case BusError():
            return answer(502, "The message bus refused the request", str(error))
        case _:
            return None


def install(app: FastAPI) -> None:
    """Have an application answer expected errors as problems."""

    async def handle(_: Request, error: Exception) -> Response:
        found = of(error)
        if found is None:
            raise error
        return found

    for kind in (ProblemError, RequestValidationError, HTTPException, PenstockError):
        app.add_exception_handler(kind, handle)


def _of_artifact(error: ArtifactError | ArchiveDamagedError) -> Response:
    match error:
        case ArtifactMissingError():
            return answer(404, "The artifact is not in the store", str(error))
        case ArtifactTooLargeError():
            return answer(413, "The body is too large", str(error))
        case ArtifactMismatchError():
            return answer(422, "The bytes are not those of the address", str(error))
        case ArchiveDamagedError():
            return answer(500, "The archive of the run is damaged", str(error))
        case StoreFullError():
            return answer(507, "The artifact store is full", str(error))
        case _:
            return answer(500, "The artifact store failed", str(error))


def _of_registry(error: RegistryError) -> Response:
    if isinstance(error, GateRefusedError):
        detail = f"{'; '.join(error.clauses)}: {error.advice}"
        return answer(409, error.message, detail, [("gate", clause) for clause in error.clauses])
    return answer(404 if isinstance(error, NotFoundError) else 409, error.message, error.advice)


def _title(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is nothing at this address"
    try:
        return HTTPStatus(error.status_code).phrase
    except ValueError:
        return "The request failed"


def _detail(error: HTTPException) -> str:
    if error.status_code == 404:
        return "see proto/openapi.json for the addresses of the API"
    if error.status_code == 405:
        return f"allowed here: {(error.headers or {}).get('Allow', 'another method')}"
    return str(error.detail)
