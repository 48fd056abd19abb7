"""Versions and deployments over HTTP."""

from __future__ import annotations

import asyncio
import copy
import time
import zlib
from typing import Any

import orjson
import pytest
from gateway_platform import SOURCE, Http, Platform, chain, started

from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.event_stream import EventStream
from penstock_contracts import commands, subjects
from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.deployments.events import Event
from penstock_core.facts import Outcome, RunRequested
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
    assert (await http("GET", "/v1/versions?pipeline=none")).json() == {"versions": [], "unreadable": []}
    whole = await http("GET", "/v1/versions/read/2")
    assert commands.Version.model_validate_json(whole.body).pipeline == chain("read", 5)
    for path in ("/v1/versions/read/3", "/v1/versions/none/1"):
        assert (await http("GET", path)).status == 404
    assert (await http("GET", "/v1/versions/read/0")).fields == {"path.version"}


async def test_an_unreadable_version_costs_its_own_entry(platform: Platform, http: Http) -> None:
    bucket = Bucket(platform.bus, subjects.VERSIONS_BUCKET)
    await platform.add_version(chain("spoilt"))
    await platform.add_version(chain("spoilt", 3), 2)
    await bucket.put("default.spoilt.1", b"garbage")
    await bucket.put("default.other.1", zlib.compress(b"{}"))
    await bucket.put("default.other.published", b"\xff")
    for query in ("", "?pipeline=spoilt"):
        listed = (await http("GET", f"/v1/versions{query}")).json()
        found = [(row["version"], row["latest"]) for row in listed["versions"] if row["pipeline"] == "spoilt"]
        assert found == [(2, True)]
        assert listed["unreadable"] == ["spoilt v1", *([] if query else ["other v1"])]
    answer = await http("GET", "/v1/versions/spoilt/1")
    assert answer.status == 500 and "a stored pipeline version is unreadable" in answer.json()["detail"]
    assert (await http("POST", "/v1/runs", {"pipeline": "spoilt", "inputs": {"n": 1}})).status == 202
    assert (await http("POST", "/v1/runs", {"pipeline": "other", "inputs": {"n": 1}})).status == 404
    await bucket.put("default.spoilt.published", b"garbage")
    assert (await http("POST", "/v1/runs", {"pipeline": "spoilt", "inputs": {"n": 1}})).status == 404
    assert (await http("GET", "/v1/versions/spoilt/2")).status == 200
    for name in ("spoilt", "other"):
        await bucket.delete(f"default.{name}.1")


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


# -------------------------------------------------------------------------------------------------------- deployments


def cron(**changes: Any) -> dict[str, Any]:
    return {"kind": "cron", "name": "cron", "cron": "0 3 * * *", "tz": "Europe/Paris"} | changes


def on(**changes: Any) -> dict[str, Any]:
    return {"kind": "event", "name": "on", "types": ["com.acme.updated"]} | changes


def deployment(*triggers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"definition": {"pipeline": "chain", "inputs": {"n": 1}, "triggers": [*triggers]} | changes}


async def test_deployments_accept_only_published_versions(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("timed"), publish=False)
    assert (await http("PUT", "/v1/deployments/t", deployment(pipeline="timed"))).status == 404
    await platform.add_version(chain("timed"), 2)
    for version in (None, 2):
        answer = await http("PUT", "/v1/deployments/t", deployment(pipeline="timed", version=version))
        assert answer.status == 200
    answer = await http("PUT", "/v1/deployments/t", deployment(pipeline="timed", version=1))
    assert (answer.status, answer.fields) == (422, {"version"})
    assert "version 1 of pipeline 'timed' is an experiment" in answer.json()["detail"]
    assert "penstock register FILE" in answer.json()["detail"]
    assert (await http("DELETE", "/v1/deployments/t")).status == 204


