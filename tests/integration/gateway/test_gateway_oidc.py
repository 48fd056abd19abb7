"""Users with tokens of a real OpenID Connect provider: who they are, their roles, and tokens that are refused."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from gateway_platform import Http, Platform, running, runs
from joserfc import jwt
from joserfc.jwk import RSAKey

from penstock_testkit.servers.child import BinaryMissingError
from penstock_testkit.servers.oidc import CLIENT, OidcProvider

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUPS = {"ada": ["ml-admins", "ml"], "bob": ["ml"], "eve": ["sales"], "mallory": ["ml"]}
ROLES = {"ml-admins": "admin", "ml": "editor@default"}


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    made = OidcProvider(tmp_path_factory.mktemp("oidc"), GROUPS)
    try:
        made.start()
    except BinaryMissingError as missing:
        pytest.skip(str(missing))
    yield made
    made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(provider: OidcProvider, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Platform]:
    """A platform with users, in place of the one of the other modules."""
    settings = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_roles": ROLES}
    async with running(tmp_path_factory.mktemp("gateway"), **settings) as platform:
        yield platform


async def _whoami(http: Http, token: str) -> Any:
    answer = await http("GET", "/v1/whoami", token=token)
    assert answer.status == 200, answer.body
    return answer.json()


async def test_groups_give_roles_and_the_highest_one_counts(http: Http, provider: OidcProvider) -> None:
    ada = await _whoami(http, provider.token("ada"))
    assert (ada["principal"], ada["roles"]) == ("user:ada", {"*": "admin", "default": "editor"})
    bob = await _whoami(http, provider.token("bob"))
    assert (bob["principal"], bob["roles"]) == ("user:bob", {"default": "editor"})
    assert (await http("GET", "/v1/tokens", token=provider.token("ada"))).status == 200
    answer = await http("GET", "/v1/tokens", token=provider.token("bob"))
    assert answer.status == 403 and b"user:bob has the role editor" in answer.body
    assert (await _whoami(http, provider.token("eve")))["roles"] == {}
    answer = await http("GET", "/v1/runs", token=provider.token("eve"))
    assert answer.status == 403 and b"user:eve has no role in project" in answer.body


async def test_runs_belong_to_the_user(http: Http, provider: OidcProvider) -> None:
    answer = await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}}, token=provider.token("bob"))
    run = (await http("GET", f"/v1/runs/{answer.json()['run_id']}")).json()
    assert run["requested_by"] == "user:bob"


def _unsigned(provider: OidcProvider, **header: Any) -> str:
    """A token with the claims of a valid one, without a signature."""
    parts = provider.token("ada").split(".")
    text = _base64(json.dumps({"alg": "none", **header}).encode())
    return f"{text}.{parts[1]}."


def _signed_with_public_key(provider: OidcProvider) -> str:
    """A token signed by HMAC, whose key is the public key of the provider, as PEM."""
    header = json.dumps({"alg": "HS256", "kid": provider.key.kid}).encode()
    text = f"{_base64(header)}.{provider.token('ada').split('.')[1]}"
    return f"{text}.{_base64(hmac.digest(provider.key.as_pem(private=False), text.encode(), 'sha256'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _of_another_key(provider: OidcProvider, kid: str) -> str:
    key = RSAKey.generate_key(2048)
    claims = {"iss": provider.issuer, "aud": CLIENT, "sub": "ada", "exp": int(time.time()) + 600}
    return jwt.encode({"alg": "RS256", "kid": kid}, claims, key)


def _own_key(provider: OidcProvider) -> str:
    """A token that brings the key that it is signed with."""
    key = RSAKey.generate_key(2048)
    claims = {"iss": provider.issuer, "aud": CLIENT, "sub": "ada", "exp": int(time.time()) + 600}
    return jwt.encode({"alg": "RS256", "jwk": key.as_dict(private=False)}, claims, key)


def _changed(provider: OidcProvider) -> str:
    """A valid signature over other claims."""
    head, payload, signature = provider.token("bob").split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "===")) | {"sub": "ada", "groups": ["ml-admins"]}
    return f"{head}.{_base64(json.dumps(claims).encode())}.{signature}"


def _logout_token(provider: OidcProvider) -> str:
    now = int(time.time())
    claims = {"iss": provider.issuer, "aud": CLIENT, "sub": "ada", "iat": now, "exp": now + 100}
    return jwt.encode({"alg": "RS256", "kid": provider.key.kid, "typ": "logout+jwt"}, claims, provider.key)


ATTACKS: dict[str, Any] = {
    "expired": lambda provider: provider.token("ada", exp=int(time.time()) - 60),
    "not valid yet": lambda provider: provider.token("ada", nbf=int(time.time()) + 600),
    "without expiry": lambda provider: provider.token("ada", exp=None),
    "expiry is a text": lambda provider: provider.token("ada", exp="never"),
    "foreign issuer": lambda provider: provider.token("ada", iss="https://evil.example"),
    "without issuer": lambda provider: provider.token("ada", iss=None),
    "wrong audience": lambda provider: provider.token("ada", aud="another-app"),
    "without audience": lambda provider: provider.token("ada", aud=None),
    "without subject": lambda provider: provider.token("ada", sub=None),
    "unprintable name": lambda provider: provider.token("ada\u200b"),
    "alg=none": _unsigned,
    "alg=None": lambda provider: _unsigned(provider, alg="None"),
    "unsigned, but with a key": lambda provider: _unsigned(provider, kid=provider.key.kid, alg="RS256"),
    "HMAC with the public key": _signed_with_public_key,
    "another key, known kid": lambda provider: _of_another_key(provider, str(provider.key.kid)),
    "another key, unknown kid": lambda provider: _of_another_key(provider, "unknown"),
    "key in the header": _own_key,
    "changed claims": _changed,
    "logout token": _logout_token,
    "no token": lambda provider: "a.b.c",
    "empty parts": lambda provider: "..",
    "huge": lambda provider: "a." + "b" * 20_000 + ".c",
    "deep": lambda provider: base64.urlsafe_b64encode(b"[" * 5000).decode() + ".b.c",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_forged_tokens_are_refused(http: Http, provider: OidcProvider, attack: str) -> None:
    token = ATTACKS[attack](provider)
    answer = await http("GET", "/v1/whoami", token=token)
    assert answer.status == 401, answer.body
    detail = answer.json()["detail"]
    assert detail.startswith("The token is not valid: ") and "penstock login" in detail
    assert token not in detail
    # The valid token beside it still works.
    assert (await _whoami(http, provider.token("ada")))["principal"] == "user:ada"


async def test_a_token_that_logged_out_cannot_be_replayed(http: Http, provider: OidcProvider) -> None:
    token, other = provider.token("ada", jti="1"), provider.token("ada", jti="2")
    await _whoami(http, token)
    assert (await http("POST", "/v1/logout", token=token)).status == 204
    assert (await http("GET", "/v1/whoami", token=token)).status == 401
    assert (await _whoami(http, other))["principal"] == "user:ada"
    assert (await http("POST", "/v1/logout")).status == 409  # the token of the platform


async def test_a_blocked_user_is_refused_and_his_deployments_start_no_runs(
    platform: Platform, http: Http, provider: OidcProvider
) -> None:
    token = provider.token("mallory")
    trigger = {"kind": "event", "name": "on", "types": ["com.acme.blocked"]}
    body = {"definition": {"pipeline": "chain", "triggers": [trigger], "inputs": {"n": 1}}}
    assert (await http("PUT", "/v1/deployments/hers", body, token=token)).status == 200
    blocked = await http("PUT", "/v1/blocked-users/mallory")
    assert (blocked.status, blocked.json()["by"]) == (200, "token:default")
    assert (await http("GET", "/v1/whoami", token=token)).status == 401
    assert (await http("GET", "/v1/whoami", token=provider.token("mallory", jti="new"))).status == 401
    await asyncio.sleep(0.6)  # owners are looked up twice a second
    event = {"specversion": "1.0", "id": "1", "source": "/test", "type": "com.acme.blocked", "data": {}}
    content = {"content-type": "application/cloudevents+json"}
    assert (await http("POST", "/v1/events", event, headers=content)).status == 202
    deadline = time.monotonic() + 60
    while not (found := (await http("GET", "/v1/deployments/hers/decisions")).json()["decisions"]):
        assert time.monotonic() < deadline
    assert (found[0]["outcome"], await runs(platform, "hers")) == ("rejected", [])
    assert "user:mallory, who applied this deployment, is blocked" in found[0]["error"]
    assert [one["name"] for one in (await http("GET", "/v1/blocked-users")).json()["users"]] == ["mallory"]
    assert (await http("DELETE", "/v1/blocked-users/mallory")).status == 204
    assert (await http("DELETE", "/v1/blocked-users/mallory")).status == 404
    assert (await _whoami(http, provider.token("mallory", jti="newer")))["principal"] == "user:mallory"


async def test_login_is_described_without_a_token(http: Http, provider: OidcProvider) -> None:
    answer = await http("GET", "/v1/login", token=None)
    assert answer.status == 200
    assert answer.json() == {
        "issuer": provider.issuer,
        "client_id": CLIENT,
        "scope": "openid profile email offline_access",
        "token": "id_token",
        "audience": "",
    }


async def test_keys_are_rotated_and_withdrawn_keys_are_forgotten(
    http: Http, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_adapters.oidc._PAUSE", 0.0)
    old = provider.token("ada")
    await _whoami(http, old)
    provider.rotate("second")
    assert (await _whoami(http, provider.token("ada")))["principal"] == "user:ada"
    # The old token was verified; it is verified again after a minute, with the keys of then.
    monkeypatch.setattr("penstock_gateway.access.oidc_users._VERIFIED", 0.0)
    assert (await http("GET", "/v1/whoami", token=old)).status == 401
    # While the provider is away, its last keys are used.
    provider.stop()
    assert (await _whoami(http, provider.token("bob")))["principal"] == "user:bob"
    assert (await http("GET", "/v1/whoami", token=_of_another_key(provider, "third"))).status == 503
    provider.start()
