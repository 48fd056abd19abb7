"""Roles: each operation of the API refuses every role that lacks its permission, and serves those that have it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from gateway_platform import Answer, Http, Platform, Stream, read_head, started
from pydantic import SecretStr

from penstock_core.access import PLATFORM_PERMISSIONS, ROLE_PERMISSIONS, Permission, Role, least_role
from penstock_gateway.app import build
from penstock_gateway.settings import GatewaySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[3] / "proto" / "openapi.json").read_text())
OPEN = {"/openapi.json", "/docs", "/healthz", "/readyz", "/v1/login", "/v1/answers/{token}"}
OPEN |= {"/v2", "/v2/health/live", "/v2/health/ready"}
"""Paths of operations that need no token, beside webhooks."""

OWN = {"/v1/whoami", "/v1/logout", "/v1/session", "/v1/projects"}
"""Paths of operations that need a token, and no permission."""

VALUES = {"sha256": "0" * 64, "number": "1", "event": "1", "project": "default"}
"""Path parameters that are not names."""


def _operations() -> dict[str, tuple[str, str, Permission | None]]:
    """Return method, path and permission of each operation, by its label."""
    found: dict[str, tuple[str, str, Permission | None]] = {}
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            scopes = [scope for one in operation.get("security", []) for scope in one["token"]]
            assert len(scopes) <= 1
            permission = Permission(scopes[0]) if scopes else None
            names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
            made = path
            for name in names:
                made = made.replace(f"{{{name}}}", VALUES.get(name, "unknown"))
            found[f"{method.upper()} {path}"] = method.upper(), made, permission
    return found


OPERATIONS = _operations()


async def _token(http: Http, name: str, **body: Any) -> str:
    answer = await http("POST", "/v1/tokens", {"name": name, **body})
    assert answer.status == 201, answer.body
    return answer.json()["token"]


async def _status(http: Http, method: str, path: str, token: str) -> int:
    """Return the status; the body, which may be an endless stream, is not read."""
    body = {} if method in ("POST", "PUT") else None
    reader, writer = await http.open(method, path, body, token=token)
    async with asyncio.timeout(30):
        status, _ = await read_head(reader)
    writer.close()
    return status


async def test_every_operation_names_a_permission_that_a_role_has() -> None:
    unprotected = {path for label, (_, _, one) in OPERATIONS.items() if one is None and (path := label.split(" ")[1])}
    assert {path for path in unprotected if not path.startswith("/v1/webhooks/")} == OPEN | OWN
    assert all("security" in item for path in OWN for item in DOCUMENT["paths"][path].values())
    used = {permission for _, _, permission in OPERATIONS.values() if permission is not None}
    assert used == set(Permission) == ROLE_PERMISSIONS[Role.ADMIN]


async def test_every_operation_refuses_lesser_roles_and_names_permission_and_role(http: Http) -> None:
    tokens = {role: await _token(http, f"refused-{role}", role=role) for role in Role}
    wrong: list[str] = []
    for label, (method, path, permission) in OPERATIONS.items():
        for role in Role:
            if permission is None or permission in ROLE_PERMISSIONS[role]:
                continue
            answer = await http(method, path, {} if method in ("POST", "PUT") else None, token=tokens[role])
            if not _refused(answer, permission, f"token:refused-{role}"):
                wrong.append(f"{label} as {role}: {answer.status} {answer.body.decode()}")
    assert wrong == []


def _refused(answer: Answer, permission: Permission, who: str) -> bool:
    text = answer.body.decode()
    named = (f"permission {permission} is missing", who, f"needs the role {least_role(permission)}")
    return answer.status == 403 and all(one in text for one in named)


async def test_every_operation_serves_the_roles_that_have_its_permission(http: Http) -> None:
    tokens = {role: await _token(http, f"served-{role}", role=role) for role in Role}
    everywhere = {role: await _token(http, f"served-{role}-all", role=role, all_projects=True) for role in Role}
    wrong: list[str] = []
    for label, (method, path, permission) in OPERATIONS.items():
        for role in Role:
            if permission is None or permission not in ROLE_PERMISSIONS[role]:
                continue
            status = await _status(http, method, path, everywhere[role])
            if status in (401, 403):
                wrong.append(f"{label} as {role} in all projects: {status}")
            status = await _status(http, method, path, tokens[role])
            if (status in (401, 403)) != (permission in PLATFORM_PERMISSIONS):
                wrong.append(f"{label} as {role}: {status}")
    assert wrong == []


async def test_a_token_is_refused_from_its_expiry_on(http: Http) -> None:
    token = await _token(http, "short", role="viewer", expires_in=5.0)
    assert (await http("GET", "/v1/whoami", token=token)).json()["roles"] == {"default": "viewer"}
    deadline = time.monotonic() + 30
    while (await http("GET", "/v1/whoami", token=token)).status != 401:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    [listed] = [one for one in (await http("GET", "/v1/tokens")).json()["tokens"] if one["name"] == "short"]
    assert listed["expires_at"] <= time.time() and listed["last_used_at"] < listed["expires_at"]
    for lifetime in (0, -1, 1e12, "soon"):
        body = {"name": "odd", "role": "viewer", "expires_in": lifetime}
        assert (await http("POST", "/v1/tokens", body)).status == 422


async def test_a_stream_ends_when_its_token_is_revoked(platform: Platform, http: Http) -> None:
    token = await _token(http, "follower", role="viewer")
    run_id = await platform.request()
    reader, writer = await http.open("GET", f"/v1/runs/{run_id}/events", token=token)
    assert (await read_head(reader))[0] == 200
    stream = Stream(reader, writer)
    assert (await stream.next()) is not None
    assert (await http("DELETE", "/v1/tokens/follower")).status == 204
    await asyncio.sleep(1.0)  # within which a revoked token is refused everywhere
    await platform.run_step(run_id, "double")
    with pytest.raises(asyncio.IncompleteReadError):
        await stream.all()


async def test_a_revoked_token_is_refused_within_a_second_by_another_gateway(platform: Platform, http: Http) -> None:
    other = build(platform.context, GatewaySettings(home=platform.root, port=0, token=SecretStr("another")))
    await other.start()
    try:
        token = await _token(http, "shared", role="viewer")
        elsewhere = Http(dataclasses.replace(platform, gateway=other))
        assert (await elsewhere("GET", "/v1/limits", token=token)).status == 200
        assert (await http("DELETE", "/v1/tokens/shared")).status == 204
        assert (await http("GET", "/v1/limits", token=token)).status == 401
        await asyncio.sleep(1.0)
        assert (await elsewhere("GET", "/v1/limits", token=token)).status == 401
    finally:
        await other.stop()


async def test_a_trigger_starts_no_run_that_its_owner_may_not_start(platform: Platform, http: Http) -> None:
    token = await _token(http, "deployer", role="editor")
    trigger = {"kind": "event", "name": "on", "types": ["com.acme.owned"]}
    body = {"definition": {"pipeline": "chain", "triggers": [trigger], "inputs": {"n": 1}}}
    assert (await http("PUT", "/v1/deployments/owned", body, token=token)).status == 200
    await _send(http, "one")
    await started(platform, "owned", 1)
    assert (await http("DELETE", "/v1/tokens/deployer")).status == 204
    await asyncio.sleep(0.6)  # owners are looked up twice a second
    await _send(http, "two")
    reason = await _rejection(http, "owned")
    assert "token:deployer, which applied this deployment, lacks the permission runs.create: it was revoked" in reason
    # The same definition, from a principal that may: it owns the deployment from then on.
    assert (await http("PUT", "/v1/deployments/owned", body)).json()["changed"] is True
    assert (await http("PUT", "/v1/deployments/owned", body)).json()["changed"] is False
    await _send(http, "three")
    assert len(await started(platform, "owned", 2)) == 2


async def _send(http: Http, number: str) -> None:
    event = {"specversion": "1.0", "id": number, "source": "/test", "type": "com.acme.owned", "data": {}}
    answer = await http("POST", "/v1/events", event, headers={"content-type": "application/cloudevents+json"})
    assert answer.status == 202, answer.body


async def _rejection(http: Http, deployment: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        decisions = (await http("GET", f"/v1/deployments/{deployment}/decisions")).json()["decisions"]
        found = [one["error"] for one in decisions if one["outcome"] == "rejected"]
        if found:
            return found[0]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