async def test_deployments_are_created_updated_paused_rolled_back_and_deleted(http: Http) -> None:
    path = "/v1/deployments/nightly"
    assert (await http("GET", path)).status == 404
    put = await http("PUT", path, deployment(cron()) | {"revision": 0})
    assert put.status == 200, put.body
    made = put.json()
    assert (made["revision"], made["changed"], made["paused"], made["by"]) == (1, True, False, "token:default")
    assert made["definition"]["triggers"][0]["tz"] == "Europe/Paris"
    assert made["next"]["cron"] > time.time()
    assert (await http("PUT", path, deployment(cron()))).json()["changed"] is False
    assert (await http("PUT", path, deployment() | {"revision": 0})).status == 409
    assert (await http("PUT", path, deployment() | {"dry_run": True})).json()["changed"] is True
    assert (await http("GET", path)).json()["revision"] == 1
    assert (await http("PUT", path, deployment() | {"revision": 1})).json()["revision"] == 2
    paused = (await http("POST", f"{path}/pause", {"reason": "holiday"})).json()
    assert (paused["paused"], paused["revision"]) == (True, 3)
    assert (await http("POST", f"{path}/resume", {})).json()["paused"] is False
    back = (await http("POST", f"{path}/rollback", {"to": 1})).json()
    assert (back["revision"], len(back["definition"]["triggers"])) == (5, 1)
    ticks = (await http("GET", f"{path}/ticks?count=3")).json()["ticks"]["cron"]
    assert ticks == sorted(set(ticks)) and len(ticks) == 3
    await http("PUT", "/v1/deployments/a-first", deployment())
    listed = (await http("GET", "/v1/deployments")).json()["deployments"]
    assert [row["name"] for row in listed] == ["a-first", "nightly"]
    assert (await http("DELETE", f"{path}?reason=done")).status == 204
    for method in ("GET", "DELETE"):
        assert (await http(method, path)).status == 404
    revisions = (await http("GET", f"{path}/revisions")).json()["revisions"]
    assert [(row["change"], row["reason"], row["restores"]) for row in revisions] == [
        ("applied", "", 0),
        ("applied", "", 0),
        ("paused", "holiday", 0),
        ("resumed", "", 0),
        ("applied", "", 1),
        ("deleted", "done", 0),
    ]


async def test_explanations_say_what_a_limit_of_active_runs_did(platform: Platform, http: Http) -> None:
    """Nothing in this test admits runs: the scheduler does."""
    rule = on(types=["com.acme.limited"], inputs={"n": "1"})
    put = await http("PUT", "/v1/deployments/limited", deployment(rule, max_active_runs=2, overlap="skip"))
    assert (put.json()["definition"]["max_active_runs"], put.json()["definition"]["overlap"]) == (2, "skip")
    sent = (await http("POST", "/v1/events", {"type": "com.acme.limited", "source": "limited", "id": "1"})).json()

    async def explained() -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            found = (await http("GET", f"/v1/events/{sent['sequence']}?deployment=limited")).json()["decisions"]
            if found[0]["waits_for"] or found[0]["error"]:
                return found[0]
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)

    queued = await explained()
    assert (queued["outcome"], queued["waits_for"]) == (
        "started",
        "at most 2 runs of the deployment may be active (max_active_runs)",
    )
    await platform.finish(queued["run_id"], Outcome.SKIPPED, error="2 runs of the deployment are active")
    limited = await explained()
    assert (limited["outcome"], limited["run_id"]) == ("limited", queued["run_id"])
    assert limited["error"] == "2 runs of the deployment are active"
    listed = (await http("GET", "/v1/deployments/limited/decisions")).json()["decisions"]
    assert [one["outcome"] for one in listed] == ["limited"]
    by_hand = (await http("POST", "/v1/deployments/limited/runs", {"inputs": {"n": 2}})).json()
    manual = (await platform.log.read(by_hand["run_id"]))[0].fact
    assert isinstance(manual, RunRequested)
    assert manual.deployment_limit == DeploymentLimit(deployment="limited", most=2, overlap=ir.Overlap.SKIP)


async def test_a_deployment_stores_complete_artifact_references(platform: Platform, http: Http) -> None:
    sha256 = await platform.store.put_bytes(b"rows")
    inputs = {"n": {"artifact": {"sha256": sha256, "size": 4}}}
    put = await http("PUT", "/v1/deployments/stored", deployment(inputs=inputs))
    kept = put.json()["definition"]["inputs"]
    assert kept["n"]["artifact"] | {"sha256": sha256, "format": "file"} == kept["n"]["artifact"]


