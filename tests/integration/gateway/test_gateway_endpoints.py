"""Endpoints: a request becomes an event and a run, and is answered with the output of the run."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from gateway_platform import Http, Platform, chain, running, runs, started

from penstock_adapters.nats.deployment_log import DeploymentLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import commands
from penstock_core.deployments import state
from penstock_core.deployments.definition import ENDPOINT_CALLED
from penstock_core.deployments.facts import DeploymentDeleted
from penstock_core.facts import Outcome, RunRequested
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import (
    ArtifactRef,
    Element,
    Fields,
    Inline,
    Items,
    Param,
    Stored,
    Value,
)
from penstock_core.queries import search
from penstock_gateway.endpoints.outputs import INLINE_LIMIT
from penstock_gateway.http import bodies

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = {"type": "string", "format": "path"}
NUMBERS = {"type": "array", "items": {"type": "integer"}}
ROWS = {"type": "array", "items": {"type": "object", "properties": {"price": {"type": "number"}}}}


async def deploy(http: Http, name: str, pipeline: str = "chain", **more: Any) -> str:
    """Deploy a pipeline with an endpoint; return the path of the endpoint."""
    options = {option: more.pop(option) for option in ("wait", "rate", "queue") if option in more}
    trigger = {"kind": "endpoint", "name": "endpoint", **options}
    body = {"definition": {"pipeline": pipeline, "triggers": [trigger], **more}}
    answer = await http("PUT", f"/v1/deployments/{name}", body)
    assert answer.status == 200, answer.body
    return f"/v1/endpoints/default/{name}"


@contextlib.asynccontextmanager
async def finishing(
    platform: Platform, deployment: str, output: Callable[[RunRequested], dict[str, Value]], delay: float = 0.0
) -> AsyncGenerator[None]:
    """Finish every run of a deployment, as a scheduler would."""
    done: set[str] = set()

    async def work() -> None:
        while True:
            for run in await runs(platform, deployment):
                if run.run_id not in done:
                    done.add(run.run_id)
                    await asyncio.sleep(delay)
                    await platform.finish(run.run_id, outputs=output(run))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def doubled(run: RunRequested) -> dict[str, Value]:
    number = run.inputs["n"]
    assert isinstance(number, Inline)
    return {"result": Inline(number.value * 2)}


async def events(platform: Platform) -> int:
    return len(await EventStream(platform.bus).newest("default", ENDPOINT_CALLED, 1000))


# ---------------------------------------------------------------------------------------------------------------- calls


async def test_a_run_knows_the_idempotency_key_of_its_request(platform: Platform, http: Http) -> None:
    path = await deploy(http, "keyed")
    async with finishing(platform, "keyed", doubled):
        await http("POST", path, {"n": 1}, headers={"idempotency-key": "order-17"})
        await http("POST", path, {"n": 2})
    found = await runs(platform, "keyed")
    assert sorted(run.trigger.get("request_id", "") for run in found) == ["", "order-17"]


async def test_a_request_is_answered_with_the_output_of_its_run(platform: Platform, http: Http) -> None:
    path = await deploy(http, "doubler", labels={"team": "risk"}, priority=3)
    async with finishing(platform, "doubler", doubled):
        answer = await http("POST", path, {"n": 21})
    assert (answer.status, answer.json()) == (200, 42)
    [run] = await runs(platform, "doubler")
    assert answer.headers["penstock-run"] == run.run_id
    assert run.trigger["type"] == "endpoint"
    assert (run.labels, run.priority, run.requested_by) == ({"team": "risk"}, 3, "trigger:doubler")
    [decision] = (await http("GET", "/v1/deployments/doubler/decisions")).json()["decisions"]
    assert (decision["outcome"], decision["run_id"]) == ("started", run.run_id)
    explained = (await http("GET", f"/v1/events/{decision['event']}")).json()
    assert explained["event"]["data"] == {"n": 21}
    assert explained["event"]["extensions"] == {"principal": "token:default"}


async def test_items_of_a_run_are_sent_when_it_has_finished(platform: Platform, http: Http) -> None:
    plain = chain("yielding", 1)
    steps = {"double": dataclasses.replace(plain.steps["double"], stream=True)}
    await platform.add_version(dataclasses.replace(plain, steps=steps))
    path = await deploy(http, "yielder", "yielding")
    async with finishing(platform, "yielder", lambda run: {"result": Inline([1, "b"])}):
        assert (await http("POST", path, {"n": 1})).json() == [1, "b"]
        answer = await http("POST", path, {"n": 1}, headers={"accept": "text/event-stream"})
        lines = await http(
            "POST", path, {"n": 2}, headers={"accept": "application/x-ndjson", "idempotency-key": "order-1"}
        )
    run_id = answer.headers["penstock-run"]
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    end = f'event: end\ndata: {{"run_id":"{run_id}","items":2}}\n\n'
    assert answer.body.decode() == f'data: 1\n\ndata: "b"\n\n{end}'
    assert [orjson.loads(line) for line in lines.body.splitlines()][:2] == [{"item": 1}, {"item": "b"}]


async def test_a_slow_run_is_answered_at_the_status_address(platform: Platform, http: Http) -> None:
    path = await deploy(http, "slow", wait=0.2)
    answer = await http("POST", path, {"n": 4})
    assert answer.status == 202
    status = answer.headers["location"]
    pending = answer.json()
    assert (pending["status_url"], answer.headers["retry-after"]) == (status, "1")
    [run] = await started(platform, "slow")
    again = await http("GET", status)
    assert (again.status, again.json()["run_id"]) == (202, run.run_id)
    waiting = asyncio.create_task(http("GET", status, headers={"prefer": "wait=20"}))
    await asyncio.sleep(0.1)
    await platform.finish(run.run_id, outputs={"result": Inline(8)})
    assert ((found := await waiting).status, found.json()) == (200, 8)
    assert (await http("GET", status)).json() == 8


async def test_a_request_is_known_after_its_deployment_has_changed(platform: Platform, http: Http) -> None:
    path = await deploy(http, "changing", wait=0)
    other = await deploy(http, "unrelated", wait=0)
    location = (await http("POST", path, {"n": 1})).headers["location"]
    [run] = await started(platform, "changing")
    trigger = {"kind": "endpoint", "name": "renamed"}
    await http("PUT", "/v1/deployments/changing", {"definition": {"pipeline": "chain", "triggers": [trigger]}})
    await platform.finish(run.run_id, outputs={"result": Inline(2)})
    assert (await http("GET", location)).json() == 2
    assert (await http("GET", location.replace(path, other))).status == 404


async def test_a_gateway_that_stops_answers_the_requests_that_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as platform:
        http = Http(platform)
        path = await deploy(http, "waiting", wait=30)
        waiting = asyncio.create_task(http("POST", path, {"n": 1}))
        await started(platform, "waiting")
        await platform.gateway.stop()
        assert (await waiting).status == 202


async def test_the_caller_says_how_long_to_wait(platform: Platform, http: Http) -> None:
    path = await deploy(http, "patient", wait=30)
    assert (await http("POST", path, {"n": 1}, headers={"prefer": "respond-async"})).status == 202
    assert (await http("POST", path, {"n": 2}, headers={"prefer": "respond-async, wait=0"})).status == 202
    assert (await http("POST", f"{path}?wait=0", {"n": 3})).status == 202
    assert (await http("POST", f"{path}?wait=0.1", {"n": 4}, headers={"prefer": "wait=30"})).status == 202
    refused = await http("POST", path, {"n": 5}, headers={"prefer": "wait=long"})
    assert (refused.status, refused.fields) == (422, {"header.prefer"})
    assert (await http("POST", f"{path}?wait=301", {"n": 5})).status == 422
    assert len(await started(platform, "patient", 4)) == 4


async def test_requests_with_the_same_key_are_one_run(platform: Platform, http: Http) -> None:
    path = await deploy(http, "once", wait=0)
    headers = {"idempotency-key": "order-17"}
    first = await asyncio.gather(*(http("POST", path, {"n": 7}, headers=headers) for _ in range(5)))
    [run] = await started(platform, "once")
    assert {answer.status for answer in first} == {202}
    assert len({answer.headers["location"] for answer in first}) == 1
    await platform.finish(run.run_id, outputs={"result": Inline(14)})
    again = await http("POST", f"{path}?wait=10", {"n": 7}, headers=headers)
    assert (again.status, again.json(), again.headers["location"]) == (200, 14, first[0].headers["location"])
    other = await http("POST", path, {"n": 8}, headers=headers)
    assert other.status == 409
    assert "used for another request" in other.json()["detail"]
    assert len(await runs(platform, "once")) == 1


async def test_inputs_of_the_deployment_are_defaults(platform: Platform, http: Http) -> None:
    path = await deploy(http, "fixed", wait=0, inputs={"n": 5, "label": "a"})
    assert (await http("POST", path, {"label": "b"})).status == 202
    assert (await http("POST", path)).status == 202
    found = await started(platform, "fixed", 2)
    assert [run.inputs["label"] for run in found] == [Inline("b"), Inline("a")]
    assert {run.inputs["n"] for run in found} == {Inline(5)}


async def test_a_body_that_does_not_fit_is_refused_with_the_path(platform: Platform, http: Http) -> None:
    params = (ir.Port(name="rows", type="list[Row]", schema=ROWS), ir.Port(name="n", type="int", required=False))
    await platform.add_version(ir.Pipeline(name="priced", params=params, outputs={"result": Param("n")}))
    path = await deploy(http, "priced", "priced")
    before = await events(platform)
    cases: list[tuple[Any, int, set[str]]] = [
        ({"rows": [{"price": 1}, {"price": "x"}]}, 422, {"rows[1].price"}),
        ({"rows": [], "m": 1}, 422, {"m"}),
        ({}, 422, {"rows"}),
        ([1], 422, {"body"}),
        ({"rows": {"artifact": {"sha256": "0" * 64, "size": 3}}}, 422, {"rows"}),
    ]
    for body, status, fields in cases:
        answer = await http("POST", path, body)
        assert (answer.status, answer.fields) == (status, fields), answer.body
    assert (await http("POST", path, b"{", headers={"content-type": "application/json"})).status == 400
    assert (await http("POST", path, b"<a/>", headers={"content-type": "text/xml"})).status == 415
    assert (await http("POST", path, {"rows": []}, headers={"idempotency-key": "\t"})).status in (400, 422)
    assert await events(platform) == before


# ---------------------------------------------------------------------------------------------------------------- forms


def form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form with named parts, of which those with a file name are files; and its headers."""
    body = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        body += f'--mark\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return body + b"--mark--\r\n", {"content-type": "multipart/form-data; boundary=mark"}


