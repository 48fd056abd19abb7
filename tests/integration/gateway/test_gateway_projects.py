"""Projects: no operation shows, changes or reveals anything of a project to the principals of another one."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from gateway_platform import Answer, Http, Platform, Stream, chain, read_head, started
from test_gateway_models import ref, trained

from penstock_contracts import subjects
from penstock_core import ids
from penstock_core.artifacts import folders
from penstock_core.artifacts.folders import File, Manifest
from penstock_core.facts import StepSuspended
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import ArtifactRef, Inline, Stored

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[3] / "proto" / "openapi.json").read_text())
OTHER = "other"
MARK = "hush"
"""Part of all names in the project `default` that the project `other` must not see."""

ENDLESS = {"GET /v1/events/stream"}
SHARED = {"GET /v1/environments/locks/{sha256}"}
"""Operations on what has no project."""

UNKNOWN = "unknown"
NO_ROLE = re.compile("has no role in (project 'default'|all projects)")


async def _token(http: Http, name: str, **body: Any) -> str:
    assert (await http("PUT", f"/v1/projects/{OTHER}", {})).status in (200, 201)
    answer = await http("POST", "/v1/tokens", {"name": name, **body}, headers={"penstock-project": OTHER})
    assert answer.status == 201, answer.body
    return answer.json()["token"]


async def _filled(platform: Platform, http: Http) -> dict[str, str]:
    """Fill the project `default`."""
    await platform.add_version(chain(f"{MARK}-pipeline"))
    ask = ir.StepSpec(name="ask", kind=ir.Kind.ASK, entrypoint="", inputs=(ir.Port(name="question", type="str"),))
    await platform.add_version(
        ir.Pipeline(name=f"{MARK}-asks", steps={"ask": ask}, nodes=(ir.Node(key="ask", step="ask"),))
    )
    run_id = await trained(platform, b"hush", params={"secret": MARK})
    asking = await platform.request(f"{MARK}-asks", requested_at=time.time())
    question = {"question": Inline(f"{MARK}?"), "choices": Inline(["yes"])}
    await platform.log.append([StepSuspended(run_id=asking, key="ask", attempt=1, kind=ir.Kind.ASK, inputs=question)])
    triggers = [
        {"kind": "event", "name": "on", "types": [f"com.{MARK}"], "inputs": {"n": "data.n"}},
        {"kind": "endpoint", "name": "call"},
    ]
    days = {"by": "day", "start": "2026-01-01", "end": "2026-01-05", "inputs": {"label": "key"}}
    definition = {"pipeline": f"{MARK}-pipeline", "inputs": {"n": 1}, "triggers": triggers, "partitions": days}
    answer = await http("PUT", f"/v1/deployments/{MARK}", {"definition": definition})
    if answer.status != 200:
        definition.pop("partitions")
        answer = await http("PUT", f"/v1/deployments/{MARK}", {"definition": definition})
    assert answer.status == 200, answer.body
    event = {"type": f"com.{MARK}", "source": f"/{MARK}", "id": "1", "data": {"missing": 5}}
    sent = (await http("POST", "/v1/events", event)).json()
    letter = await _letter(http)
    model = {"run_id": run_id, "step": "double", "alias": "champion"}
    assert (await http("POST", f"/v1/models/{MARK}/versions", model)).status == 201
    assert (await http("POST", "/v1/tokens", {"name": MARK, "role": "viewer"})).status == 201
    assert (await http("PUT", f"/v1/secrets/{MARK}", {"value": f"{MARK}-value"})).status == 200
    token = await http("POST", f"/v1/deployments/{MARK}/tokens", {"name": MARK})
    assert token.status == 201, token.body
    sha256 = await platform.store.put_bytes(b"hush")
    return {
        "run_id": run_id,
        "run": asking,
        "runs": f"{run_id},{asking}",
        "name": MARK,
        "pipeline": f"{MARK}-pipeline",
        "deployment": MARK,
        "event": str(sent["sequence"]),
        "which": run_id,
        "number": str(letter),
        "sha256": sha256,
        "token": MARK,
        "alias": "champion",
        "version": "1",
        "key": "double",
        "step": "double",
        "job": "0" * 16,
        "id": MARK,
        "project": "default",
        "request_id": "1-1",
        "trigger": "on",
    }


async def _letter(http: Http) -> int:
    deadline = time.monotonic() + 60
    while not (found := (await http("GET", "/v1/dead-letters")).json()["dead_letters"]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return found[0]["id"]


def _operations() -> dict[str, tuple[str, str, list[dict[str, Any]]]]:
    """Return method, path and parameters of each operation that needs a permission, by its label."""
    found: dict[str, tuple[str, str, list[dict[str, Any]]]] = {}
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if any(one["token"] for one in operation.get("security", [])):
                found[f"{method.upper()} {path}"] = method.upper(), path, operation.get("parameters", [])
    return found


OPERATIONS = _operations()


def _url(path: str, parameters: list[dict[str, Any]], values: dict[str, str]) -> str:
    for one in parameters:
        if one["in"] == "path":
            path = path.replace(f"{{{one['name']}}}", values.get(one["name"], values["id"]))
    required = [one["name"] for one in parameters if one["in"] == "query" and one["required"]]
    return f"{path}?{'&'.join(f'{name}={values[name]}' for name in required)}" if required else path


def _without_names(text: str, values: dict[str, str]) -> str:
    """Return an answer without the names that the request had in it."""
    for value in sorted((value for value in values.values() if len(value) > 3), key=len, reverse=True):
        text = text.replace(value, "…")
    return re.sub(r"[0-9a-f]{12,}|\d+(\.\d+)?", "…", text)


async def _answer(http: Http, method: str, url: str, token: str, **headers: str) -> Answer:
    body = {} if method in ("POST", "PUT") else None
    reader, writer = await http.open(method, url, body, token=token, headers=headers)
    async with asyncio.timeout(30):
        status, received = await read_head(reader)
        if "event-stream" in received.get("content-type", ""):
            writer.close()
            return Answer(status, received, b"(a stream)")
        if method == "HEAD" or status == 204:
            return Answer(status, received, b"")
        if received.get("transfer-encoding") == "chunked":
            return Answer(status, received, b"(chunks)")
        return Answer(status, received, await reader.readexactly(int(received["content-length"])))


async def test_no_operation_shows_anything_of_another_project(platform: Platform, http: Http) -> None:
    values = await _filled(platform, http)
    nothing = {name: UNKNOWN for name in values} | {
        "sha256": "0" * 64, "number": "1000000", "event": str(2**40), "version": "7", "runs": f"{UNKNOWN},{UNKNOWN}-2",
        "project": OTHER, "job": "1" * 16, "alias": "champion", "request_id": "2-2", "key": "double", "step": "double",
        "trigger": "on",
    }  # fmt: skip
    token = await _token(http, "outsider", role="admin")
    wrong: list[str] = []
    for label, (method, path, parameters) in OPERATIONS.items():
        # Without the header, or in a path of the other project: there is no role in `default`.
        answer = await _answer(http, method, _url(path, parameters, values), token)
        if answer.status != 403 or (method != "HEAD" and not NO_ROLE.search(_text(answer))):
            wrong.append(f"{label} in default: {answer.status} {_text(answer)}")
        if label in ENDLESS | SHARED:
            continue
        mine = {"penstock-project": OTHER}
        known = await _answer(http, method, _url(path, parameters, values | {"project": OTHER}), token, **mine)
        absent = await _answer(http, method, _url(path, parameters, nothing), token, **mine)
        if _text(known).startswith(("(", "{", "[")) and known.status < 300 and MARK in _text(known):
            wrong.append(f"{label}: shows {_text(known)}")
        same = _without_names(_text(known), values | {"project": OTHER}) == _without_names(_text(absent), nothing)
        if known.status != absent.status or (known.status >= 300 and not same):
            wrong.append(f"{label}: {known.status} {_text(known)}\n  unlike {absent.status} {_text(absent)}")
    assert wrong == [], "\n".join(wrong)


def _text(answer: Answer) -> str:
    return answer.body.decode(errors="replace")


# ---------------------------------------------------------------------------------------------------------- records


async def test_a_project_is_created_listed_archived_and_unarchived(platform: Platform, http: Http) -> None:
    made = await http("PUT", "/v1/projects/team", {"quotas": {"artifact_bytes": 5}})
    assert made.status == 201, made.body
    assert (made.json()["name"], made.json()["created_by"], made.json()["quotas"]["artifact_bytes"]) == (
        "team", "token:default", 5,
    )  # fmt: skip
    assert (await http("PUT", "/v1/projects/team", {})).status == 200
    listed = (await http("GET", "/v1/projects")).json()["projects"]
    assert {"default", "team"} <= {one["name"] for one in listed}
    team = {"penstock-project": "team"}
    await platform.add_version(chain(), project="team")
    body = {"pipeline": "chain", "inputs": {"n": 1}}
    run = await http("POST", "/v1/runs", body, headers=team)
    assert run.status == 202, run.body
    assert (await http("POST", "/v1/projects/team/archive", {})).json()["archived_at"] > 0
    refused = await http("POST", "/v1/runs", body, headers=team)
    assert (refused.status, "Project 'team' is archived" in _text(refused)) == (403, True)
    assert (await http("GET", f"/v1/runs/{run.json()['run_id']}", headers=team)).status == 200
    assert (await http("POST", f"/v1/runs/{run.json()['run_id']}/cancel", {}, headers=team)).status == 202
    assert (await http("POST", "/v1/projects/team/archive", {"archived": False})).json()["archived_at"] is None
    assert (await http("POST", "/v1/runs", body, headers=team)).status == 202


async def test_unknown_and_invalid_projects(http: Http) -> None:
    missing = await http("GET", "/v1/runs", headers={"penstock-project": "nowhere"})
    assert (missing.status, "penstock projects create nowhere" in _text(missing)) == (404, True)
    assert (await http("POST", "/v1/projects/nowhere/archive", {})).status == 404
    assert (await http("GET", "/v1/projects/nowhere")).status == 404
    assert (await http("PUT", "/v1/projects/a.b", {})).status == 422
    assert (await http("GET", "/v1/runs", headers={"penstock-project": "*"})).status == 422
    assert (await http("POST", "/v1/projects/default/archive", {})).status == 409
    differs = await http("GET", "/v1/endpoints/default/x/schema", headers={"penstock-project": "team"})
    assert differs.status == 422
    # Without a role, the answer does not depend on whether the project exists.
    token = await _token(http, "stranger", role="viewer")
    texts = []
    for name in ("default", "nowhere"):
        answer = await http("GET", "/v1/runs", token=token, headers={"penstock-project": name})
        texts.append((answer.status, _text(answer).replace(name, "…")))
    assert texts[0] == texts[1] and texts[0][0] == 403
    seen = (await http("GET", "/v1/projects", token=token)).json()["projects"]
    assert [one["name"] for one in seen] == [OTHER]


async def test_names_are_unique_in_a_project_only(platform: Platform, http: Http) -> None:
    other = {"penstock-project": OTHER}
    token = await _token(http, "namesake", role="editor")
    await platform.add_version(chain("same"))
    await platform.add_version(chain("same", steps=1), project=OTHER)
    trigger = {"kind": "event", "name": "on", "types": ["com.same"], "inputs": {"n": "data.n"}}
    definition = {"pipeline": "same", "triggers": [trigger]}
    for more in ({}, {"headers": other, "token": token}):
        assert (await http("PUT", "/v1/deployments/same", {"definition": definition}, **more)).status == 200
    event = {"type": "com.same", "source": "/s", "id": "7", "data": {"n": 4}}
    stream_reader, stream_writer = await http.open("GET", "/v1/events/stream", token=token, headers=other)
    assert (await read_head(stream_reader))[0] == 200
    stream = Stream(stream_reader, stream_writer)
    first = await http("POST", "/v1/events", event)
    second = await http("POST", "/v1/events", event, headers=other, token=token)
    assert (first.status, second.status) == (202, 202)
    assert first.json()["digest"] != second.json()["digest"]
    # The stream of the other project begins with its own event, which was stored later.
    frame = await stream.next()
    assert frame is not None and frame.id == second.json()["sequence"]
    found = await started(platform, "same", 2)
    assert {run.project for run in found} == {"default", OTHER}
    runs = {run.project: run.run_id for run in found}
    listed = (await http("GET", "/v1/runs?deployment=same", headers=other, token=token)).json()["runs"]
    assert [one["run_id"] for one in listed] == [runs[OTHER]]
    body, key = {"pipeline": "same", "inputs": {"n": 1}}, {"idempotency-key": "k"}
    one = (await http("POST", "/v1/runs", body, headers=key)).json()
    two = (await http("POST", "/v1/runs", body, headers=other | key, token=token)).json()
    assert one["run_id"] != two["run_id"]
    for path in ("", "/events", "/logs", "/history", "/explain"):
        hidden = await http("GET", f"/v1/runs/{one['run_id']}{path}", headers=other, token=token)
        assert hidden.status == 404, path
    questions = (await http("GET", "/v1/questions", headers=other, token=token)).json()["questions"]
    assert questions == []


async def test_a_script_cannot_write_into_a_run_of_another_project_or_take_its_place(
    platform: Platform, http: Http
) -> None:
    token, other = await _token(http, "scripts", role="editor"), {"penstock-project": OTHER}
    run_id = await platform.request()
    before = await platform.bus.read(subjects.RUNS, subjects.run_all(run_id))
    body = {"name": "mine", "began_at": time.time()}
    answer = await http("PUT", f"/v1/script-runs/{run_id}", body, headers=other, token=token)
    assert (answer.status, "is another run" in _text(answer)) == (409, True), answer.body
    assert len(await platform.bus.read(subjects.RUNS, subjects.run_all(run_id))) == len(before)
    tick = ids.run_id_from_key("default", "chain", "\0trigger:nightly:daily:1")
    taken = await http("PUT", f"/v1/script-runs/{tick}", body, headers=other, token=token)
    assert (taken.status, "choose a random one" in _text(taken)) == (422, True), taken.body
    for _ in range(2):  # the same request again is the same run
        own = await http("PUT", "/v1/script-runs/a-script-of-mine", body, headers=other, token=token)
        assert own.status == 200, own.body


# -------------------------------------------------------------------------------------------------------- artifacts


async def _put(http: Http, data: bytes, token: str | None = None, sha256: str = "", **headers: str) -> Answer:
    url = f"/v1/artifacts/{sha256 or hashlib.sha256(data).hexdigest()}"
    options: dict[str, Any] = {"token": token} if token else {}
    return await http("PUT", url, data, headers={"penstock-project": OTHER, **headers}, **options)


async def test_an_artifact_of_another_project_is_like_one_that_nobody_has(platform: Platform, http: Http) -> None:
    token, other = await _token(http, "reader", role="editor"), {"penstock-project": OTHER}
    data = b"only in default"
    sha256 = await platform.store.put_bytes(data)
    value = Stored(ref(sha256, len(data)))
    run_id = await platform.request()
    await platform.run_step(run_id, "double", {"result": value})
    path = f"/v1/artifacts/{sha256}"
    assert (await http("GET", path)).body == data
    for method, url in (("HEAD", path), ("GET", path), ("GET", f"{path}/preview"), ("GET", f"{path}/lineage")):
        assert (await http(method, url, token=token, headers=other)).status == 404, url
    # Nobody gets it by its digest: neither with other bytes, nor as an input, nor in a folder of one's own.
    assert (await _put(http, b"guess", token, sha256)).status == 422
    assert (await http("GET", path, token=token, headers=other)).status == 404
    await platform.add_version(chain("reads"), project=OTHER)
    given = {"artifact": {"sha256": sha256, "size": len(data), "media_type": "text/plain", "format": "json"}}
    asked = await http("POST", "/v1/runs", {"pipeline": "reads", "inputs": {"n": given}}, token=token, headers=other)
    assert (asked.status, "not in the store" in _text(asked) or "expected" in _text(asked)) == (422, True), asked.body
    manifest = folders.encode(Manifest(files=(File(path="x", size=len(data), sha256=sha256),)))
    assert (await _put(http, manifest, token)).status == 201
    folder = hashlib.sha256(manifest).hexdigest()
    assert (await http("GET", f"{path}?folder={folder}", token=token, headers=other)).status == 404
    # Who has the bytes may upload them, and is told that they are new.
    assert [(await _put(http, data, token)).status for _ in range(2)] == [201, 200]
    assert (await http("GET", path, token=token, headers=other)).body == data


async def test_a_digest_in_a_version_or_a_deployment_gives_nothing(platform: Platform, http: Http) -> None:
    token, other = await _token(http, "guesser", role="editor"), {"penstock-project": OTHER}
    mine: dict[str, Any] = {"headers": other, "token": token}
    data = b"a file of default"
    sha256 = await platform.store.put_bytes(data)
    body = {
        "pipeline": dataclasses.asdict(chain("copies")),
        "source": sha256,
        "environment": {"version": "3.11", "digest": "0" * 64},
    }
    refused = await http("POST", "/v1/versions", body, **mine)
    assert (refused.status, "is not in the artifact store" in _text(refused)) == (422, True), refused.body
    assert (await _put(http, b"my own", token)).status == 201
    own = await http("POST", "/v1/versions", body | {"source": hashlib.sha256(b"my own").hexdigest()}, **mine)
    assert own.status == 201, own.body
    pipeline = chain("guesses")
    text = ir.Port(name="note", type="str", required=False, default="", schema={"type": "string"})
    await platform.add_version(dataclasses.replace(pipeline, params=(*pipeline.params, text)), project=OTHER)
    definition = {"pipeline": "guesses", "inputs": {"n": 1, "note": sha256}}
    put = await http("PUT", "/v1/deployments/guesses", {"definition": definition}, **mine)
    assert put.status == 200, put.body
    for url in (f"/v1/artifacts/{sha256}", f"/v1/artifacts/{sha256}/preview"):
        assert (await http("GET", url, **mine)).status == 404, url


async def test_a_folder_of_a_script_has_files_of_its_project_only(platform: Platform, http: Http) -> None:
    token, other = await _token(http, "folders", role="operator"), {"penstock-project": OTHER}
    mine: dict[str, Any] = {"headers": other, "token": token}
    data = b"a file that default has"
    sha256 = await platform.store.put_bytes(data)
    manifest = folders.encode(Manifest(files=(File(path="x", size=len(data), sha256=sha256),)))
    assert (await _put(http, manifest, token)).status == 201
    run = "/v1/script-runs/a-script-with-a-folder"
    assert (await http("PUT", run, {"name": "mine", "began_at": time.time()}, **mine)).status == 200
    for media_type in (folders.MEDIA_TYPE, "text/plain"):
        sent = ref(hashlib.sha256(manifest).hexdigest(), len(manifest))
        given = dataclasses.asdict(Stored(dataclasses.replace(sent, media_type=media_type)))
        end = {"outcome": "succeeded", "finished_at": time.time(), "artifacts": {"f": given}}
        refused = await http("PUT", f"{run}/end", end, **mine)
        assert (refused.status, "put them before it" in _text(refused)) == (422, True), refused.body
    assert (await _put(http, data, token)).status == 201
    assert (await http("PUT", f"{run}/end", end, **mine)).status == 200


async def test_what_runs_of_a_project_made_can_be_read_there(platform: Platform, http: Http) -> None:
    token, other = await _token(http, "owner", role="viewer"), {"penstock-project": OTHER}
    data = b"in a folder"
    sha256 = await platform.store.put_bytes(data)
    manifest = folders.encode(Manifest(files=(File(path="x", size=len(data), sha256=sha256),)))
    folder = await platform.store.put_bytes(manifest)
    await platform.add_version(chain("makes"), project=OTHER)
    run_id = await platform.request("makes", project=OTHER)
    made = ArtifactRef(sha256=folder, size=len(manifest), media_type=folders.MEDIA_TYPE, format="folder")
    await platform.run_step(run_id, "double", {"result": Stored(made)})
    assert (await http("GET", f"/v1/artifacts/{folder}", token=token, headers=other)).body == manifest
    path = f"/v1/artifacts/{sha256}"
    assert (await http("GET", path, token=token, headers=other)).status == 404
    assert (await http("GET", f"{path}?folder={folder}", token=token, headers=other)).body == data
    assert (await http("GET", f"{path}?folder={'0' * 64}", token=token, headers=other)).status == 404


async def test_a_quota_of_the_size_of_artifacts(http: Http) -> None:
    token = await _token(http, "uploader", role="operator")
    quota = {"quotas": {"artifact_bytes": 10}}
    assert (await http("PUT", f"/v1/projects/{OTHER}", quota)).status == 200
    try:
        assert (await _put(http, b"x" * 11, token)).status == 413
        assert (await _put(http, b"x" * 10, token)).status == 201
    finally:
        assert (await http("PUT", f"/v1/projects/{OTHER}", {})).status == 200
    assert (await _put(http, b"x" * 11, token)).status == 201


# ----------------------------------------------------------------------------------------------------------- limits


async def test_limits_of_one_name_are_different_in_each_project(http: Http) -> None:
    token, other = await _token(http, "limiter", role="editor"), {"penstock-project": OTHER}
    mine: dict[str, Any] = {"headers": other, "token": token}
    assert (await http("PUT", "/v1/limits/gpu", {"slots": 1})).status == 200
    assert (await http("GET", "/v1/limits/gpu", **mine)).status == 404
    answer = await http("PUT", "/v1/limits/gpu", {"slots": 7}, **mine)
    assert (answer.status, answer.json()["name"], answer.json()["slots"]) == (200, "gpu", 7)
    assert (await http("GET", "/v1/limits/gpu")).json()["slots"] == 1
    assert [one["name"] for one in (await http("GET", "/v1/limits", **mine)).json()["limits"]] == ["gpu"]
    assert (await http("DELETE", "/v1/limits/gpu", **mine)).status == 204
    assert (await http("GET", "/v1/limits/gpu")).json()["slots"] == 1
    for name in ("runs:default/chain", "deployment:default/hush", "default/gpu", "*"):
        assert (await http("GET", f"/v1/limits/{name}", **mine)).status == 404, name
    # All projects share pools.
    refused = await http("PUT", "/v1/limits/pool:default", {"slots": 3}, **mine)
    assert (refused.status, "All projects share pools" in _text(refused)) == (403, True)
    assert (await http("DELETE", "/v1/limits/pool:default", **mine)).status == 403
    assert (await http("PUT", "/v1/limits/pool:default", {"slots": 3})).status == 200
    assert (await http("GET", "/v1/limits/pool:default", **mine)).json()["slots"] == 3
    assert (await http("DELETE", "/v1/limits/pool:default")).status == 204


async def test_a_quota_of_events(http: Http) -> None:
    token, other = await _token(http, "sender", role="operator"), {"penstock-project": OTHER}
    assert (await http("PUT", f"/v1/projects/{OTHER}", {"quotas": {"events_per_second": 0.001}})).status == 200
    try:
        event = {"type": "com.many", "source": "/s", "data": {}}
        first = await http("POST", "/v1/events", event | {"id": "1"}, headers=other, token=token)
        second = await http("POST", "/v1/events", event | {"id": "2"}, headers=other, token=token)
        assert (first.status, second.status, "is its quota" in _text(second)) == (202, 429, True)
        assert (await http("POST", "/v1/events", event | {"id": "3"})).status == 202
    finally:
        assert (await http("PUT", f"/v1/projects/{OTHER}", {})).status == 200
