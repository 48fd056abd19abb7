"""The HTTP layer: token, host names, bodies, hostile URLs, and helpful errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from gateway_platform import TOKEN, Answer, Http, Platform, read_answer, running

from penstock_gateway.platform.health import Health

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[3]
RUN = {"pipeline": "chain", "inputs": {"n": 1}}


def is_problem(answer: Answer, status: int) -> dict[str, Any]:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["type"] == "about:blank"
    assert answer.headers["x-content-type-options"] == "nosniff"
    return problem


# -------------------------------------------------------------------------------------------------------------- token


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_token(http: Http, path: str) -> None:
    assert (await http("GET", path, token=None)).status == 200


async def test_the_api_describes_itself_without_a_token(http: Http) -> None:
    answer = await http("GET", "/openapi.json", token=None)
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    described = answer.json()
    assert described.pop("servers") == [{"url": "/"}]
    committed = json.loads((ROOT / "proto" / "openapi.json").read_text())
    committed.pop("servers")
    assert described == committed
    answer = await http("GET", "/docs", token=None)
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.body.decode()
    assert not re.search(r"https?://|//[a-z]|<script|<link|<img|src=", page), "it needs nothing from other hosts"
    anchors = set(re.findall(r' id="([^"]+)"', page))
    operations = [one for item in described["paths"].values() for one in item.values()]
    assert {one["operationId"] for one in operations} <= anchors
    assert set(re.findall(r' href="#([^"]+)"', page)) <= anchors, "every link has a target"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": f"Bearer {TOKEN} {TOKEN}"},
        {"authorization": "Bearer \xff"},
        {"cookie": f"token={TOKEN}"},
    ],
    ids=range(10),
)
@pytest.mark.parametrize(
    "path", ["/v1/platform", "/v1/runs?limit=1", "/v1/nothing", "/v1", "/v1/artifacts/" + "0" * 64]
)
async def test_everything_under_v1_needs_the_token(http: Http, path: str, headers: dict[str, str]) -> None:
    answer = await http("GET", path, token=None, headers=headers)
    problem = is_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.body.decode()
    assert "Authorization: Bearer" in problem["detail"]


async def test_the_authorization_scheme_is_case_insensitive(http: Http) -> None:
    answer = await http("GET", "/v1/platform", token=None, headers={"authorization": f"bEARER   {TOKEN} "})
    assert answer.status == 200


async def test_a_request_without_token_changes_nothing(platform: Platform, http: Http) -> None:
    before = (await platform.bus.api("STREAM.INFO.RUNS"))["state"]["last_seq"]
    for method, path in (("POST", "/v1/runs"), ("PUT", "/v1/deployments/x"), ("PUT", "/v1/artifacts/" + "0" * 64)):
        is_problem(await http(method, path, RUN, token=None), 401)
    assert (await platform.bus.api("STREAM.INFO.RUNS"))["state"]["last_seq"] == before


# ---------------------------------------------------------------------------------------------------------- host, CORS


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST.", 200),
        ("[::1]:{port}", 200),
        ("evil.example", 421),
        ("evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("169.254.169.254", 421),
        ("[::1].evil.example", 421),
    ],
)
async def test_only_local_host_names_are_accepted(http: Http, host: str, status: int) -> None:
    for path in ("/v1/platform", "/healthz"):
        answer = await http("GET", path, headers={"host": host.format(port=http.port)})
        assert answer.status == status
        if status == 421:
            is_problem(answer, 421)


async def test_another_name_can_be_allowed(tmp_path: Path) -> None:
    async with running(tmp_path, allowed_hosts="penstock.example, other.example") as platform:
        http = Http(platform)
        assert (await http("GET", "/v1/platform", headers={"host": "Penstock.example:80"})).status == 200
        assert (await http("GET", "/v1/platform", headers={"host": "evil.example"})).status == 421


async def test_cross_origin_requests_get_no_permission(http: Http) -> None:
    asking = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for token in (None, TOKEN):
        answer = await http("OPTIONS", "/v1/runs", token=token, headers=asking)
        assert answer.status in (401, 405)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = await http("GET", "/v1/runs", headers={"origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


# ------------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not valid JSON"),
        (b"", 400, "not valid JSON"),
        (b'{"pipeline": "chain", "inputs": {"n": NaN}}', 400, "not valid JSON"),
        (b'{"pipeline": "\xff"}', 400, "not valid JSON"),
        (b'{"pipeline": "\\ud800"}', 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b'{"pipeline": "chain", "inputs": {"n": ' + b"[" * 200 + b"]" * 200 + b"}}", 422, "too deeply"),
        (b"[]", 422, "must be a JSON object"),
        (b'"text"', 422, "must be a JSON object"),
        (b"null", 422, "must be a JSON object"),
    ],
    ids=range(10),
)
async def test_invalid_bodies(http: Http, body: bytes, status: int, words: str) -> None:
    problem = is_problem(await http("POST", "/v1/runs", body, headers={"content-type": "application/json"}), status)
    assert words in problem["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_only_json_is_accepted(http: Http, kind: str) -> None:
    """A form of another web page can send these without a preflight request, but not JSON."""
    problem = is_problem(await http("POST", "/v1/runs", b'{"pipeline":"chain"}', headers={"content-type": kind}), 415)
    assert "application/json" in problem["detail"]


async def test_a_body_over_the_limit_is_rejected_unread(http: Http) -> None:
    reader, writer = await http.open("POST", "/v1/runs", headers={"content-length": str(9 * 1024 * 1024)})
    answer = await read_answer(reader)
    writer.close()
    assert "8388608 bytes" in is_problem(answer, 413)["detail"]


async def test_a_chunked_body_is_cut_off_at_the_limit(http: Http) -> None:
    reader, writer = await http.open(
        "POST",
        "/v1/runs",
        headers={"content-length": "", "transfer-encoding": "chunked", "content-type": "application/json"},
    )
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    try:
        for _ in range(9):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    is_problem(await read_answer(reader), 413)
    writer.close()


async def test_a_body_just_under_the_limit_is_read(http: Http) -> None:
    body = b'{"pipeline": "chain", "inputs": {"n": 1}' + b" " * (8 * 1024 * 1024 - 41) + b"}"
    answer = await http("POST", "/v1/runs", body, headers={"content-type": "application/json"})
    assert answer.status == 202


async def test_a_client_disconnecting_mid_request_affects_nothing(platform: Platform, http: Http) -> None:
    before = (await platform.bus.api("STREAM.INFO.RUNS"))["state"]["last_seq"]
    for _ in range(5):
        _, writer = await http.open("POST", "/v1/runs", b'{"pipeline":"chain"', headers={"content-length": "5000"})
        await writer.drain()
        writer.close()
    assert (await http("GET", "/v1/platform")).status == 200
    assert (await platform.bus.api("STREAM.INFO.RUNS"))["state"]["last_seq"] == before


# ---------------------------------------------------------------------------------------------------------- addresses


HOSTILE = [
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "a%0d%0aset-cookie:%20x",
    "*",
    ">",
    "a.b",
    "a%20b",
    "%F0%9F%92%A9",
    "%FF%FE",
    "x" * 101,
    "x" * 5000,
    "$JS.API.STREAM.DELETE.RUNS",
    "'%20OR%201=1",
    "%7B%7D",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/runs/{}"),
        ("POST", "/v1/runs/{}/cancel"),
        ("GET", "/v1/runs/{}/events"),
        ("GET", "/v1/runs/{}/logs"),
        ("GET", "/v1/runs/{}/value"),
        ("GET", "/v1/artifacts/{}"),
        ("HEAD", "/v1/artifacts/{}"),
        ("PUT", "/v1/artifacts/{}"),
        ("GET", "/v1/versions/{}/1"),
        ("GET", "/v1/versions?pipeline={}"),
        ("GET", "/v1/versions/chain/{}"),
        ("GET", "/v1/deployments/{}"),
        ("PUT", "/v1/deployments/{}"),
        ("DELETE", "/v1/deployments/{}"),
        ("GET", "/v1/{}"),
    ],
    ids=lambda part: part,
)
async def test_hostile_urls_get_client_errors(
    platform: Platform, http: Http, method: str, path: str, name: str
) -> None:
    answer = await http(method, path.format(name))
    # 200 only if the server treats `..` or the like as a filter without matches.
    assert answer.status in (400, 404, 405, 415, 422), answer
    assert "set-cookie" not in answer.headers
    if method != "HEAD":
        is_problem(answer, answer.status)
    assert "Traceback" not in answer.body.decode()


@pytest.mark.parametrize(
    "query", ["step=..", "step=*", "step=a.b", "step=%00", "step=" + "x" * 300, "step=>", "step=%ff"]
)
async def test_hostile_step_keys(platform: Platform, http: Http, query: str) -> None:
    run_id = await platform.request()
    for what in ("logs", "value"):
        is_problem(await http("GET", f"/v1/runs/{run_id}/{what}?{query}"), 422)


async def test_unknown_paths_and_methods(http: Http) -> None:
    is_problem(await http("GET", "/v1/nothing"), 404)
    assert (await http("GET", "/", token=None)).headers["location"] == "/console/"
    # Other spellings are not redirected: a redirect could leak the token.
    is_problem(await http("GET", "/v1/runs/"), 404)
    is_problem(await http("GET", "//v1/runs"), 404)
    answer = await http("DELETE", "/v1/runs")
    is_problem(answer, 405)
    assert answer.headers["allow"]
    for path in ("/redoc", "/docs/oauth2-redirect"):
        is_problem(await http("GET", path, token=None), 404)


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET /" + b"x" * 200_000,
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 200_000,
    ],
    ids=range(8),
)
async def test_non_http_connections_are_closed(http: Http, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(raw)
    if len(raw) < 1000:  # long ones are closed before their end
        writer.write_eof()
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 421")), answer[:100]
    assert (await http("GET", "/healthz", token=None)).status == 200


# ------------------------------------------------------------------------------------------------------------- faults


async def test_internal_errors_reveal_no_details(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("secret insides")

    monkeypatch.setattr(Health, "readiness", fail)
    answer = await http("GET", "/v1/platform")
    is_problem(answer, 500)
    assert "secret" not in answer.body.decode()


async def test_an_unavailable_service_is_reported(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        http = Http(platform)
        for subscription in list(platform.bus.client._subs.values()):  # pyright: ignore[reportPrivateUsage]
            if subscription.subject.startswith("commands."):
                await subscription.unsubscribe()
        answer = await http("GET", "/v1/platform")
        problem = is_problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert "commands.artifacts.store" in problem["detail"]


async def test_without_nats_the_gateway_is_not_ready_and_does_not_hang(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        http = Http(platform)
        assert platform.gateway.ready()
        await platform.server.stop()
        async with asyncio.timeout(5):
            while platform.bus.client.is_connected:
                await asyncio.sleep(0.01)
        answer = await http("GET", "/readyz", token=None)
        parts = {"nats": False, "log": False, "integrity": True, "streams": True}
        assert answer.status == 503
        assert answer.json() == {"ready": False, "parts": parts, "problems": []}
        assert not platform.gateway.ready()
        assert (await http("GET", "/healthz", token=None)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/events/0", None, 404),
        ("GET", f"/v1/events?before={2**53 - 1}", None, 200),
        ("GET", f"/v1/dead-letters?before={2**53 - 1}", None, 200),
        ("GET", "/v1/questions?pipeline=%C3%A4", None, 422),
        ("GET", "/v1/deployments/%C3%A4/decisions", None, 422),
        ("PUT", "/v1/retention/archive", {"after": True}, 422),
        ("POST", "/v1/deployments/nightly/pause", {"revision": 2**53}, 422),
    ],
)
async def test_values_at_the_limits(http: Http, method: str, path: str, body: Any, status: int) -> None:
    assert (await http(method, path, body)).status == status
