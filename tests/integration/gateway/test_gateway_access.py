"""Principals: the token decides who acts, whatever the request says; named tokens are created, used and revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from gateway_platform import TOKEN, Http, Platform

from penstock_adapters.nats.buckets.tokens import NatsTokens
from penstock_contracts import subjects
from penstock_core import access
from penstock_core.access import AccessToken

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def no_tokens(platform: Platform) -> AsyncGenerator[None]:
    """Each test begins without named tokens."""
    store = NatsTokens(platform.bus)
    for token in await store.list():
        await store.revoke(token.name)
    yield


async def _create(http: Http, name: str = "ci") -> str:
    answer = await http("POST", "/v1/tokens", {"name": name})
    assert answer.status == 201, answer.body
    return answer.json()["token"]


async def test_the_token_of_the_gateway_is_a_principal(http: Http) -> None:
    answer = await http("GET", "/v1/whoami")
    assert answer.json() == {"principal": "token:default", "kind": "token", "name": "default"}


async def test_a_named_token_acts_under_its_name_until_it_is_revoked(http: Http) -> None:
    token = await _create(http)
    assert (await http("GET", "/v1/whoami", token=token)).json()["principal"] == "token:ci"
    [listed] = (await http("GET", "/v1/tokens", token=token)).json()["tokens"]
    assert (listed["name"], listed["principal"], listed["created_by"]) == ("ci", "token:ci", "token:default")
    assert "token" not in listed
    assert (await http("DELETE", "/v1/tokens/ci")).status == 204
    assert (await http("GET", "/v1/whoami", token=token)).status == 401
    assert (await http("DELETE", "/v1/tokens/ci")).status == 404
    assert await _create(http) != token
    assert (await http("GET", "/v1/whoami", token=token)).status == 401


async def test_a_name_is_taken_once(http: Http) -> None:
    answers = await asyncio.gather(*(http("POST", "/v1/tokens", {"name": "ci"}) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]
    assert (await http("POST", "/v1/tokens", {"name": "default"})).status == 409
    for name in ("", "a.b", "a b", ">"):
        assert (await http("POST", "/v1/tokens", {"name": name})).status == 422
    assert (await http("POST", "/v1/tokens", {"name": "x", "token": "mine"})).status == 422
    assert (await http("DELETE", "/v1/tokens/a.b")).status == 404


async def test_no_token_is_stored(platform: Platform, http: Http) -> None:
    token = await _create(http)
    stored = await platform.bus.read(f"KV_{subjects.TOKENS_BUCKET}", f"$KV.{subjects.TOKENS_BUCKET}.>")
    texts = [f"{message.headers}{message.data}" for message in stored]
    assert len(texts) == 2
    assert all(token not in text and TOKEN not in text for text in texts)


async def test_a_token_whose_creation_broke_off_is_no_token_and_can_be_revoked(platform: Platform, http: Http) -> None:
    store = NatsTokens(platform.bus)
    half = AccessToken(name="half", digest=access.token_digest("half"), created_at=1.0)
    assert await store.create(half)
    await store._bucket.purge(f"by-digest.{half.digest}")  # pyright: ignore[reportPrivateUsage]
    assert (await http("GET", "/v1/whoami", token="half")).status == 401
    assert (await http("DELETE", "/v1/tokens/half")).status == 204
    await _create(http, "half")
