"""Plain calls of endpoints, straight from the guard to their function.

To match a hundred routes and to inject parameters takes longer than such a call itself. Requests with options, and all
others, pass through FastAPI; both ways have the same function and the same answers.
"""

from __future__ import annotations

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock_core.access import Permission
from penstock_gateway.endpoints import routes
from penstock_gateway.endpoints.call_features import CallFeatures
from penstock_gateway.http.principal import acting, check_permission, project_of

_PREFIX = "/v1/endpoints/"
_OPTIONS = frozenset({b"prefer", b"idempotency-key"})


class DirectCalls:
    """ASGI middleware inside the guard, which has authenticated the caller and answers errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        names = _names(scope)
        if names is None:
            await self._app(scope, receive, send)
            return
        project, name = names
        scope["path_params"], scope["endpoint"] = {"project": project, "name": name}, routes.call_endpoint
        request = Request(scope, receive)
        check_permission(request, Permission.ENDPOINTS_CALL)
        features = request.app.state.features.of(CallFeatures, lambda: project_of(request))
        response = await routes.call_endpoint(features, request, str(acting(request)), project, name)
        await response(scope, receive, send)


def _names(scope: Scope) -> tuple[str, str] | None:
    """Return the project and the name of the endpoint that a plain call is for; None: it is another request."""
    path: str = scope["path"]
    if scope["type"] != "http" or scope["method"] != "POST" or not path.startswith(_PREFIX) or scope["query_string"]:
        return None
    parts = path[len(_PREFIX) :].split("/")
    if len(parts) != 2 or not all(parts) or any(name in _OPTIONS for name, _ in scope["headers"]):
        return None
    return parts[0], parts[1]