async def test_durations_and_times_are_read_as_people_write_them(http: Http) -> None:
    trigger = {"kind": "cron", "name": "c", "every": "1h30m", "jitter": "30s", "start": "2030-01-01T00:00:00Z"}
    put = await http("PUT", "/v1/deployments/often", deployment(trigger, deadline="2h"))
    definition = put.json()["definition"]
    [found] = definition["triggers"]
    assert (found["every"], found["jitter"], found["start"], definition["deadline"]) == (5400, 30, 1893456000, 7200)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (deployment(cron(cron="often")), 422, "triggers[0].cron"),
        (deployment(cron(cron="61 * * * *")), 422, "triggers[0].cron"),
        (deployment(cron(cron="0 0 30 2 *")), 422, "triggers[0].cron"),
        (deployment(cron(cron="")), 422, "triggers[0].cron"),
        (deployment(cron(tz="Mars/Olympus")), 422, "triggers[0].tz"),
        (deployment(cron(tz="../../etc/passwd")), 422, "triggers[0].tz"),
        (deployment(cron(tz="")), 422, "triggers[0].tz"),
        (deployment(cron(start="soon")), 422, "triggers[0].start"),
        (deployment(cron(cron="", every="often")), 422, "triggers[0].every"),
        (deployment(on(filter="data.x >")), 422, "triggers[0].filter"),
        (deployment(on(filter="1 + 1")), 422, "triggers[0].filter"),
        (deployment(on(filters="true")), 422, "triggers[0].filters"),
        (deployment(on(inputs={"m": "1"})), 422, "triggers[0].inputs.m"),
        (deployment(on(inputs={"n": "unknown.x"})), 422, "triggers[0].inputs.n"),
        (deployment(on(window={"kind": "debounce"})), 422, "triggers[0].window.seconds"),
        (deployment(on(window={"kind": "never", "seconds": 1})), 422, "triggers[0].window.kind"),
        (deployment({"name": "x"}), 422, "triggers[0].kind"),
        (deployment(on(), inputs={}), 422, "triggers[0].inputs"),
        (deployment(triggers={}), 422, "triggers"),
        (deployment(inputs={"n": "x"}), 422, "inputs.n"),
        (deployment(inputs={"n": {"artifact": {"sha256": "0" * 64, "size": 1}}}), 422, "inputs.n"),
        (deployment(schedule="@daily"), 422, "schedule"),
        (deployment(max_active_runs=0), 422, "max_active_runs"),
        (deployment(max_active_runs="many"), 422, "max_active_runs"),
        (deployment(overlap="skip"), 422, "overlap"),
        (deployment(max_active_runs=1, overlap="drop"), 422, "overlap"),
        (deployment(pipeline="none"), 404, None),
        (deployment(version=9), 404, None),
        ({"definition": []}, 422, "definition"),
        ({"definition": {}}, 422, "pipeline"),
        (deployment() | {"revision": "x"}, 422, "revision"),
    ],
)
async def test_an_invalid_deployment_is_rejected(
    http: Http, body: dict[str, Any], status: int, field: str | None
) -> None:
    answer = await http("PUT", "/v1/deployments/wrong", body)
    assert answer.status == status, answer.json()
    if field:
        assert answer.fields == {field}
    assert (await http("GET", "/v1/deployments/wrong")).status == 404