async def photographed(platform: Platform, http: Http, name: str, **more: Any) -> str:
    """An endpoint whose pipeline takes a file, a list and a text."""
    params = (
        ir.Port(name="photo", type="Path", schema={"type": "string", "format": "path"}),
        ir.Port(name="rows", type="list[int]", required=False, default=[], schema=NUMBERS),
        ir.Port(name="label", type="str", required=False, default="", schema={"type": "string"}),
    )
    await platform.add_version(ir.Pipeline(name=name, params=params, outputs={"result": Param("label")}))
    return await deploy(http, name, name, wait=0, **more)


async def test_files_of_a_form_are_artifacts(platform: Platform, http: Http) -> None:
    path = await photographed(platform, http, "photos")
    photo = b"\x89PNG" * 100_000
    parts = (("photo", "C:\\pics\\cat.png", photo), ("rows", None, b"[1, 2]"), ("label", None, b"7"))
    body, headers = form(*parts)
    answer = await http("POST", path, body, headers=headers)
    assert answer.status == 202, answer.body
    [run] = await started(platform, "photos")
    stored = run.inputs["photo"]
    assert isinstance(stored, Stored)
    assert (stored.artifact.filename, stored.artifact.format, stored.artifact.size) == ("cat.png", "file", len(photo))
    assert await platform.store.stat(stored.artifact.sha256) == len(photo)
    assert (run.inputs["rows"], run.inputs["label"]) == (Inline([1, 2]), Inline("7"))


