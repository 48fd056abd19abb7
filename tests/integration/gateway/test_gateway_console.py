"""The web console at the gateway: its pages, the cookie of browsers, and the stream of changed runs."""

from __future__ import annotations

import asyncio

import pytest
from gateway_platform import TOKEN, Event, Http, Platform, Stream

from penstock_core.pipeline.values import Inline
from penstock_gateway.console import sessions

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAME = {"sec-fetch-site": "same-origin"}


async def test_pages_need_no_token_and_allow_no_foreign_script(http: Http) -> None:
    root = await http("GET", "/", token=None)
    assert (root.status, root.headers["location"]) == (307, "/console/")
    for path in ("/console/", "/console/runs/x?view=logs&step=a%5B1%5D", "/console"):
        page = await http("GET", path, token=None)
        assert page.status in (200, 307)
    page = await http("GET", "/console/runs", token=None)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert (await http("GET", "/console/assets/none.js", token=None)).status == 404
    assert (await http("GET", "/console/../../etc/passwd.txt", token=None)).status == 404


async def _signed_in(http: Http, token: str = TOKEN) -> str:
    answer = await http("POST", "/v1/session", token=token, headers=SAME)
    assert answer.status == 204
    return answer.headers["set-cookie"].partition(";")[0]


async def test_the_cookie_replaces_the_token_for_pages_of_this_origin_only(http: Http) -> None:
    cookie = {"cookie": await _signed_in(http)}
    assert (await http("GET", "/v1/whoami", token=None, headers=cookie)).json()["principal"] == "token:default"
    put = ("PUT", "/v1/limits/gpu", {"slots": 1})
    assert (await http(*put, token=None, headers=cookie)).status == 403
    assert (await http(*put, token=None, headers=cookie | {"sec-fetch-site": "cross-site"})).status == 403
    assert (await http(*put, token=None, headers=cookie | {"origin": "http://evil.example"})).status == 403
    assert (await http(*put, token=None, headers=cookie | SAME)).status == 200
    assert (await http(*put, headers={"sec-fetch-site": "cross-site"})).status == 200, "a bearer token is no cookie"
    out = await http("DELETE", "/v1/session", token=None, headers=cookie | SAME)
    assert out.status == 204 and "Max-Age=0" in out.headers["set-cookie"]


async def test_wrong_and_revoked_tokens_are_refused_in_the_cookie_too(http: Http) -> None:
    assert (await http("POST", "/v1/session", token="wrong", headers=SAME)).status == 401
    assert (await http("POST", "/v1/session", token=None, headers=SAME)).status == 401
    created = (await http("POST", "/v1/tokens", {"name": "browser", "role": "viewer"})).json()
    cookie = {"cookie": await _signed_in(http, created["token"])}
    assert (await http("GET", "/v1/runs", token=None, headers=cookie)).status == 200
    assert (await http("PUT", "/v1/limits/gpu", {"slots": 1}, token=None, headers=cookie | SAME)).status == 403
    assert (await http("DELETE", "/v1/tokens/browser")).status == 204
    assert (await http("GET", "/v1/runs", token=None, headers=cookie)).status == 401
    wrong = {"cookie": f"{sessions.COOKIE}=wrong"}
    assert (await http("GET", "/v1/runs", token=None, headers=wrong)).status == 401


async def _next(stream: Stream) -> Event:
    found = await asyncio.wait_for(stream.next(), 10)
    assert found is not None
    return found


async def test_changes_of_runs_arrive_and_resume(platform: Platform, http: Http) -> None:
    stream = await http.stream("/v1/runs/changes")
    first = await platform.request()
    begun = await _next(stream)
    assert (begun.event, begun.data["run_id"], begun.data["kind"]) == ("change", first, "run.requested")
    await platform.run_step(first, "double")
    await platform.finish(first, outputs={"result": Inline(4)})
    ended = await _next(stream)
    assert (ended.data["run_id"], ended.data["kind"]) == (first, "run.finished")
    again = await http.stream("/v1/runs/changes", begun.id)
    assert (await _next(again)).id == ended.id


async def test_changes_of_other_projects_are_not_shown(platform: Platform, http: Http) -> None:
    await http("PUT", "/v1/projects/other", {})
    elsewhere = await http.stream("/v1/runs/changes", None, **{"penstock-project": "other"})
    mine = await http.stream("/v1/runs/changes")
    await platform.request()
    await _next(mine)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(elsewhere.next(), 1.0)