async def test_events_are_explained_by_the_deployments_that_took_them(platform: Platform, http: Http) -> None:
    rule = on(types=["com.acme.explained"], filter="data.rows > 10 && data.rows < 100", inputs={"n": "data.rows"})
    await http("PUT", "/v1/deployments/explained", deployment(rule))
    event = {"type": "com.acme.explained", "source": "s", "data": {"rows": 500}}
    sent = (await http("POST", "/v1/events", event | {"id": "1"})).json()
    found = (await http("GET", f"/v1/events/{sent['digest']}")).json()
    assert found["event"]["data"] == {"rows": 500}
    [decision] = [one for one in found["decisions"] if one["deployment"] == "explained"]
    assert (decision["outcome"], decision["revision"]) == ("filtered", 1)
    assert [(one["text"], one["holds"], one["values"]) for one in decision["clauses"]] == [
        ("data.rows > 10", True, {"data.rows": 500}),
        ("data.rows < 100", False, {"data.rows": 500}),
    ]
    started = (await http("POST", "/v1/events", event | {"id": "2", "data": {"rows": 50}})).json()
    deadline = time.monotonic() + 30
    while True:
        found = (await http("GET", f"/v1/events/{started['sequence']}?deployment=explained")).json()
        [decision] = found["decisions"]
        if decision["run_id"]:
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    run = (await http("GET", f"/v1/runs/{decision['run_id']}")).json()
    assert (run["requested_by"], run["trigger"]["event_id"]) == ("trigger:explained", "2")
    decisions = (await http("GET", "/v1/deployments/explained/decisions")).json()["decisions"]
    assert [one["run_id"] for one in decisions] == [decision["run_id"]]
    test = {"event": {"type": "com.acme.explained", "data": {"rows": 11}}}
    [tried] = (await http("POST", "/v1/deployments/explained/test", test)).json()["decisions"]
    assert (tried["outcome"], tried["inputs"], tried["run_id"]) == ("started", {"n": 11}, None)
    listed = (await http("GET", "/v1/events?type=com.acme.explained")).json()["events"]
    assert [one["id"] for one in listed] == ["2", "1"]
    page = (await http("GET", "/v1/events?type=com.acme.*&limit=1")).json()
    assert len(page["events"]) == 1
    # The decision of that time, although the deployment is another one now.
    await http("PUT", "/v1/deployments/explained", deployment(on(types=["com.acme.other"])))
    found = (await http("GET", f"/v1/events/{sent['digest']}")).json()
    assert [one["outcome"] for one in found["decisions"] if one["deployment"] == "explained"] == ["filtered"]
    assert (await http("GET", f"/v1/events/{'0' * 32}")).status == 404
    assert (await http("GET", "/v1/events/99999999")).status == 404


async def test_a_dry_run_checks_a_deployment_with_a_version_that_is_not_published(
    platform: Platform, http: Http
) -> None:
    """So that `penstock deploy` publishes nothing before all deployments of a file are checked."""
    wider = ir.Pipeline(name="growing", params=(ir.Port(name="rows", schema={"type": "integer"}),))
    await platform.add_version(wider, 1, publish=False)
    definition = {"pipeline": "growing", "inputs": {"rows": 3}}
    body = {"definition": definition, "dry_run": True}
    assert (await http("PUT", "/v1/deployments/grown", body)).status in (404, 422), "no version is published"
    answer = await http("PUT", "/v1/deployments/grown", {**body, "candidate": 1})
    assert (answer.status, answer.json()["changed"]) == (200, True), answer.body
    wrong = {"definition": {**definition, "inputs": {"rows": "x"}}, "dry_run": True, "candidate": 1}
    assert (await http("PUT", "/v1/deployments/grown", wrong)).fields == {"inputs.rows"}
    refused = await http("PUT", "/v1/deployments/grown", {"definition": definition, "candidate": 1})
    assert (refused.status, refused.fields) == (422, {"candidate"})
    assert (await http("GET", "/v1/deployments/grown")).status == 404


# -------------------------------------------------------------------------------------------------------- event types

ROWS = {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "integer"}, "url": {"type": "string"}}}


async def test_events_that_do_not_fit_the_schema_of_their_type_are_refused(http: Http) -> None:
    path = "/v1/event-types/com.acme.typed"
    assert (await http("GET", path)).status == 404
    put = await http("PUT", path, {"schema": ROWS, "description": "rows arrived"})
    assert put.status == 200, put.body
    assert (put.json()["schema"], put.json()["description"]) == (ROWS, "rows arrived")
    listed = (await http("GET", "/v1/event-types")).json()["types"]
    assert [one["type"] for one in listed] == ["com.acme.typed"]
    event = {"type": "com.acme.typed", "source": "typed", "id": "1"}
    wrong = await http("POST", "/v1/events", {**event, "data": {"rows": "many"}})
    assert (wrong.status, wrong.fields) == (422, {"data.rows"})
    assert (await http("POST", "/v1/events", {**event, "data": {"rows": 1}})).status == 202
    batch = [{**event, "id": "2", "data": {"rows": 2}}, {**event, "id": "3", "data": {}}]
    headers = {"content-type": "application/cloudevents-batch+json"}
    refused = await http("POST", "/v1/events", batch, headers=headers)
    assert (refused.status, refused.fields) == (422, {"[1].data"})
    assert (await http("DELETE", path)).status == 204
    assert (await http("DELETE", path)).status == 404
    assert (await http("POST", "/v1/events", {**event, "id": "4", "data": {"rows": "many"}})).status == 202