async def test_a_form_that_does_not_fit_is_refused(platform: Platform, http: Http) -> None:
    path = await photographed(platform, http, "picky")
    photo = ("photo", "a.png", b"x")
    for parts, fields in [
        ((photo, ("rows", None, b"[1, null]")), {"rows[1]"}),
        ((photo, ("rows", None, b"many")), {"rows"}),
        ((photo, photo), {"photo"}),
        ((("label", None, b"x"),), {"photo"}),
    ]:
        body, headers = form(*parts)
        answer = await http("POST", path, body, headers=headers)
        assert (answer.status, answer.fields) == (422, fields), answer.body
    body, headers = form(("photo", "a.png", b"x" * 1_000_001))
    assert (await http("POST", path, body, headers=headers)).status == 413
    assert (await http("POST", path, b"--mark--", headers={"content-type": "multipart/form-data"})).status == 400
    many, headers = form(photo, *((f"x{n}", None, b"1") for n in range(300)))
    assert (await http("POST", path, many, headers=headers)).status == 400
    assert await runs(platform, "picky") == []


async def test_a_caller_cannot_name_files_of_the_platform(platform: Platform, http: Http) -> None:
    path = await photographed(platform, http, "closed")
    params = (
        ir.Port(name="old", type="Path"),
        ir.Port(name="many", type="list[Path]", required=False, schema={"type": "array", "items": PATH}),
        ir.Port(name="maybe", type="Path | None", required=False, schema={"anyOf": [PATH, {"type": "null"}]}),
    )
    await platform.add_version(ir.Pipeline(name="closed-too", params=params, outputs={"result": Param("old")}))
    too = await deploy(http, "closed-too", "closed-too", wait=0)
    reference = {"artifact": {"sha256": await platform.store.put_bytes(b"x"), "size": 1}}
    cases: list[tuple[str, dict[str, Any], set[str]]] = [
        (path, {"photo": "/etc/passwd"}, {"photo"}),
        (too, {"old": "/etc/passwd", "many": ["/etc/passwd"], "maybe": "x"}, {"old", "many", "maybe"}),
        (too, {"old": {"$type": "path", "value": "/etc/passwd"}}, {"old"}),
    ]
    for where, body, fields in cases:
        answer = await http("POST", where, body)
        assert (answer.status, answer.fields) == (422, fields), answer.body
    assert (await http("POST", too, {"old": reference, "maybe": None})).status == 202
    parts, headers = form(("photo", None, b"/etc/passwd"))
    assert (await http("POST", path, parts, headers=headers)).fields == {"photo"}


