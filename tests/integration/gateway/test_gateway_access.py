"""Principals: the token determines the principal, not the request body; named tokens are created, used and revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from gateway_platform import TOKEN, Http, Platform

from penstock_adapters.nats.buckets.tokens import NatsTokens
from penstock_contracts import subjects
from penstock_core import access
from penstock_core.access import AccessToken
from penstock_core.facts import CancelRequested, RunRequested, StepCancelRequested

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def no_tokens(platform: Platform) -> AsyncGenerator[None]:
    """Each test begins without named tokens."""
    store = NatsTokens(platform.bus)
    for token in await store.list():
        await store.revoke(token.name)
    yield


async def _create(http: Http, name: str = "ci", role: str = "admin") -> str:
    answer = await http("POST", "/v1/tokens", {"name": name, "role": role})
    assert answer.status == 201, answer.body
    return answer.json()["token"]


async def test_the_gateways_token_is_a_principal(http: Http) -> None:
    answer = await http("GET", "/v1/whoami")
    roles = {"*": "admin"}
    assert answer.json() == {"principal": "token:default", "kind": "token", "name": "default", "roles": roles}


async def test_a_named_token_acts_as_its_name_until_revoked(http: Http) -> None:
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


async def test_token_names_are_unique(http: Http) -> None:
    answers = await asyncio.gather(*(http("POST", "/v1/tokens", {"name": "ci", "role": "viewer"}) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]
    assert (await http("POST", "/v1/tokens", {"name": "default", "role": "viewer"})).status == 409
    for name in ("", "a.b", "a b", ">"):
        assert (await http("POST", "/v1/tokens", {"name": name, "role": "viewer"})).status == 422
    assert (await http("POST", "/v1/tokens", {"name": "x", "role": "viewer", "token": "mine"})).status == 422
    assert (await http("DELETE", "/v1/tokens/a.b")).status == 404


async def test_tokens_are_not_stored_in_plain_text(platform: Platform, http: Http) -> None:
    token = await _create(http)
    stored = await platform.bus.read(f"KV_{subjects.TOKENS_BUCKET}", f"$KV.{subjects.TOKENS_BUCKET}.>")
    texts = [f"{message.headers}{message.data}" for message in stored]
    assert len(texts) == 2
    assert all(token not in text and TOKEN not in text for text in texts)


async def test_a_partly_created_token_is_invalid_and_can_be_revoked(platform: Platform, http: Http) -> None:
    store = NatsTokens(platform.bus)
    half = AccessToken(name="half", digest=access.token_digest("half"), created_at=1.0, project="default")
    assert await store.create(half)
    await store._bucket.purge(f"by-digest.{half.digest}")  # pyright: ignore[reportPrivateUsage]
    assert (await http("GET", "/v1/whoami", token="half")).status == 401
    assert (await http("DELETE", "/v1/tokens/half")).status == 204
    await _create(http, "half")


# ------------------------------------------------------------------------------------------------- who acts, in facts


async def _submit(http: Http, **options: Any) -> str:
    answer = await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}}, **options)
    assert answer.status == 202, answer.body
    return answer.json()["run_id"]


async def _runs(http: Http, query: str, **options: Any) -> set[str]:
    answer = await http("GET", f"/v1/runs?limit=200&{query}", **options)
    assert answer.status == 200, answer.body
    return {run["run_id"] for run in answer.json()["runs"]}


async def test_a_run_belongs_to_the_principal_that_requested_it(http: Http) -> None:
    token = await _create(http)
    own, other = await _submit(http), await _submit(http, token=token)
    assert (await http("GET", f"/v1/runs/{own}")).json()["requested_by"] == "token:default"
    assert (await http("GET", f"/v1/runs/{other}")).json()["requested_by"] == "token:ci"
    assert {own, other} & await _runs(http, "mine=true") == {own}
    assert {own, other} & await _runs(http, "mine=true", token=token) == {other}
    assert {own, other} & await _runs(http, "requested_by=token:ci") == {other}
    assert {own, other} & await _runs(http, "mine=true&requested_by=token:ci") == {own}
    assert await _runs(http, "requested_by=user:nobody") == set()
    rerun = (await http("POST", f"/v1/runs/{own}/rerun", {"version": "same"}, token=token)).json()["run_id"]
    assert (await http("GET", f"/v1/runs/{rerun}")).json()["requested_by"] == "token:ci"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1}}),
        ("POST", "/v1/runs/{run}/cancel", {"reason": "wrong data"}),
        ("POST", "/v1/runs/{run}/steps/double-2/cancel", {"reason": "wrong data"}),
    ],
)
async def test_principals_claimed_by_clients_are_refused_or_ignored(
    platform: Platform, http: Http, method: str, path: str, body: dict[str, Any]
) -> None:
    token = await _create(http)
    run_id = await _submit(http)
    claims = {"by": "user:root", "requested_by": "user:root", "principal": "user:root"}
    headers = {"x-forwarded-user": "root", "from": "root@example.com"}
    answer = await http(method, path.format(run=run_id), body | claims, token=token, headers=headers)
    assert (answer.status, answer.fields) == (422, set(claims))
    answer = await http(method, path.format(run=run_id), body, token=token, headers=headers)
    assert answer.status == 202, answer.body
    records = await platform.log.read(answer.json()["run_id"])
    acted = {
        fact.by if isinstance(fact, CancelRequested | StepCancelRequested) else fact.requested_by
        for fact in (record.fact for record in records)
        if isinstance(fact, CancelRequested | StepCancelRequested | RunRequested)
    }
    assert "token:ci" in acted and acted <= {"token:ci", "token:default"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/models/churn/gates/champion", {"gate": "accuracy > 0.5"}),
        ("PUT", "/v1/models/churn/aliases/champion", {"version": 1}),
        ("POST", "/v1/models/churn/versions/1/archive", {"archived": True}),
        ("POST", "/v1/models/churn/versions", {"run_id": "r", "step": "s"}),
    ],
)
async def test_model_changes_accept_no_author_field(http: Http, method: str, path: str, body: dict[str, Any]) -> None:
    answer = await http(method, path, body | {"by": "user:root"})
    assert (answer.status, answer.fields) == (422, {"by"})


async def test_a_deployment_records_the_principal_that_changed_it(http: Http) -> None:
    token = await _create(http)
    for n, (sent, by) in enumerate(((TOKEN, "token:default"), (token, "token:ci"))):
        body = {"definition": {"pipeline": "chain", "inputs": {"n": n}}}
        assert (await http("PUT", "/v1/deployments/nightly", body, token=sent)).json()["by"] == by
        assert (await http("GET", "/v1/deployments/nightly")).json()["by"] == by
