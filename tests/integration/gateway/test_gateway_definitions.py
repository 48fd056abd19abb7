"""Versions and schedules over HTTP."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from gateway_platform import SOURCE, Http, Platform, chain

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_contracts import commands, subjects
from penstock_core.pipeline import ir

pytestmark = pytest.mark.asyncio(loop_scope="module")


def registration(pipeline: ir.Pipeline) -> dict[str, Any]:
    return {
        "pipeline": orjson.loads(orjson.dumps(pipeline)),
        "source": SOURCE,
        "code": "d" * 64,
        "environment": {"version": "3.11", "digest": "0" * 64},
        "interpreter": {"python": "/usr/bin/python3"},
        "git": {"commit": "c" * 40, "branch": "main"},
    }


# ----------------------------------------------------------------------------------------------------------- versions


async def test_a_registration_is_forwarded_to_the_builder_unchanged(platform: Platform, http: Http) -> None:
    body = registration(chain("trained")) | {"publish": True}
    platform.builder_reply = commands.VersionReply(version=4, created=True, published=True)
    answer = await http("POST", "/v1/versions", body)
    assert (answer.status, answer.json()) == (
        201,
        {"project": "default", "pipeline": "trained", "version": 4, "created": True, "published": True},
    )
    command = commands.RegisterVersion.model_validate_json(platform.builder[-1])
    assert (command.pipeline, command.source, command.git) == (
        chain("trained"),
        SOURCE,
        commands.GitInfo(commit="c" * 40, branch="main"),
    )
    assert (command.publish, command.code) == (True, "d" * 64)
    assert command.interpreter == commands.InterpreterHint(python="/usr/bin/python3")
    platform.builder_reply = commands.VersionReply(version=4, created=False)
    again = await http("POST", "/v1/versions", body)
    assert (again.status, again.json()["created"]) == (200, False)


async def test_an_unavailable_builder_is_reported(platform: Platform, http: Http) -> None:
    platform.builder_reply = commands.VersionReply(error="the bucket of versions is away", unavailable=True)
    answer = await http("POST", "/v1/versions", registration(chain()))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_builder_rejections_are_reported(platform: Platform, http: Http) -> None:
    platform.builder_reply = commands.VersionReply(error="flow.py:12: steps wait for each other in a cycle: a <- b")
    answer = await http("POST", "/v1/versions", registration(chain()))
    assert (answer.status, answer.json()["detail"]) == (
        422,
        f"The pipeline cannot be registered: {platform.builder_reply.error}",
    )


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("pipeline",), "text", "pipeline"),
        (("pipeline", "nodes", 0, "key"), None, "pipeline.nodes.0.key"),
        (("pipeline", "nodes", 0, "inputs", "n"), {"odd": 1}, "pipeline.nodes.0.inputs"),
        (("source",), "../../etc/passwd", "source"),
        (("environment", "digest"), "x", "environment.digest"),
        (("git", "commit"), "c" * 65, "git.commit"),
    ],
)
async def test_an_invalid_registration_field_is_named(
    platform: Platform, http: Http, path: tuple[Any, ...], value: Any, field: str
) -> None:
    asked = len(platform.builder)
    body = copy.deepcopy(registration(chain()))
    inner = body
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = value
    answer = await http("POST", "/v1/versions", body)
    assert answer.status == 422
    assert any(name.startswith(field) for name in answer.fields), answer.fields
    assert len(platform.builder) == asked


async def test_a_pipeline_over_the_message_limit_is_rejected(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(platform.bus.client), "max_payload", property(lambda _: 10_000))
    answer = await http("POST", "/v1/versions", registration(chain("huge", 100)))
    assert answer.status == 413
    assert "split the pipeline" in answer.json()["detail"]
    answer = await http("POST", "/v1/runs", {"pipeline": "chain", "inputs": {"n": 1, "label": "x" * 9000}})
    assert answer.status == 413


async def test_versions_are_listed_and_read(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("read"))
    await platform.add_version(chain("read", 5), 2)
    listed = (await http("GET", "/v1/versions?pipeline=read")).json()["versions"]
    assert [(row["pipeline"], row["version"], row["steps"]) for row in listed] == [("read", 1, 2), ("read", 2, 5)]
    assert "read" in {row["pipeline"] for row in (await http("GET", "/v1/versions")).json()["versions"]}
    assert (await http("GET", "/v1/versions?pipeline=none")).json() == {"versions": []}
    whole = await http("GET", "/v1/versions/read/2")
    assert commands.Version.model_validate_json(whole.body).pipeline == chain("read", 5)
    for path in ("/v1/versions/read/3", "/v1/versions/none/1"):
        assert (await http("GET", path)).status == 404
    assert (await http("GET", "/v1/versions/read/0")).fields == {"path.version"}


async def test_an_experiment_is_listed_but_never_the_latest(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("tried"), publish=False)
    answer = await http("POST", "/v1/runs", {"pipeline": "tried", "inputs": {"n": 1}})
    assert answer.status == 404
    assert answer.json()["detail"].startswith("Pipeline 'tried' has no published version")
    assert "penstock register FILE" in answer.json()["detail"]
    assert (await http("POST", "/v1/runs", {"pipeline": "tried", "version": 1, "inputs": {"n": 1}})).status == 202
    await platform.add_version(chain("tried", 3), 2)
    await platform.add_version(chain("tried", 4), 3, publish=False)
    listed = (await http("GET", "/v1/versions?pipeline=tried")).json()["versions"]
    names = ("version", "published", "latest", "published_by")
    assert [tuple(row[name] for name in names) for row in listed] == [
        (1, False, False, ""),
        (2, True, True, "ada"),
        (3, False, False, ""),
    ]
    assert [row["published_at"] for row in listed] == [None, 0.0, None]
    read = [(await http("GET", f"/v1/versions/tried/{number}")).json() for number in (2, 3)]
    assert [tuple(row[name] for name in names) for row in read] == [(2, True, True, "ada"), (3, False, False, "")]
    run = await http("POST", "/v1/runs", {"pipeline": "tried", "inputs": {"n": 1}})
    assert run.json()["version"] == 2


# ---------------------------------------------------------------------------------------------------------- schedules


async def test_schedules_accept_only_published_versions(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("timed"), publish=False)
    assert (await http("PUT", "/v1/schedules/t", schedule(pipeline="timed"))).status == 404
    await platform.add_version(chain("timed"), 2)
    for version in (None, 2):
        assert (await http("PUT", "/v1/schedules/t", schedule(pipeline="timed", version=version))).status == 200
    answer = await http("PUT", "/v1/schedules/t", schedule(pipeline="timed", version=1))
    assert (answer.status, answer.fields) == (422, {"version"})
    assert "version 1 of pipeline 'timed' is an experiment (published versions: 2)" in answer.json()["detail"]
    assert "penstock register FILE" in answer.json()["detail"]
    await http("DELETE", "/v1/schedules/t")


def schedule(**changes: Any) -> dict[str, Any]:
    return {"pipeline": "chain", "cron": "0 3 * * *", "tz": "Europe/Paris", "inputs": {"n": 1}} | changes


async def test_schedules_are_created_read_replaced_and_deleted(platform: Platform, http: Http) -> None:
    path = "/v1/schedules/nightly"
    assert (await http("GET", path)).status == 404
    put = await http("PUT", path, schedule())
    expected = commands.Schedule(name="nightly", owner="token:default", **schedule())
    assert (put.status, put.json()) == (200, expected.model_dump())
    entry = await Bucket(platform.bus, subjects.SCHEDULES_BUCKET).get("nightly")
    assert entry
    assert commands.Schedule.model_validate_json(entry.value) == expected
    await http("PUT", path, schedule(paused=True, name="nightly"))
    assert (await http("GET", path)).json()["paused"] is True
    await http("PUT", "/v1/schedules/a-first", schedule())
    listed = (await http("GET", "/v1/schedules")).json()["schedules"]
    assert [row["name"] for row in listed] == ["a-first", "nightly"]
    assert (await http("DELETE", path)).status == 204
    for method in ("GET", "DELETE"):
        assert (await http(method, path)).status == 404
    assert [row["name"] for row in (await http("GET", "/v1/schedules")).json()["schedules"]] == ["a-first"]


async def test_a_schedule_stores_complete_artifact_references(platform: Platform, http: Http) -> None:
    sha256 = await platform.store.put_bytes(b"rows")
    inputs = {"n": {"artifact": {"sha256": sha256, "size": 4}}}
    put = await http("PUT", "/v1/schedules/stored", schedule(inputs=inputs))
    kept = put.json()["inputs"]
    assert kept["n"]["artifact"] | {"sha256": sha256, "format": "file"} == kept["n"]["artifact"]
    assert "label" not in kept


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"cron": "often"}, 422, "cron"),
        ({"cron": "61 * * * *"}, 422, "cron"),
        ({"cron": "0 0 30 2 *"}, 422, "cron"),
        ({"cron": ""}, 422, "cron"),
        ({"tz": "Mars/Olympus"}, 422, "tz"),
        ({"tz": "../../etc/passwd"}, 422, "tz"),
        ({"tz": ""}, 422, "tz"),
        ({"name": "other"}, 422, "name"),
        ({"project": "elsewhere"}, 422, "project"),
        ({"pipeline": "none"}, 404, None),
        ({"version": 9}, 404, None),
        ({"inputs": {}}, 422, "inputs.n"),
        ({"inputs": {"n": "x"}}, 422, "inputs.n"),
        ({"inputs": {"n": {"artifact": {"sha256": "0" * 64, "size": 1}}}}, 422, "inputs.n"),
        ({"paused": "perhaps"}, 422, "paused"),
    ],
)
async def test_an_invalid_schedule_is_rejected(
    http: Http, changes: dict[str, Any], status: int, field: str | None
) -> None:
    answer = await http("PUT", "/v1/schedules/wrong", schedule(**changes))
    assert answer.status == status, answer.json()
    if field:
        assert answer.fields == {field}
    assert (await http("GET", "/v1/schedules/wrong")).status == 404
