"""The principal of a request, and its audit line."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock_core import access
from penstock_core.access import AccessToken, Principal, PrincipalKind
from penstock_core.errors import UnavailableError
from penstock_gateway.access.authentication import Authenticator
from penstock_gateway.access.guard import Guard
from penstock_gateway.http.principal import acting


class MemoryTokens:
    """A token store that may be unavailable."""

    def __init__(self) -> None:
        self.tokens: dict[str, AccessToken] = {}
        self.down = False

    async def find(self, digest: str) -> AccessToken | None:
        if self.down:
            raise UnavailableError("no answer")
        return self.tokens.get(digest)

    async def get(self, name: str) -> AccessToken | None:
        return next((token for token in self.tokens.values() if token.name == name), None)

    async def list(self, endpoint: str = "") -> list[AccessToken]:
        return list(self.tokens.values())

    async def create(self, token: AccessToken) -> bool:
        self.tokens[token.digest] = token
        return True

    async def revoke(self, name: str, endpoint: str = "") -> bool:
        return False

    async def last_used(self) -> dict[str, float]:
        return {}

    async def record_use(self, full_name: str, at: float) -> None:
        pass


class Log:
    """Records audit lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    def exception(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})


class Trail:
    """Records entries of the audit trail."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def record(self, **fields: Any) -> None:
        self.entries.append(fields)


class Site:
    """A guard in front of an application that responds with the principal's name."""

    def __init__(self) -> None:
        self.store = MemoryTokens()
        self.log, self.trail = Log(), Trail()
        own = Authenticator("own", Principal(PrincipalKind.USER, "ada"), self.store)
        self.app: ASGIApp = self._answer
        self.guard = Guard(self._app, authenticator=own, names=None, log=self.log, trail=self.trail)  # pyright: ignore[reportArgumentType]

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/v1/broken":
            raise RuntimeError("broken")
        who = "" if scope["path"].startswith("/v1/answers/") else str(acting(Request(scope)))
        await Response(who, 200)(scope, receive, send)

    async def send(self, method: str, path: str, authorization: str | None = None) -> tuple[int, str]:
        headers = [] if authorization is None else [(b"authorization", authorization.encode())]
        scope: Scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.guard(scope, receive, send)
        return sent[0]["status"], sent[1]["body"].decode()


@pytest.fixture
def site() -> Site:
    return Site()


async def _add(site: Site, text: str, name: str) -> None:
    await site.store.create(AccessToken(name=name, digest=access.token_digest(text), created_at=1.0, project="default"))


async def test_each_token_has_its_own_principal(site: Site) -> None:
    await _add(site, "second", "ci")
    assert await site.send("GET", "/v1/runs", "Bearer own") == (200, "user:ada")
    assert await site.send("GET", "/v1/runs", "bearer  second ") == (200, "token:ci")
    assert site.log.lines == []


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic own", "own", "Bearer own x", "Bearer \udcff"]
)
async def test_invalid_tokens_are_rejected_and_logged(site: Site, sent: str | None) -> None:
    sent = sent and sent.encode(errors="replace").decode()
    status, _ = await site.send("GET", "/v1/runs", sent)
    assert status == 401
    [line] = site.log.lines
    assert (line["outcome"], line["status"], line["principal"]) == ("refused", 401, None)
    assert "wrong" not in str(line)


async def test_what_a_token_of_an_endpoint_is_refused_is_recorded_with_the_token(site: Site) -> None:
    token = AccessToken(
        name="app", digest=access.token_digest("leaked"), created_at=1.0, project="default", endpoint="scorer"
    )
    await site.store.create(token)
    assert (await site.send("GET", "/v1/runs", "Bearer leaked"))[0] == 403
    [entry] = site.trail.entries
    assert (entry["principal"], entry["token"]) == ("token:default/scorer/app", access.token_digest("leaked")[:12])


async def test_a_digest_is_not_a_token(site: Site) -> None:
    await _add(site, "second", "ci")
    assert (await site.send("GET", "/v1/runs", f"Bearer {access.token_digest('second')}"))[0] == 401


async def test_without_the_token_store_only_the_own_token_works(site: Site) -> None:
    site.store.down = True
    assert (await site.send("GET", "/v1/runs", "Bearer own"))[0] == 200
    assert (await site.send("GET", "/v1/runs", "Bearer second"))[0] == 503


async def test_every_mutating_request_is_one_audit_line(site: Site) -> None:
    await site.send("POST", "/v1/runs", "Bearer own")
    await site.send("DELETE", "/v1/broken", "Bearer own")
    audit = [line for line in site.log.lines if line["event"] == "request"]
    assert [(line["principal"], line["method"], line["path"], line["outcome"], line["status"]) for line in audit] == [
        ("user:ada", "POST", "/v1/runs", "allowed", 200),
        ("user:ada", "DELETE", "/v1/broken", "failed", 500),
    ]


async def test_link_signatures_are_not_logged(site: Site) -> None:
    await site.send("POST", "/v1/answers/the-secret")
    assert [line["path"] for line in site.log.lines] == ["/v1/answers/"]


async def test_the_audit_line_names_the_operation(site: Site) -> None:
    app = FastAPI()

    @app.post("/v1/runs/{run_id}/cancel")
    async def cancel_run(run_id: str) -> str:
        return run_id

    site.app = app
    await site.send("POST", "/v1/runs/r1/cancel", "Bearer own")
    [line] = site.log.lines
    assert (line["operation"], line["path"], line["outcome"]) == ("cancel_run", "/v1/runs/r1/cancel", "allowed")
    [entry] = site.trail.entries
    assert (entry["principal"], entry["operation"], entry["outcome"]) == ("user:ada", "cancel_run", "allowed")
    assert entry["token"] == access.token_digest("own")[:12]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/endpoints/default/nightly", 200),
        ("/v1/endpoints/default/nightly/requests/1-a", 200),
        ("/v1/endpoints/default/nightly2", 403),
        ("/v1/endpoints/default/other", 403),
        ("/v1/endpoints/other/nightly", 403),
        ("/v1/endpoints/default", 403),
        ("/v1/endpoints", 403),
        ("/v1/deployments/nightly", 403),
        ("/v1/runs", 403),
        ("/v1", 403),
    ],
)
async def test_a_token_of_an_endpoint_opens_its_paths_alone(site: Site, path: str, status: int) -> None:
    digest = access.token_digest("web")
    token = AccessToken(name="web", digest=digest, created_at=1.0, project="default", endpoint="nightly")
    await site.store.create(token)
    assert (await site.send("GET", path, "Bearer web"))[0] == status
    refused = [(line["outcome"], line["status"]) for line in site.log.lines]
    assert refused == ([] if status == 200 else [("refused", 403)])
