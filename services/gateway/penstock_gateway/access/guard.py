"""The middleware that every request passes first.

- The `Host` header must be an allowed name of this gateway, else 421. This blocks DNS rebinding: a web page whose name
  now resolves to 127.0.0.1.
- `/v1`, and models below `/v2`, need a bearer token, which is resolved to the principal of the request and its
  roles; the operation checks its permission. Links under `/v1/answers` and webhooks have signatures instead. A token
  of an endpoint opens only that endpoint.
- A browser sends the token in a cookie instead (`penstock_gateway.console.sessions`).
- While a response is sent, its token is checked again, so that a stream ends when its token is revoked or expires.
- Every refused request and every request that may change something is one line in the log and an entry of the audit
  trail: who, what, outcome.
- An unexpected error becomes a problem document and a line in the log, never a traceback for the client.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from penstock_contracts.audit import AuditOutcome
from penstock_core import access
from penstock_core.access import InvalidTokenError
from penstock_core.errors import UnavailableError
from penstock_gateway.access.audit_trail import AuditTrail
from penstock_gateway.access.authentication import Authenticator, TokenScopeError
from penstock_gateway.console import sessions
from penstock_gateway.http import metrics, principal, problems

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SIGNED_LINKS = "/v1/answers/"
"""Paths below this have a signature, which replaces the token. They are secret."""

_OPEN = "/v1/login"
"""Says how to get a token."""

_TOKEN = ("/v1/", "/v2/models")
"""Paths that begin with these need a token."""

_SIGNED = (_SIGNED_LINKS, "/v1/webhooks/")
"""Requests for paths below these need a signature, or another proof of a secret, instead of the token."""

_REFUSED = frozenset({401, 403, 421})
_READS = frozenset({"GET", "HEAD", "OPTIONS"})

_RECHECK = 0.5
"""Seconds after which the token of a response that is still being sent is checked again."""

_DRAIN_BYTES = 32 * 1024 * 1024
_DRAIN_PAUSE = 0.25
_SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
    (b"referrer-policy", b"no-referrer"),
]


class _RevokedError(Exception):
    """The token of a request was revoked, or expired, while its response was sent."""


class _Caller:
    """The token of a request, while it is served."""

    def __init__(self, authenticator: Authenticator, token: str, path: str) -> None:
        self._authenticator = authenticator
        self._token = token
        self._path = path
        self._checked = time.monotonic()

    @property
    def digest(self) -> str:
        """The beginning of the digest of the token, by which requests with the same token are recognized."""
        return access.token_digest(self._token)[:12]

    async def check_again(self) -> None:
        """Check that the token is still valid, if the last time was a while ago.

        Raises:
            _RevokedError: it is not.
        """
        now = time.monotonic()
        if now - self._checked < _RECHECK:
            return
        self._checked = now
        # A stream outlives a broker that is away for a moment: it has nothing to send meanwhile.
        with contextlib.suppress(UnavailableError):
            try:
                found = await self._authenticator.grant(self._token, self._path)
            except InvalidTokenError as error:
                raise _RevokedError from error
            if found is None:
                raise _RevokedError


class Guard:
    """ASGI middleware that checks host name and token, and answers unexpected errors."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        names: frozenset[str] | None,
        log: FilteringBoundLogger,
        trail: AuditTrail,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._names = names
        self._log = log
        self._trail = trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        status: int | None = None
        body = _Body(scope, receive)

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if message["status"] >= 300:
                    await body.drain()
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in _SAFE_HEADERS if h[0] not in present)]
            elif caller is not None and message.get("more_body", False):
                await caller.check_again()
            await send(message)

        caller: _Caller | None = None
        began = time.monotonic()
        try:
            refusal, caller = await self._admit(scope)
            await (refusal or self._app)(scope, body.receive, guarded)
        except _RevokedError:
            pass  # The response stays incomplete: the connection is cut, so the client notices.
        except Exception as error:
            response = problems.response_to(error)
            if response is None or status is not None:
                self._log.exception("a request failed", method=scope["method"], path=scope["path"])
            if response is None:
                response = problems.problem(500, "The gateway failed; see its log")
            # A response that has started cannot be replaced: the connection is cut, so the client notices.
            if status is None:
                await response(scope, body.receive, guarded)
        finally:
            operation = getattr(scope.get("endpoint"), "__name__", None)
            metrics.count(operation, scope["method"], status, time.monotonic() - began)
            self._audit(scope, operation, status, caller)

    def _audit(self, scope: Scope, operation: str | None, status: int | None, caller: _Caller | None) -> None:
        if scope["method"] in _READS and status not in _REFUSED:
            return
        path: str = scope["path"]
        path = _SIGNED_LINKS if path.startswith(_SIGNED_LINKS) else path
        failed = status is None or status >= 400
        outcome = (
            AuditOutcome.REFUSED if status in _REFUSED else AuditOutcome.FAILED if failed else AuditOutcome.ALLOWED
        )
        who = str(principal.known(scope) or "") or None
        client = scope.get("client")
        self._log.info(
            "request",
            principal=who,
            operation=operation,
            method=scope["method"],
            path=path,
            outcome=outcome.value,
            status=status,
        )
        self._trail.record(
            principal=who,
            token=caller.digest if caller is not None else None,
            operation=operation,
            method=scope["method"],
            path=path,
            address=str(client[0]) if client else "",
            outcome=outcome,
            status=status,
        )

    async def _admit(self, scope: Scope) -> tuple[ASGIApp | None, _Caller | None]:
        """Return the response to a request that is refused, or else its caller; neither if it needs no token."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host, authorization = headers.get(b"host", b""), headers.get(b"authorization", b"")
        if self._names is not None and host_name(host.decode("latin-1")) not in self._names:
            text = "The host name is not allowed: use the gateway's address, or add the name to PENSTOCK_ALLOWED_HOSTS"
            return problems.problem(421, text), None
        path: str = scope["path"]
        if not (path == "/v1" or path.startswith(_TOKEN)) or path.startswith(_SIGNED) or path == _OPEN:
            return None, None
        scheme, _, sent = authorization.partition(b" ")
        token = sent.strip().decode(errors="surrogateescape") if scheme.lower() == b"bearer" else ""
        token = token or sessions.token_of(headers)
        if token and not authorization and not sessions.is_own_page(scope["method"], headers):
            return problems.problem(403, "A page of another site sent this request with the browser's cookie"), None
        found = None
        if token:
            try:
                found = await self._authenticator.grant(token, path)
            except TokenScopeError as error:
                principal.set_grant(scope, error.grant)  # for the audit trail
                return problems.problem(403, str(error)), _Caller(self._authenticator, token, path)
            except InvalidTokenError as error:
                return _unauthorized(f"The token is not valid: {error}; get another one with `penstock login`"), None
        if found is None:
            text = (
                f"The token is {'wrong' if authorization else 'missing'}: send 'Authorization: Bearer TOKEN'; the "
                "token is in the file 'token' of the platform's state folder"
            )
            return _unauthorized(text), None
        principal.set_grant(scope, found)
        return None, _Caller(self._authenticator, token, path)


def _unauthorized(text: str) -> ASGIApp:
    return problems.problem(401, text, headers={"www-authenticate": "Bearer"})


class _Body:
    """The request's body while it arrives.

    When the response is sent before the body was read, the client still sends. Closing the connection then may discard
    the response before the client reads it, so the rest of the body is read and dropped first, up to a limit.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        names = {name: value for name, value in scope["headers"]}
        self._whole = names.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in names

    async def receive(self) -> Message:
        """Return the next part."""
        message = await self._receive()
        if not message.get("more_body", False):
            self._whole = True
        return message

    async def drain(self) -> None:
        """Read and drop the rest, up to a size and until the client pauses."""
        left = _DRAIN_BYTES
        with contextlib.suppress(TimeoutError):
            while not self._whole and left > 0:
                async with asyncio.timeout(_DRAIN_PAUSE):
                    left -= len((await self.receive()).get("body", b""))


def host_name(host: str) -> str:
    """Return the name in a `Host` header, in lower case, without the port."""
    name, colon, port = host.strip().lower().rpartition(":")
    if colon and port.isdecimal() and (not name.startswith("[") or name.endswith("]")):
        return name.rstrip(".")
    return host.strip().lower().rstrip(".")


def allowed_names(bound: str, extra: list[str]) -> frozenset[str] | None:
    """Return the allowed host names of a gateway bound to `bound`; None: any, since it serves other machines."""
    if is_loopback(bound):
        return _LOCAL_NAMES | {_bracketed(bound)} | frozenset(extra)
    return frozenset(extra) | _LOCAL_NAMES | {_bracketed(bound)} if extra else None


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