async def test_a_caller_cannot_have_code_of_an_artifact_run(platform: Platform, http: Http) -> None:
    path = await photographed(platform, http, "harmless")
    content = b"cos\nsystem\n(S'true'\ntR."
    sha256 = await platform.store.put_bytes(content)
    file = {"sha256": sha256, "size": len(content)}
    for form in ("pickle", "of-the-user"):
        loaded = {"artifact": {**file, "format": form}}
        for name, body in {"photo": {"photo": loaded}, "rows": {"photo": {"artifact": file}, "rows": loaded}}.items():
            answer = await http("POST", path, body)
            assert (answer.status, answer.fields) == (422, {name}), answer.body
            assert "could run code" in answer.json()["detail"]


async def test_callers_cannot_have_a_step_read_a_file_of_its_machine(platform: Platform, http: Http) -> None:
    path = await photographed(platform, http, "paths")
    photo = {"artifact": {"sha256": await platform.store.put_bytes(b"x"), "size": 1}}
    hidden = [1, {"deep": [{"$type": "path", "value": "/etc/passwd"}]}]
    bodies = [hidden]
    for format, content in {"json": orjson.dumps(hidden), "jsonl": b"1\n" + orjson.dumps(hidden[1])}.items():
        escaped = content.replace(b"$", b"\\u0024")
        sha256 = await platform.store.put_bytes(escaped)
        bodies.append({"artifact": {"sha256": sha256, "size": len(escaped), "format": format}})
    for rows in bodies:
        answer = await http("POST", path, {"photo": photo, "rows": rows})
        assert (answer.status, answer.fields) == (422, {"rows"}), answer.body
        assert "contains a path" in answer.json()["detail"]
    assert await runs(platform, "paths") == []


@pytest.mark.parametrize("tag", ["this:d", "flows:Config", "numpy", "unknown", 5, None, ["path"]])
async def test_callers_cannot_have_a_step_import_a_module(platform: Platform, http: Http, tag: Any) -> None:
    params = (ir.Port(name="anything", type="Any"),)
    await platform.add_version(ir.Pipeline(name="untyped", params=params, outputs={"result": Param("anything")}))
    path = await deploy(http, "untyped", "untyped", wait=0)
    tagged = {"rows": [{"$type": tag, "name": "x"}]}
    artifact = orjson.dumps(tagged)
    stored = {"sha256": await platform.store.put_bytes(artifact), "size": len(artifact), "format": "json"}
    for given in (tagged, {"artifact": stored}):
        answer = await http("POST", path, {"anything": given})
        assert (answer.status, answer.fields) == (422, {"anything"}), answer.body
    for plain in ({"rows": [1]}, {"$type": "datetime", "value": "2024-05-01T12:00:00"}, {"type": "this:d"}):
        assert (await http("POST", path, {"anything": plain})).status == 202


