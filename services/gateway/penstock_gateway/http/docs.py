"""What a route tells the API's description (OpenAPI) beside its parameters.

Bodies and answers are named, not declared to FastAPI: it would build and run a validator for every answer, and answers
here are written once, as bytes. `penstock_gateway.describe.generate` fills in the schemas of the names.
"""

from __future__ import annotations

from typing import Any

PROBLEM = "Problem"
_PROBLEM_TEXTS = {
    400: "The request cannot be read",
    401: "The token is missing or wrong",
    404: "There is no such thing",
    409: "The request contradicts what is there",
    413: "The body is too large",
    415: "The body is not JSON",
    416: "The range is outside of the object",
    422: "The request is not valid; `errors` names the fields",
    507: "The artifact store is full",
    503: "A part of the platform does not answer; try again",
}


def describe(
    *,
    body: str | dict[str, Any] | None = None,
    required: bool = True,
    problems: tuple[int, ...] = (),
    token: bool = True,
    **answers: str | dict[str, Any] | None,
) -> dict[str, Any]:
    """The `openapi_extra` of a route.

    Args:
        body: name of the body's model, or the content of the body by media type.
        required: whether the body must be there.
        problems: statuses of problems beside 401 and 503, which every route with a token has.
        token: whether the route needs the token.
        answers: by status, such as `ok_200`: name of the answer's model, its content by media type, or None.
    """
    responses: dict[str, Any] = {}
    for label, answer in answers.items():
        text, _, status = label.rpartition("_")
        responses[status] = {"description": text.replace("_", " ").capitalize()}
        if answer is not None:
            responses[status]["content"] = _content(answer)
    for status in sorted({401, 503, *problems} if token else problems):
        content = {"application/problem+json": {"schema": reference(PROBLEM)}}
        responses[str(status)] = {"description": _PROBLEM_TEXTS[status], "content": content}
    extra: dict[str, Any] = {"responses": responses} | ({} if token else {"security": []})
    if body is not None:
        extra["requestBody"] = {"required": required, "content": _content(body)}
    return extra


def reference(name: str) -> dict[str, str]:
    """The schema of a named model."""
    return {"$ref": f"#/components/schemas/{name}"}


def _content(what: str | dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": reference(what)}} if isinstance(what, str) else what


BYTES: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def events(text: str) -> dict[str, Any]:
    """Content of a stream of server-sent events, each with JSON data as `text` says."""
    return {"text/event-stream": {"schema": {"type": "string", "description": text}}}


def lines(*names: str) -> dict[str, Any]:
    """Content of JSON lines, each of one of the named models."""
    return {"application/x-ndjson": {"schema": {"oneOf": [reference(name) for name in names]}}}
