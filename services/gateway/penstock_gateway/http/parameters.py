"""Parameters that several routes take, and the dependencies that give a route its feature and its permission."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPBearer, SecurityScopes

from penstock_core import ids
from penstock_core.access import Permission
from penstock_gateway.http.principal import check_permission, project_of
from penstock_gateway.http.problems import RequestError, sentence

T = TypeVar("T")

_KEY_LIMIT = 255

NAMED = {"pattern": ids.NAME_PATTERN}
"""In `json_schema_extra`: the pattern of a name, which the feature checks with a better message."""

STEP_KEYED = {"pattern": ids.STEP_KEY_PATTERN}
"""In `json_schema_extra`: the pattern of the key of a step."""

RunId = Annotated[str, Path(description="ID of the run")]
StepKey = Annotated[
    str,
    Path(description="key of a step, such as `train`, `train[3]` or `features/split`", json_schema_extra=STEP_KEYED),
]
PipelineName = Annotated[str, Path(description="name of the pipeline", json_schema_extra=NAMED)]
PipelineFilter = Annotated[str | None, Query(description="only of this pipeline", json_schema_extra=NAMED)]
Sha256 = Annotated[
    str,
    Path(
        description="SHA-256 of the content, 64 lower-case hexadecimal digits",
        json_schema_extra={"pattern": ids.DIGEST_PATTERN},
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(description="requests with the same key submit one run", json_schema_extra={"pattern": "^[ -~]{1,255}$"}),
]
Traceparent = Annotated[
    str | None,
    Header(description="W3C Trace Context of the caller, whose trace the run continues; ignored if it is invalid"),
]
LastEventId = Annotated[
    str | None,
    Header(description="resume after the event with this ID", json_schema_extra={"pattern": "^[0-9]{0,15}$"}),
]


ProjectHeader = Annotated[
    str | None,
    Header(description="project of the request; by default `default`", json_schema_extra=NAMED),
]


class _CheckedBearer(HTTPBearer):
    """The bearer token of an operation in OpenAPI. The guard has read it: this checks the permission.

    The header of the project is declared here, so that no operation has a permission without a project.
    """

    async def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: Request, needed: SecurityScopes, penstock_project: ProjectHeader = None
    ) -> None:
        project_of(request)
        for scope in needed.scopes:
            check_permission(request, Permission(scope))


_checked = _CheckedBearer(
    scheme_name="token", description="token of the platform: the file `token` in its state folder", auto_error=False
)


async def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a request whose query has a parameter that its operation lacks: a misspelt filter would match everything.

    Raises:
        RequestError: 422, naming the parameters.
    """
    if not request.query_params:
        return
    known = frozenset(_query_parameters(request.scope["route"].dependant))
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        message = f"is unknown (parameters: {', '.join(sorted(known)) or 'none'})"
        errors = [(f"query.{name[:100]}", message) for name in unknown[:20]]
        raise RequestError(422, sentence(errors), errors=errors)


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    yield from (parameter.alias for parameter in dependant.query_params)
    for below in dependant.dependencies:
        yield from _query_parameters(below)


def feature(kind: type[T]) -> Any:
    """Return the dependency that gives a route the feature of this class."""

    async def get(request: Request) -> T:
        return request.app.state.features.of(kind, lambda: project_of(request))

    return Depends(get)


def requires(permission: Permission) -> Any:
    """Return the dependency that names the permission an operation needs, and refuses principals without it."""
    return Security(_checked, scopes=[permission.value])


AUTHENTICATED: Any = Security(_checked)
"""Dependency of operations that need a token, and no permission."""


def check_key(key: str | None) -> None:
    """Check an idempotency key.

    Raises:
        RequestError: 422, it is empty, too long or not printable.
    """
    if key is not None and not (0 < len(key) <= _KEY_LIMIT and key.isprintable()):
        message = f"must have 1 to {_KEY_LIMIT} printable characters"
        raise RequestError(422, f"Idempotency-Key {message}", errors=[("header.idempotency-key", message)])


def last_event(text: str | None) -> int:
    """Return the sequence that a `Last-Event-ID` names; 0 without one.

    Raises:
        RequestError: 422, it is not an ID of this API.
    """
    if text is None or not text.strip():
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        message = "must be the ID of an event of this stream, an integer"
        raise RequestError(422, f"Last-Event-ID: {message}", errors=[("header.last-event-id", message)])
    return int(text)