@pytest.mark.parametrize(
    ("type", "schema", "field"),
    [
        ("com.acme.x", {"type": "text"}, "schema"),
        ("com.acme.x", {"$ref": "http://127.0.0.1:1/schema"}, "schema.$ref"),
        ("com.acme.x", {"description": "x" * 70_000}, "schema"),
        ("com.acme.*", {}, "type"),
        ("penstock.run.finished.v1", {}, "type"),
    ],
)
async def test_a_schema_that_cannot_be_used_is_refused(http: Http, type: str, schema: Any, field: str) -> None:
    answer = await http("PUT", f"/v1/event-types/{type}", {"schema": schema})
    assert (answer.status, answer.fields) == (422, {field}), answer.body
    assert (await http("GET", f"/v1/event-types/{type}")).status == 404


async def test_expressions_are_checked_against_the_schema_of_the_type(http: Http) -> None:
    await http("PUT", "/v1/event-types/com.acme.checked", {"schema": ROWS})
    for filter, message in (
        (
            "data.rowz > 1",
            "column 6: there is no field 'rowz' (did you mean 'rows'?) in events of type com.acme.checked",
        ),
        ("data.rows > 'a'", "column 11: found no matching overload"),
    ):
        answer = await http(
            "PUT", "/v1/deployments/typo", deployment(on(types=["com.acme.checked"], filter=filter, inputs={"n": "1"}))
        )
        assert (answer.status, answer.fields) == (422, {"triggers[0].filter"}), answer.body
        assert message in answer.body.decode()
    fitting = on(types=["com.acme.checked"], filter="data.rows > 1", inputs={"n": "data.rows"})
    assert (await http("PUT", "/v1/deployments/typo", deployment(fitting))).status == 200
    await http("DELETE", "/v1/event-types/com.acme.checked")


async def test_an_event_over_nats_that_does_not_fit_is_a_dead_letter_and_starts_nothing(
    platform: Platform, http: Http
) -> None:
    kind = "com.acme.parked"
    rule = on(types=[kind], inputs={"n": "data.rows"})
    assert (await http("PUT", "/v1/deployments/parked", deployment(rule))).status == 200
    await http("PUT", f"/v1/event-types/{kind}", {"schema": {**ROWS, "required": ["rows", "url"]}})

    async def letters() -> list[dict[str, Any]]:
        found = (await http("GET", "/v1/dead-letters")).json()["dead_letters"]
        return [one for one in found if one["type"] == kind]

    deadline, event = time.monotonic() + 60, Event(project="default", type=kind, source="nats", id="0")
    while not await letters():  # the triggers service reads the new schema within moments
        event = Event(project="default", type=kind, source="nats", id=str(int(event.id) + 1), data={"rows": 7})
        await EventStream(platform.bus).publish(event)
        await asyncio.sleep(0.2)
        assert time.monotonic() < deadline
    [letter] = await letters()
    assert (letter["kind"], letter["deployment"]) == ("rejected", "")
    assert letter["error"] == 'the event does not fit the schema of its type: data "url" is a required property'
    last = f"/v1/events/{event.digest}?deployment=parked"
    [decision] = (await http("GET", last)).json()["decisions"]
    assert (decision["outcome"], decision["run_id"]) == ("rejected", None)
    before = len(await started(platform, "parked", 0))
    # The schema is corrected, and the event sent again.
    await http("PUT", f"/v1/event-types/{kind}", {"schema": ROWS})
    while len(await started(platform, "parked", 0)) == before:
        for one in await letters():
            await http("POST", f"/v1/dead-letters/{one['id']}/replay")
        await asyncio.sleep(0.1)
        assert time.monotonic() < deadline
    assert len(await started(platform, "parked", 0)) == before + 1
