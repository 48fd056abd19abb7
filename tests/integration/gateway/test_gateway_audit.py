"""The audit trail: what is recorded of requests, filters and pages, and that it cannot be changed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from gateway_platform import TOKEN, Http, Platform

from penstock_adapters.nats.bus import BusError
from penstock_contracts import subjects
from penstock_core import access

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _entries(http: Http, query: str, count: int) -> list[dict[str, Any]]:
    """Wait until there are `count` entries, and return them."""
    deadline = time.monotonic() + 60
    while True:
        answer = await http("GET", f"/v1/audit?{query}")
        assert answer.status == 200, answer.body
        found = answer.json()["entries"]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


async def test_changes_and_refusals_are_recorded_with_who_what_where_and_token(http: Http) -> None:
    body = {"name": "viewer", "role": "viewer"}
    token = (await http("POST", "/v1/tokens", body)).json()["token"]
    forged = {"x-forwarded-for": "203.0.113.7"}
    assert (await http("PUT", "/v1/limits/gpu", {"slots": 1}, token=token, headers=forged)).status == 403
    assert (await http("GET", "/v1/runs", token=token)).status == 200
    assert (await http("GET", "/v1/tokens", token="wrong")).status == 401
    assert (await http("DELETE", "/v1/limits/none")).status == 404

    [refused] = await _entries(http, "principal=token:viewer", 1)  # reads that are allowed are not recorded
    assert (refused["operation"], refused["path"], refused["outcome"]) == ("put_limit", "/v1/limits/gpu", "refused")
    assert (refused["status"], refused["address"], refused["method"]) == (403, "127.0.0.1", "PUT")
    assert refused["token"] == access.token_digest(token)[:12]
    [anonymous] = [one for one in await _entries(http, "outcome=refused", 2) if one["principal"] is None]
    assert (anonymous["path"], anonymous["status"], anonymous["operation"]) == ("/v1/tokens", 401, None)
    [created] = await _entries(http, "operation=create_token", 1)
    assert (created["principal"], created["outcome"]) == ("token:default", "allowed")
    assert created["token"] == access.token_digest(TOKEN)[:12]
    [failed] = await _entries(http, "outcome=failed&principal=token:default", 1)
    assert (failed["operation"], failed["status"]) == ("delete_limit", 404)
    stored = str(await _entries(http, "limit=1000", 4))
    assert token not in stored and TOKEN not in stored and "wrong" not in stored


async def test_equal_requests_are_counted_and_pages_follow_each_other(http: Http) -> None:
    began = time.time()
    await asyncio.gather(*(http("DELETE", "/v1/limits/equal") for _ in range(20)))
    for number in range(7):
        await http("DELETE", f"/v1/limits/page-{number}")
    deadline = time.monotonic() + 60
    while True:
        found, cursor = [], ""
        while cursor is not None:
            page = (await http("GET", f"/v1/audit?limit=2&operation=delete_limit&since={began}{cursor}")).json()
            found += page["entries"]
            cursor = f"&cursor={page['next']}" if page["next"] else None
        if sum(one["count"] for one in found) == 27:
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert [one["path"][-1] for one in found if "page-" in one["path"]] == list("6543210")
    assert len([one for one in found if one["path"] == "/v1/limits/equal"]) <= 3
    assert len({(one["at"], one["path"]) for one in found}) == len(found)
    assert (await http("GET", f"/v1/audit?until={began - 1000}&operation=delete_limit&since={began - 2000}")).json()[
        "entries"
    ] == []
    for cursor in ("x", "1", "1-", "-1", "1-x"):
        assert (await http("GET", f"/v1/audit?cursor={cursor}")).status == 422


async def test_requests_without_a_token_cannot_fill_the_trail(http: Http) -> None:
    began = time.monotonic()
    await asyncio.gather(*(http("GET", f"/v1/{number}", token="wrong") for number in range(200)))
    batches = time.monotonic() - began + 2  # one a second
    deadline = time.monotonic() + 60
    while True:
        found = [one for one in await _entries(http, "outcome=refused&limit=1000", 1) if one["path"] != "/v1/tokens"]
        found = [one for one in found if one["principal"] is None]
        if sum(one["count"] for one in found) >= 200:
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert len(found) <= 11 * batches  # ten, and one for the others


async def test_the_trail_cannot_be_changed(platform: Platform, http: Http) -> None:
    await http("DELETE", "/v1/limits/kept")
    await _entries(http, "operation=delete_limit", 1)
    for verb, body in (("PURGE", {}), ("MSG.DELETE", {"seq": 1})):
        with pytest.raises(BusError):
            await platform.bus.api(f"STREAM.{verb}.{subjects.AUDIT}", body)