async def test_fields_of_a_form_are_bounded_together(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await photographed(platform, http, "bounded")
    monkeypatch.setattr(bodies, "JSON_LIMIT", 300_000)
    photo = ("photo", "a.png", b"x")
    large = b"x" * 100_000
    fields, headers = form(photo, *((f"x{n}", None, large) for n in range(4)))
    answer = await http("POST", path, fields, headers=headers)
    assert answer.status == 413, answer.body
    assert "fields of the form are too large" in answer.json()["detail"]
    files, headers = form(photo, *((f"x{n}", "a.json", large) for n in range(4)))
    answer = await http("POST", path, files, headers=headers)
    assert (answer.status, "limit of all values" in answer.json()["detail"]) == (413, True), answer.body
    head = b'--mark\r\ncontent-disposition: form-data; name="a"\r\nx-long: ' + b"y" * 900_000
    answer = await http("POST", path, head, headers={"content-type": "multipart/form-data; boundary=mark"})
    assert answer.status in (400, 413), answer.body


async def test_nothing_of_a_refused_request_is_stored(platform: Platform, http: Http) -> None:
    path = await photographed(platform, http, "turned-away", queue=1)
    body, headers = form(("photo", "a.png", b"first"))
    assert (await http("POST", path, body, headers=headers)).status == 202
    body, headers = form(("photo", "a.png", b"of a full queue"))
    assert (await http("POST", path, body, headers=headers)).status == 429
    await http("POST", "/v1/deployments/turned-away/pause", {"reason": "night"})
    paused, headers = form(("photo", "a.png", b"of a paused deployment"))
    assert (await http("POST", path, paused, headers=headers)).status == 409
    stored = [await platform.store.stat(hashlib.sha256(one).hexdigest()) for one in CONTENTS]
    assert stored == [5, None, None]


CONTENTS = (b"first", b"of a full queue", b"of a paused deployment")


async def test_large_values_are_stored_as_artifacts(platform: Platform, http: Http) -> None:
    path = await photographed(platform, http, "large")
    rows = [*range(50_000)]
    reference = {"artifact": {"sha256": await platform.store.put_bytes(b"x"), "size": 1}}
    body = {"photo": reference, "rows": rows, "label": "short"}
    key = {"idempotency-key": "large"}
    assert (await http("POST", path, body, headers=key)).status == 202
    [run] = await started(platform, "large")
    stored = run.inputs["rows"]
    assert isinstance(stored, Stored)
    assert (stored.artifact.format, stored.artifact.items) == ("json", 50_000)
    assert orjson.loads(platform.store.path(stored.artifact.sha256).read_bytes()) == rows
    assert run.inputs["label"] == Inline("short")
    assert (await http("POST", path, body, headers=key)).status == 202
    assert len(await runs(platform, "large")) == 1
    wrong = await http("POST", path, {**body, "rows": [*rows, "x"]})
    assert (wrong.status, wrong.fields) == (422, {"rows[50000]"})


async def test_files_are_sent_to_a_store_that_grants_locations(tmp_path: Path) -> None:
    received: dict[str, bytes] = {}

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = next(int(line.partition(":")[2]) for line in head.split("\r\n") if line.startswith("content-length:"))
        received[head] = await reader.readexactly(size)
        platform.location = commands.Location(size=size)  # what the store says of it from now on
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with running(tmp_path) as platform, await asyncio.start_server(take, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        platform.store_info = commands.StoreInfo(kind="granted")
        url = f"http://127.0.0.1:{port}/object"
        platform.location = commands.Location(url=url, headers={"x-granted": "yes"}, size=None)
        http = Http(platform)
        path = await photographed(platform, http, "remote")
        body, headers = form(("photo", "cat.png", b"x" * 70_000))
        assert (await http("POST", path, body, headers=headers)).status == 202
        [(head, data)] = received.items()
        assert head.startswith("put /object")
        assert "x-granted: yes" in head
        assert data == b"x" * 70_000


async def test_a_failed_run_is_an_error(platform: Platform, http: Http) -> None:
    path = await deploy(http, "failing", wait=0)
    expected = {Outcome.FAILED: 500, Outcome.CANCELLED: 409}
    for n, (outcome, status) in enumerate(expected.items()):
        location = (await http("POST", path, {"n": n})).headers["location"]
        run = (await started(platform, "failing", n + 1))[n]
        await platform.finish(run.run_id, outcome, error="step 'double': ValueError: no")
        answer = await http("GET", location)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert run.run_id in answer.json()["detail"]
        assert "ValueError: no" in answer.json()["detail"]


async def test_outputs_are_plain_json_with_links_to_artifacts(platform: Platform, http: Http) -> None:
    path = await deploy(http, "linked", wait=0)
    location = (await http("POST", path, {"n": 1})).headers["location"]
    [run] = await started(platform, "linked")
    stored = {}
    for name, data in {"model": b"weights", "long": b'{"a":[1,2]}', "lines": b"1\n2\n"}.items():
        stored[name] = await platform.store.put_bytes(data)

    def reference(name: str, size: int, form: str) -> Stored:
        return Stored(
            ArtifactRef(sha256=stored[name], size=size, media_type="text/x", format=form, filename=f"{name}.x")
        )

    outputs: dict[str, Value] = {
        "files": Items((reference("model", 7, "file"), Inline(None))),
        "long": reference("long", 11, "json"),
        "lines": Fields({"x": reference("lines", 4, "jsonl")}),
    }
    await platform.finish(run.run_id, outputs=outputs)
    answer = (await http("GET", location)).json()
    assert (answer["long"], answer["lines"]) == ({"a": [1, 2]}, {"x": [1, 2]})
    link = answer["files"][0]
    assert (link["size"], link["filename"], answer["files"][1]) == (7, "model.x", None)
    assert (await http("GET", link["href"])).body == b"weights"
    secret = await platform.store.put_bytes(b"of another run")
    assert (await http("GET", link["href"].replace(stored["model"], secret))).status == 404


async def test_json_beyond_the_limit_of_an_answer_is_a_link(platform: Platform, http: Http) -> None:
    path = await deploy(http, "bulky", wait=0)
    location = (await http("POST", path, {"n": 1})).headers["location"]
    [run] = await started(platform, "bulky")
    items: list[Value] = []
    for letter in "abc":
        text = orjson.dumps([letter * (INLINE_LIMIT // 2 - 100), [{"$type": "tuple", "items": [1, 2]}]])
        sha256 = await platform.store.put_bytes(text)
        items.append(Stored(ArtifactRef(sha256=sha256, size=len(text), media_type="application/json", format="json")))
    part = Element(items[0], (1, 0, 1))
    await platform.finish(run.run_id, outputs={"items": Items((*items, items[0])), "part": part})
    answer = (await http("GET", location)).json()
    assert [isinstance(item, list) for item in answer["items"]] == [True, True, False, True]
    assert answer["items"][2]["sha256"] == sha256
    assert answer["part"] == 2


async def test_only_endpoints_can_be_called(platform: Platform, http: Http) -> None:
    on = {"kind": "event", "name": "on", "types": ["com.acme.x"], "inputs": {"n": "data.n"}}
    await http("PUT", "/v1/deployments/plain", {"definition": {"pipeline": "chain", "triggers": [on]}})
    path = await deploy(http, "real", wait=0)
    for missing in ("default/plain", "default/nothing", "other/real", "default/a.b"):
        assert (await http("POST", f"/v1/endpoints/{missing}", {"n": 1})).status in (404, 422)
    for id in ("1-00", "x", "99999-" + "0" * 32, "-", "1"):
        assert (await http("GET", f"{path}/requests/{id}")).status == 404
    two = [{"kind": "endpoint", "name": name} for name in ("a", "b")]
    refused = await http("PUT", "/v1/deployments/two", {"definition": {"pipeline": "chain", "triggers": two}})
    assert refused.status == 422
    assert "at most one endpoint" in refused.json()["detail"]


async def test_the_types_of_an_endpoint_are_described(platform: Platform, http: Http) -> None:
    path = await deploy(http, "typed", inputs={"label": "x"})
    schema = (await http("GET", f"{path}/schema")).json()
    assert schema["input"]["required"] == ["n"]
    assert schema["input"]["properties"]["label"]["default"] == "x"
    assert schema["example"] == {"n": 1, "label": "x"}
    document = (await http("GET", f"{path}/openapi.json")).json()
    operation = document["paths"][path]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["required"] == ["n"]
    assert {"200", "202", "422", "429"} <= operation["responses"].keys()


# --------------------------------------------------------------------------------------------------------------- limits


async def test_a_paused_deployment_refuses_requests_and_answers_earlier_ones(platform: Platform, http: Http) -> None:
    path = await deploy(http, "resting", wait=0)
    key = {"idempotency-key": "before"}
    location = (await http("POST", path, {"n": 1}, headers=key)).headers["location"]
    [run] = await started(platform, "resting")
    await http("POST", "/v1/deployments/resting/pause", {"reason": "night"})
    answer = await http("POST", path, {"n": 2})
    assert answer.status == 409
    assert "is paused" in answer.json()["detail"]
    await platform.finish(run.run_id, outputs={"result": Inline(2)})
    assert (await http("GET", location)).json() == 2
    assert (await http("POST", path, {"n": 1}, headers=key)).json() == 2
    await http("POST", "/v1/deployments/resting/resume", {})
    assert (await http("POST", path, {"n": 2})).status == 202


async def test_a_full_queue_refuses_requests_until_runs_finish(platform: Platform, http: Http) -> None:
    path = await deploy(http, "busy", wait=0, queue=3)
    answers = await asyncio.gather(*(http("POST", path, {"n": n}) for n in range(12)))
    accepted = [answer for answer in answers if answer.status == 202]
    refused = [answer for answer in answers if answer.status == 429]
    assert (len(accepted), len(refused)) == (3, 9)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    found = await started(platform, "busy", 3)
    assert (await http("POST", path, {"n": 1})).status == 429
    assert (await http("POST", path, {"n": "x"})).status == 429
    await platform.finish(found[0].run_id, outputs={"result": Inline(0)})
    await _until(lambda: http("POST", path, {"n": 1}), lambda answer: answer.status == 202)
    assert (await http("POST", path, {"n": 1})).status == 429
    assert len(await started(platform, "busy", 4)) == 4


async def test_an_invalid_request_takes_no_place_in_the_queue(platform: Platform, http: Http) -> None:
    path = await deploy(http, "strict", wait=0, queue=1)
    for _ in range(3):
        assert (await http("POST", path, {"n": "x"})).status == 422
    key = {"idempotency-key": "a"}
    assert (await http("POST", path, {"n": 1}, headers=key)).status == 202
    assert (await http("POST", path, {"n": 1}, headers=key)).status == 202
    assert (await http("POST", path, {"n": 2})).status == 429


async def test_runs_of_other_triggers_take_no_place_in_the_queue(platform: Platform, http: Http) -> None:
    on = {"kind": "event", "name": "on", "types": ["com.acme.both"], "inputs": {"n": "1"}}
    endpoint = {"kind": "endpoint", "name": "endpoint", "queue": 2}
    await http("PUT", "/v1/deployments/both", {"definition": {"pipeline": "chain", "triggers": [on, endpoint]}})
    path = "/v1/endpoints/default/both?wait=0"
    assert (await http("POST", path, {"n": 1})).status == 202
    for n in range(3):
        event = {"specversion": "1.0", "type": "com.acme.both", "source": "test", "id": str(n)}
        assert (await http("POST", "/v1/events", event)).status == 202
    await started(platform, "both", 4)
    assert (await http("POST", path, {"n": 2})).status == 202
    assert (await http("POST", path, {"n": 3})).status == 429


async def test_the_rate_is_limited(platform: Platform, http: Http) -> None:
    path = await deploy(http, "metered", wait=0, rate=0.01)
    assert (await http("POST", path, {"n": 1})).status == 202
    answer = await http("POST", path, {"n": 2})
    assert (answer.status, answer.json()["title"]) == (429, "Too many requests")
    assert 1 < int(answer.headers["retry-after"]) <= 100


async def test_inference_requests_are_limited_alike(http: Http) -> None:
    await deploy(http, "inferred", rate=0.01)
    path = "/v2/models/inferred/infer"
    assert (await http("POST", path, {"inputs": []})).status == 422
    assert (await http("POST", path, {"inputs": []})).status == 429
    assert (await http("POST", "/v1/deployments/inferred/pause", {})).status == 200
    paused = await http("POST", path, {"inputs": []})
    assert (paused.status, paused.json()["title"]) == (409, "Conflict")


async def test_another_gateway_knows_the_queue(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "LIMIT", 1)  # the unfinished runs are on several pages
    async with running(tmp_path) as platform:
        http = Http(platform)
        path = await deploy(http, "shared", wait=0, queue=2)
        for n in range(2):
            assert (await http("POST", path, {"n": n})).status == 202
        await started(platform, "shared", 2)
        tracker = _fresh_tracker(platform)
        try:
            assert await tracker.full(("default", "shared"), "endpoint", 2)
            assert not await tracker.full(("default", "shared"), "endpoint", 3)
            [first, _] = await runs(platform, "shared")
            await platform.finish(first.run_id, outputs={"result": Inline(0)})
            await _until(lambda: tracker.full(("default", "shared"), "endpoint", 2), lambda full: not full)
        finally:
            await tracker.close()


def _fresh_tracker(platform: Platform) -> Any:
    from penstock_adapters.nats.follower import Followers
    from penstock_gateway.endpoints.call_tracker import CallTracker
    from penstock_gateway.runs.run_search import RunSearch
    from penstock_servicekit import logs

    return CallTracker(
        platform.bus, Followers(platform.bus), platform.log, platform.gateway.feature(RunSearch), logs.get("test")
    )


async def _until(read: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 30
    while not enough(found := await read()):
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.05)
    return found


# --------------------------------------------------------------------------------------------------------------- tokens


async def test_a_token_of_an_endpoint_opens_that_endpoint_alone(platform: Platform, http: Http) -> None:
    path = await deploy(http, "guarded", wait=0)
    other = await deploy(http, "guarded-too", wait=0)
    created = (await http("POST", "/v1/deployments/guarded/tokens", {"name": "web"})).json()
    token = created["token"]
    assert created["principal"] == "token:default/guarded/web"
    answer = await http("POST", path, {"n": 1}, token=token)
    assert answer.status == 202
    assert (await http("GET", answer.headers["location"], token=token)).status == 202
    assert (await http("GET", f"{path}/schema", token=token)).status == 200
    for method, forbidden in [("POST", other), ("GET", f"{other}/schema"), ("GET", "/v1/runs"), ("GET", "/v1/tokens")]:
        assert (await http(method, forbidden, {"n": 1} if method == "POST" else None, token=token)).status == 403
    [listed] = (await http("GET", "/v1/deployments/guarded/tokens")).json()["tokens"]
    assert (listed["name"], "token" in listed) == ("web", False)
    assert (await http("GET", "/v1/tokens")).json()["tokens"] == []
    event = (await EventStream(platform.bus).newest("default", ENDPOINT_CALLED, 1))[0]
    assert event.extensions["principal"] == "token:default/guarded/web"


async def test_plain_calls_are_refused_as_calls_with_options_are(http: Http) -> None:
    path = await deploy(http, "plain", wait=0)
    await deploy(http, "other", wait=0)
    token = (await http("POST", "/v1/deployments/other/tokens", {"name": "a"})).json()["token"]
    cases: list[tuple[str, Any, dict[str, Any], int]] = [
        (path, {"n": "x"}, {}, 422),
        (path, {"n": 1}, {"token": token}, 403),
        (path, {"n": 1}, {"token": "wrong"}, 401),
        ("/v1/endpoints/default/nothing", {"n": 1}, {}, 404),
        (path, {"n": 1}, {"headers": {"penstock-project": "elsewhere"}}, 422),
        (path, [], {}, 422),
        (path, {"n": 1}, {"headers": {"accept": "text/event-stream"}}, 406),
    ]
    for where, body, options, status in cases:
        plain = await http("POST", where, body, **options)
        headers = {**options.get("headers", {}), "prefer": "respond-async"}
        other = await http("POST", where, body, **{**options, "headers": headers})
        assert (plain.status, other.status) == (status, status), (where, body, plain.body)
        assert plain.json() == other.json()
    assert (await http("POST", f"{path}?unknown=1", {"n": 1})).status == 422


async def test_an_answer_is_for_the_token_that_sent_the_request(platform: Platform, http: Http) -> None:
    path = await deploy(http, "answered", wait=0)
    one, other = [
        (await http("POST", "/v1/deployments/answered/tokens", {"name": name})).json()["token"] for name in ("a", "b")
    ]
    answer = await http("POST", path, {"n": 1}, token=one, headers={"idempotency-key": "order-1"})
    assert answer.status == 202
    location = answer.headers["location"]
    assert (await http("GET", location, token=one)).status == 202
    assert (await http("GET", location, token=other)).status == 404


async def test_an_idempotency_key_belongs_to_the_token_that_sends_it(platform: Platform, http: Http) -> None:
    path = await deploy(http, "shared", wait=0)
    one, other = [
        (await http("POST", "/v1/deployments/shared/tokens", {"name": name})).json()["token"] for name in ("a", "b")
    ]
    key = {"idempotency-key": "order-1"}
    answers = [await http("POST", path, {"n": 1}, token=token, headers=key) for token in (one, other, one)]
    assert [answer.status for answer in answers] == [202, 202, 202]
    first, second, again = [answer.headers["location"] for answer in answers]
    assert first == again != second
    assert len(await started(platform, "shared", 2)) == 2
    # The key of one says nothing about the requests of the other.
    assert (await http("POST", path, {"n": 2}, token=other, headers={"idempotency-key": "order-2"})).status == 202
    assert (await http("POST", path, {"n": 3}, token=one, headers={"idempotency-key": "order-2"})).status == 202


async def test_tokens_of_an_endpoint_are_revoked_one_by_one_and_with_the_deployment(http: Http) -> None:
    path = await deploy(http, "keyed", wait=0)
    tokens = {}
    for name in ("a", "b", "c"):
        tokens[name] = (await http("POST", "/v1/deployments/keyed/tokens", {"name": name})).json()["token"]
    assert (await http("POST", "/v1/deployments/keyed/tokens", {"name": "a"})).status == 409
    assert (await http("DELETE", "/v1/deployments/keyed/tokens/a")).status == 204
    assert (await http("DELETE", "/v1/deployments/keyed/tokens/a")).status == 404
    assert (await http("POST", path, {"n": 1}, token=tokens["a"])).status == 401
    assert (await http("POST", path, {"n": 1}, token=tokens["b"])).status == 202
    assert (await http("DELETE", "/v1/deployments/keyed")).status == 204
    await deploy(http, "keyed", wait=0)
    assert (await http("POST", path, {"n": 1}, token=tokens["c"])).status == 401
    assert (await http("POST", "/v1/deployments/nothing/tokens", {"name": "a"})).status == 404


async def test_tokens_do_not_outlive_a_deletion_that_was_killed_half_way(platform: Platform, http: Http) -> None:
    path = await deploy(http, "halfway", wait=0)
    token = (await http("POST", "/v1/deployments/halfway/tokens", {"name": "a"})).json()["token"]
    assert (await http("POST", path, {"n": 1}, token=token)).status == 202
    actor = state.Actor(by="user:ada", at=time.time())
    await DeploymentLog(platform.bus, "test").change(
        "default", "halfway", lambda found: state.change(found, DeploymentDeleted, "", actor)
    )
    await deploy(http, "halfway", wait=0)
    assert (await http("POST", path, {"n": 1}, token=token)).status == 401
    assert (await http("GET", "/v1/deployments/halfway/tokens")).json()["tokens"] == []
