"""Finished runs are sent to an OpenLineage service: a real HTTP server that records requests."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from gateway_platform import Http, Platform

from penstock_contracts import subjects
from penstock_core.facts import Outcome
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored
from penstock_gateway.lineage import emitter
from penstock_gateway.lineage.emitter import LineageEmitter, OpenLineageUnavailableError
from penstock_gateway.runs.run_states import RunStates

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Receiver(ThreadingHTTPServer):
    """Records bodies and keys; responds with an error as often as configured."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.broken = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.broken:
            self.server.broken -= 1
            self.send_response(400)  # the library retries by itself after 5xx
        else:
            self.server.got.append(json.loads(body))
            self.server.keys.add(self.headers.get("Authorization", ""))
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Suppress logging."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def whole(receiver: Receiver, run_id: str, count: int) -> list[dict[str, Any]]:
    """Return the events once there are that many."""
    for _ in range(600):
        if len(receiver.got) >= count:
            return receiver.got
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(receiver.got)} events came of {run_id}, not {count}")


async def a_run(platform: Platform, outcome: Outcome = Outcome.SUCCEEDED) -> str:
    run_id = await platform.request()
    ref = ArtifactRef(sha256="ab" * 32, size=5, media_type="text/plain", format="text")
    await platform.run_step(run_id, "double", {"result": Stored(ref)})
    await platform.run_step(run_id, "double-2", {"result": Inline(3)})
    await platform.finish(run_id, outcome, **({"error": "boom"} if outcome is Outcome.FAILED else {}))
    return run_id


async def test_a_finished_run_is_sent_completely_and_resent_after_a_failure(
    platform: Platform, http: Http, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emitter, "_PAUSE", 0.3)
    receiver.broken = 1
    sending = LineageEmitter(platform.context, platform.gateway.feature(RunStates), receiver.url, "secret")
    await sending.start()
    try:
        await _declared(platform)
        run_id = await a_run(platform)
        got = await whole(receiver, run_id, 6)
    finally:
        await sending.close()
    assert receiver.keys == {"Bearer secret"}
    assert [event["eventType"] for event in got] == ["START", "START", "COMPLETE", "START", "COMPLETE", "COMPLETE"]
    run, step = got[0]["run"]["runId"], got[1]
    assert got[-1]["run"]["runId"] == run
    assert got[0]["job"] == {"namespace": "penstock://default", "name": "chain", "facets": {}}
    assert step["job"]["name"] == "chain.double"
    assert step["run"]["facets"]["parent"]["run"]["runId"] == run
    (made,) = got[2]["outputs"]
    assert made["name"] == "chain.double.result"
    assert made["facets"]["version"]["datasetVersion"] == "ab" * 32
    (read,) = got[3]["inputs"]
    assert (read["name"], read["facets"]["version"]["datasetVersion"]) == ("chain.double.result", "ab" * 32)
    assert got[4]["outputs"][0]["facets"] == {}, "a value that travels inline has no digest"


async def test_a_failed_run_includes_its_error(platform: Platform, http: Http, receiver: Receiver) -> None:
    sending = LineageEmitter(platform.context, platform.gateway.feature(RunStates), receiver.url)
    await sending.start()
    try:
        await _declared(platform)
        run_id = await a_run(platform, Outcome.FAILED)
        got = await whole(receiver, run_id, 6)
    finally:
        await sending.close()
    assert got[-1]["eventType"] == "FAIL"
    assert got[-1]["run"]["facets"]["errorMessage"]["message"] == "boom"


async def test_an_invalid_address_stops_the_platform_with_an_error(platform: Platform) -> None:
    with pytest.raises(OpenLineageUnavailableError, match=r"PENSTOCK_OPENLINEAGE_URL 'nowhere' cannot be used"):
        LineageEmitter(platform.context, platform.gateway.feature(RunStates), "nowhere")


async def _declared(platform: Platform) -> None:
    """Wait until the gateway follows finished runs."""
    for _ in range(600):
        names = (await platform.bus.api(f"CONSUMER.NAMES.{subjects.RUNS}")).get("consumers") or []
        if subjects.LINEAGE_CONSUMER in names:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("there is no consumer")
