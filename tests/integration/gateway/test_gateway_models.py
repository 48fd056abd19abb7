"""Registered models over HTTP, and the events about them, on a real server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from gateway_platform import Http, Platform, chain

from penstock_adapters.nats.buckets.waits import Waits
from penstock_adapters.nats.event_stream import EventStream
from penstock_adapters.nats.model_log import ModelLog
from penstock_contracts import subjects
from penstock_core import access
from penstock_core.deployments.events import Event
from penstock_core.facts import AttemptFinished, StepSuspended
from penstock_core.pipeline import ir
from penstock_core.pipeline.ir import Kind
from penstock_core.pipeline.values import ArtifactRef, Element, Inline, Items, Stored
from penstock_core.registry import decide
from penstock_core.registry.decide import Actor, Origin, Promotion, VersionDetails
from penstock_gateway.registry.announcer import ModelAnnouncer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMOTED = "penstock.model.promoted.v1"


def ref(sha256: str, size: int = 5) -> ArtifactRef:
    return ArtifactRef(sha256=sha256, size=size, media_type="application/octet-stream", format="pickle", unsafe=True)


async def trained(platform: Platform, content: bytes = b"model", **more: Any) -> str:
    """A run whose first step produced an artifact; the fake store has it."""
    sha256 = await platform.store.put_bytes(content)
    run_id = await platform.request()
    fields = {"metrics": {"accuracy": 0.9, "loss": 0.2}, "params": {"depth": 3}} | more
    await platform.run_step(run_id, "double", {"result": Stored(ref(sha256, len(content)))}, **fields)
    return run_id


async def version(http: Http, platform: Platform, name: str, content: bytes, **body: Any) -> Any:
    run_id = await trained(platform, content, **({"metrics": body.pop("logged")} if "logged" in body else {}))
    answer = await http("POST", f"/v1/models/{name}/versions", {"run_id": run_id, "step": "double", **body})
    assert answer.status == 201, answer.body
    return answer.json()


# -------------------------------------------------------------------------------------------------------- registering


async def test_a_version_records_the_attempts_details(platform: Platform, http: Http) -> None:
    run_id = await trained(platform)
    body = {"run_id": run_id, "step": "double", "tags": {"team": "growth"}, "description": "the first"}
    answer = await http("POST", "/v1/models/churn/versions", body)
    assert answer.status == 201
    made = answer.json()
    assert (made["created"], made["refused"]) == (True, None)
    view = made["version"]
    assert (view["model"], view["version"], view["reference"]) == ("churn", 1, "churn:1")
    assert (view["run_id"], view["step"], view["attempt"], view["output"]) == (run_id, "double", 1, "result")
    assert (view["pipeline"], view["pipeline_version"], view["by"]) == ("chain", 1, "token:default")
    assert (view["metrics"], view["params"], view["tags"]) == (
        {"accuracy": 0.9, "loss": 0.2}, {"depth": 3}, {"team": "growth"},
    )  # fmt: skip
    assert view["artifact"]["unsafe"] is True
    again = await http("POST", "/v1/models/churn/versions", body)
    assert (again.status, again.json()["version"]) == (200, view)
    for path in ("versions/1", "versions/latest"):
        assert (await http("GET", f"/v1/models/churn/{path}")).json() == view
    (row,) = [row for row in (await http("GET", "/v1/models")).json()["models"] if row["name"] == "churn"]
    assert (row["versions"], row["latest"], row["aliases"]) == (1, 1, {})


async def test_metrics_can_be_given_explicitly(platform: Platform, http: Http) -> None:
    made = await version(http, platform, "given", b"g", metrics={"f1": 1, "auc": 0.5})
    assert made["version"]["metrics"] == {"f1": 1.0, "auc": 0.5}


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"run_id": "nosuchrun"}, 404, "Run 'nosuchrun' does not exist"),
        ({"step": "nosuch"}, 404, "its steps: double, double-2"),
        ({"step": "../x"}, 422, "not valid"),
        ({"step": "double-2"}, 409, "Step 'double-2' of run"),
        ({"output": "nosuch"}, 404, "its outputs: result"),
        ({"metrics": {"a": "high"}}, 422, "metrics.a"),
        ({"metrics": {"a": True}}, 422, "metrics.a"),
        ({"metrics": {"": 1}}, 422, "1 to 200 characters"),
        ({"metrics": {str(n): n for n in range(501)}}, 422, "metrics"),
        ({"tags": {"a": "x" * 1001}}, 422, "the name of a tag must have"),
        ({"tags": {"a": 1}}, 422, "tags.a"),
        ({"description": "x" * 4001}, 422, "description"),
        ({"alias": "3"}, 422, "read as a version number"),
        ({"alias": "latest"}, 422, "latest"),
        ({"alias": "a b"}, 422, "alias"),
        ({"gate": "a > 1"}, 422, "need an alias"),
        ({"typo": 1}, 422, "typo"),
        ({"alias": "best", "force": "yes please"}, 422, "force"),
    ],
)
async def test_invalid_registrations(
    platform: Platform, http: Http, change: dict[str, Any], status: int, says: str
) -> None:
    body = {"run_id": await trained(platform), "step": "double"} | change
    answer = await http("POST", "/v1/models/wrong/versions", body)
    assert answer.status == status, answer.body
    assert says in answer.body.decode()
    assert (await http("GET", "/v1/models/wrong")).status == 404


@pytest.mark.parametrize("name", ["..%2Fx", "a%20b", "%00", "x" * 101, "a.b", "a%0Ab", "%E2%82%AC", "*"])
async def test_invalid_model_names(platform: Platform, http: Http, name: str) -> None:
    body = {"run_id": await trained(platform), "step": "double"}
    for method, path, data in (
        ("POST", f"/v1/models/{name}/versions", body),
        ("GET", f"/v1/models/{name}", None),
        ("GET", f"/v1/models/{name}/history", None),
        ("PUT", f"/v1/models/{name}/gates/champion", {"gate": "a > 1"}),
    ):
        answer = await http(method, path, data)
        assert answer.status in (404, 422), (method, path, answer.body)
        assert answer.headers["content-type"] == "application/problem+json"
    for path in ("aliases", "gates"):
        answer = await http("PUT", f"/v1/models/fine/{path}/{name}", {"gate": "a > 1", "version": 1})
        assert answer.status in (404, 422), answer.body


async def test_a_deleted_artifact_is_not_registered(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.run_step(run_id, "double", {"result": Stored(ref("e" * 64))})
    answer = await http("POST", "/v1/models/gone/versions", {"run_id": run_id, "step": "double"})
    assert answer.status == 404
    assert answer.json()["detail"].startswith(f"Artifact {'e' * 12} is not in the store")


@pytest.mark.parametrize(
    "value", [Inline(3), Items((Inline(1),)), Element(Stored(ref("a" * 64)), ("auc",))], ids=["data", "list", "part"]
)
async def test_a_value_that_is_not_an_artifact_is_not_registered(platform: Platform, http: Http, value: Any) -> None:
    run_id = await platform.request()
    await platform.run_step(run_id, "double", {"result": value})
    answer = await http("POST", "/v1/models/data/versions", {"run_id": run_id, "step": "double"})
    assert answer.status == 422
    assert answer.json()["detail"].startswith("Output 'result' is not an artifact")
    assert "register_model" in answer.json()["detail"]


# ------------------------------------------------------------------------------------------------------------- aliases


async def test_aliases_are_moved_read_and_deleted(platform: Platform, http: Http) -> None:
    for content in (b"1", b"2"):
        await version(http, platform, "moving", content)
    path = "/v1/models/moving/aliases/champion"
    assert (await http("GET", path)).status == 404
    first = await http("PUT", path, {"version": 1, "reason": "first"})
    assert first.json() == {
        "alias": {"alias": "champion", "version": 1, "since": first.json()["alias"]["since"], "by": "token:default",
                  "reason": "first", "forced": False, "gate": ""},
        "previous": None, "moved": True, "clauses": [],
    }  # fmt: skip
    assert (await http("PUT", path, {"version": 1})).json()["moved"] is False
    moved = await http("PUT", path, {"version": 2, "replaces": 1})
    assert (moved.json()["previous"], moved.json()["moved"]) == (1, True)
    lost = await http("PUT", path, {"version": 1, "replaces": 1})
    assert (lost.status, lost.json()["title"]) == (409, "Conflict")
    assert "alias 'champion' of model 'moving' points at version 2, not at version 1" in lost.json()["detail"]
    assert (await http("GET", path)).json()["version"] == 2
    assert (await http("PUT", path, {"version": 9})).json()["detail"].endswith(": it has versions 1 to 2")
    assert (await http("DELETE", f"{path}?reason=none")).status == 204
    assert (await http("DELETE", path)).status == 404
    history = (await http("GET", "/v1/models/moving/history")).json()["history"]
    assert [entry["kind"] for entry in history] == [
        "registered", "registered", "promoted", "promoted", "alias-removed",
    ]  # fmt: skip
    assert (history[-1]["previous"], history[-1]["reason"], history[-1]["by"]) == (2, "none", "token:default")


async def test_a_gate_reports_each_comparison_and_can_be_bypassed_with_a_reason(platform: Platform, http: Http) -> None:
    await version(http, platform, "gated", b"good", logged={"accuracy": 0.9})
    await version(http, platform, "gated", b"bad", logged={"accuracy": 0.8})
    await version(http, platform, "gated", b"none", logged={"loss": 0.1})
    gate = "accuracy > champion.accuracy + 0.01 and accuracy >= 0.5"
    put = await http("PUT", "/v1/models/gated/gates/champion", {"gate": gate})
    assert put.json()["aliases"][0]["gate"] == gate
    path = "/v1/models/gated/aliases/champion"
    first = await http("PUT", path, {"version": 1})
    assert first.json()["clauses"] == [
        "accuracy > champion.accuracy + 0.01: there is no champion yet, so it is true",
        "accuracy >= 0.5: 0.9 >= 0.5 is true",
    ]
    refused = await http("PUT", path, {"version": 2})
    assert (refused.status, refused.json()["title"]) == (409, "Conflict")
    assert "version 2 of model 'gated' does not pass the gate of 'champion'" in refused.json()["detail"]
    assert refused.json()["errors"] == [
        {"field": "gate", "message": "accuracy > champion.accuracy + 0.01: 0.8 > 0.91 is false"},
        {"field": "gate", "message": "accuracy >= 0.5: 0.8 >= 0.5 is true"},
    ]
    missing = await http("PUT", path, {"version": 3})
    assert "version 3 has no metric accuracy (metrics: loss)" in missing.json()["errors"][0]["message"]
    assert (await http("PUT", path, {"version": 2, "force": True})).status == 409
    forced = await http("PUT", path, {"version": 2, "force": True, "reason": "the other is illegal"})
    assert forced.json()["alias"]["forced"] is True
    entry = (await http("GET", "/v1/models/gated/history")).json()["history"][-1]
    assert (entry["forced"], entry["reason"], len(entry["clauses"])) == (True, "the other is illegal", 2)


async def test_a_gate_syntax_error_says_where(platform: Platform, http: Http) -> None:
    for method, path, body in (
        ("PUT", "/v1/models/unread/gates/champion", {"gate": "accuracy >"}),
        ("PUT", "/v1/models/unread/aliases/champion", {"version": 1, "gate": "accuracy >"}),
    ):
        if "aliases" in path:
            await version(http, platform, "unread", b"x")
        answer = await http(method, path, body)
        assert (answer.status, answer.json()["title"]) == (422, "Unprocessable")
        assert "expected a number or a metric, not the end, after 'accuracy >'" in answer.json()["detail"]


async def test_a_version_rejected_by_a_gate_is_registered_without_the_alias(platform: Platform, http: Http) -> None:
    await version(http, platform, "asked", b"good", logged={"accuracy": 0.9}, alias="champion")
    made = await version(
        http, platform, "asked", b"bad", logged={"accuracy": 0.8}, alias="champion", gate="accuracy > champion.accuracy"
    )
    assert made["version"]["aliases"] == []
    assert made["refused"] == {
        "alias": "champion",
        "gate": "accuracy > champion.accuracy",
        "clauses": ["accuracy > champion.accuracy: 0.8 > 0.9 is false"],
    }


async def test_a_version_from_an_experiment_is_marked_and_is_never_the_latest(platform: Platform, http: Http) -> None:
    sha256 = await platform.store.put_bytes(b"tried")
    result = {"result": Stored(ref(sha256))}
    await platform.add_version(chain(), 7, publish=False)
    for number, step in ((7, "double"), (0, "script")):
        run_id = await platform.request(version=number)
        await platform.run_step(run_id, step, result)
        made = await http("POST", "/v1/models/tried/versions", {"run_id": run_id, "step": step})
        assert (made.status, made.json()["version"]["experiment"]) == (201, True), made.body
    refused = await http("GET", "/v1/models/tried/versions/latest")
    assert (refused.status, refused.json()["detail"]) == (
        404,
        "model 'tried' has no published version (2 versions come from experiments: tried:1, tried:2): name one by "
        "number or alias, or train with a registered pipeline (penstock register)",
    )
    [row] = [row for row in (await http("GET", "/v1/models")).json()["models"] if row["name"] == "tried"]
    assert (row["versions"], row["latest"], row["experiments"]) == (2, None, 2)

    published = await version(http, platform, "tried", b"published")
    assert (published["version"]["version"], published["version"]["experiment"]) == (3, False)
    run_id = await platform.request(version=7)
    await platform.run_step(run_id, "double", result)
    await http("POST", "/v1/models/tried/versions", {"run_id": run_id, "step": "double"})
    shown = (await http("GET", "/v1/models/tried")).json()["versions"]
    assert [(one["version"], one["experiment"]) for one in shown] == [(4, True), (3, False), (2, True), (1, True)]
    assert (await http("GET", "/v1/models/tried/versions/latest")).json()["version"] == 3
    await http("PUT", "/v1/models/tried/aliases/champion", {"version": 4})
    assert (await http("GET", "/v1/models/tried/aliases/champion")).json()["version"] == 4
    assert (await http("GET", "/v1/models/tried/versions/latest")).json()["version"] == 3


async def test_archiving_hides_a_version_without_deleting_it(platform: Platform, http: Http) -> None:
    for content in (b"a1", b"a2"):
        await version(http, platform, "hidden", content)
    archived = await http("POST", "/v1/models/hidden/versions/2/archive", {"reason": "wrong data"})
    assert archived.json()["archived"] is True
    assert (await http("GET", "/v1/models/hidden/versions/latest")).json()["version"] == 1
    assert (await http("GET", "/v1/models/hidden/versions/2")).status == 200
    refused = await http("PUT", "/v1/models/hidden/aliases/champion", {"version": 2})
    assert (refused.status, refused.json()["detail"]) == (
        409,
        "version 2 of model 'hidden' is archived: unarchive it first",
    )
    await http("PUT", "/v1/models/hidden/aliases/champion", {"version": 1})
    assert (await http("POST", "/v1/models/hidden/versions/1/archive")).status == 409
    assert (await http("POST", "/v1/models/hidden/versions/7/archive")).status == 404
    assert (await http("POST", "/v1/models/hidden/versions/0/archive")).status == 422
    restored = await http("POST", "/v1/models/hidden/versions/2/archive", {"archived": False})
    assert restored.json()["archived"] is False
    for which in ("9", "x", "-1", "1.5", "01x"):
        assert (await http("GET", f"/v1/models/hidden/versions/{which}")).status in (404, 422)


# -------------------------------------------------------------------------------------------------------------- inputs


async def test_a_model_input_is_pinned_at_submission(platform: Platform, http: Http) -> None:
    await platform.add_version(_scoring())
    for content in (b"one", b"two!"):
        await version(http, platform, "pinned", content)
    await http("PUT", "/v1/models/pinned/aliases/champion", {"version": 1})
    for given, number in (
        ("model:pinned@champion", 1),
        ("model:pinned", 2),
        ("model:pinned:1", 1),
        ({"artifact": {"model": "pinned:2"}}, 2),
    ):
        body = {"pipeline": "scoring", "inputs": {"model": given, "text": "model:pinned"}}
        accepted = await http("POST", "/v1/runs", body, headers={"idempotency-key": f"k{number}{len(str(given))}"})
        assert accepted.status == 202, accepted.body
        run_id = accepted.json()["run_id"]
        await http("PUT", "/v1/models/pinned/aliases/champion", {"version": 2})
        inputs = (await http("GET", f"/v1/runs/{run_id}")).json()["inputs"]
        wanted = (await http("GET", f"/v1/models/pinned/versions/{number}")).json()["artifact"]
        assert inputs["model"]["artifact"] == wanted
        assert inputs["text"] == {"value": "model:pinned"}  # a text parameter keeps the text
        # The same request returns the same run, even if the alias moved.
        again = await http("POST", "/v1/runs", body, headers={"idempotency-key": f"k{number}{len(str(given))}"})
        assert (again.status, again.json()["run_id"]) == (200, run_id)
        await http("PUT", "/v1/models/pinned/aliases/champion", {"version": 1})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("model:nosuch", "there is no model 'nosuch'"),
        ("model:", "model ''"),
        ("model:a:b", "is not a version of a model"),
        ("model:../x", "is not valid"),
        ({"artifact": {"model": "nosuch@x"}}, "there is no model 'nosuch'"),
    ],
)
async def test_an_input_with_an_unknown_model(platform: Platform, http: Http, given: Any, says: str) -> None:
    await platform.add_version(_scoring())
    answer = await http("POST", "/v1/runs", {"pipeline": "scoring", "inputs": {"model": given, "text": ""}})
    assert (answer.status, answer.fields) == (422, {"inputs.model"})
    assert says in answer.json()["detail"]


async def test_a_deployment_keeps_its_model_reference_unresolved(platform: Platform, http: Http) -> None:
    await platform.add_version(_scoring())
    await version(http, platform, "nightly", b"nightly")
    definition = {"pipeline": "scoring", "inputs": {"model": "model:nightly", "text": ""}}
    stored = await http("PUT", "/v1/deployments/nightly", {"definition": definition})
    assert stored.json()["definition"]["inputs"] == {"model": "model:nightly", "text": ""}
    definition["inputs"] = {"model": "model:nosuch", "text": ""}
    refused = await http("PUT", "/v1/deployments/nightly", {"definition": definition})
    assert (refused.status, refused.fields) == (422, {"inputs.model"})


def _scoring() -> ir.Pipeline:
    pipeline = chain("scoring", 1)
    params = (
        ir.Port(name="model", type="Model"),
        ir.Port(name="text", type="str", schema={"type": "string"}),
        ir.Port(name="n", type="int", required=False, default=1, schema={"type": "integer"}),
    )
    return ir.Pipeline(
        name="scoring", params=params, steps=pipeline.steps, nodes=pipeline.nodes, outputs=pipeline.outputs
    )


# -------------------------------------------------------------------------------------------------------------- events


async def published(platform: Platform, type: str, model: str) -> list[Event]:
    events = await EventStream(platform.bus).since("default", type, 0.0)
    return [event for event in events if event.data["model"] == model]


async def until(condition: Any, timeout: float = 30.0) -> Any:
    deadline = asyncio.get_running_loop().time() + timeout
    while not (found := await condition()):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)
    return found


async def test_every_change_is_published_once_to_triggers_and_waiting_steps(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    waits = Waits(platform.bus)
    for n, key in enumerate(("", "announced", "announced@champion", "other"), 1):
        fact = StepSuspended(
            run_id=run_id, key=f"double[{n}]", attempt=1, kind=Kind.EVENT, project="default",
            inputs={"type": Inline(PROMOTED), **({"key": Inline(key)} if key else {})},
        )  # fmt: skip
        await waits.expect(fact, 0.0)
    await version(http, platform, "announced", b"announced")
    await http("PUT", "/v1/models/announced/aliases/champion", {"version": 1, "reason": "first"})
    (event,) = await until(lambda: published(platform, PROMOTED, "announced"))
    assert (event.extensions["keys"], event.id, event.data["reference"]) == (
        "announced,announced@champion",
        "default.announced.2",
        "announced:1",
    )
    assert (event.data["alias"], event.data["previous"], event.data["reason"]) == ("champion", None, "first")
    (registered,) = await published(platform, "penstock.model.registered.v1", "announced")
    assert (registered.extensions["keys"], registered.data["metrics"]) == ("announced", {"accuracy": 0.9, "loss": 0.2})
    assert registered.data["artifact"]["format"] == "pickle"

    async def ended() -> list[str]:
        places = [subjects.finished(run_id, f"double[{n}]", 1) for n in range(1, 5)]
        records = await platform.log.last(places)
        facts = [records[place].fact for place in places if place in records]
        return [fact.key for fact in facts if isinstance(fact, AttemptFinished)] if len(facts) >= 3 else []

    assert await until(ended) == ["double[1]", "double[2]", "double[3]"]


async def test_a_gateway_killed_before_publishing_loses_no_event(platform: Platform) -> None:
    await platform.gateway.feature(ModelAnnouncer).close()  # only the models of this test
    log = ModelLog(platform.bus, "test")
    origin = Origin(artifact=ref("d" * 64), run_id="r", key="train", attempt=1)
    promotion = Promotion(alias="champion", version=0, cause="r/train/1")
    await log.change(
        "default",
        "killed",
        lambda model: decide.register(model, origin, VersionDetails(), Actor("ada", time.time()), promotion),
    )
    publishing = asyncio.Event()

    class Dies(EventStream):
        """The stream of a gateway that stops before it publishes."""

        async def publish(self, event: Event) -> Any:
            publishing.set()
            await asyncio.Event().wait()

    events = platform.gateway.feature(EventStream)
    dying = ModelAnnouncer(platform.context, platform.log, Dies(platform.bus))
    await dying.start()
    await asyncio.wait_for(publishing.wait(), 30)
    await dying.close()
    assert await published(platform, PROMOTED, "killed") == []
    after = ModelAnnouncer(platform.context, platform.log, events)
    await after.start()
    try:
        (event,) = await until(lambda: published(platform, PROMOTED, "killed"))
        assert event.data["reference"] == "killed:1"
        assert len(await until(lambda: published(platform, "penstock.model.registered.v1", "killed"))) == 1
    finally:
        await after.close()
        replacement = ModelAnnouncer(platform.context, platform.log, events)
        await replacement.start()
        platform.gateway._background.append(replacement)


async def test_changes_of_models_count_the_runs_that_caused_each_other(platform: Platform) -> None:
    run_id = await platform.request(trigger={"deployment": "nightly", "hops": "3"})
    origin = Origin(artifact=ref("e" * 64), run_id=run_id, key="train", attempt=1)
    promotion = Promotion(alias="champion", version=0, cause=f"{run_id}/train/1")
    who = Actor(access.run_step(run_id, "train"), time.time())
    await ModelLog(platform.bus, "test").change(
        "default", "counted", lambda model: decide.register(model, origin, VersionDetails(), who, promotion)
    )
    for kind in ("penstock.model.registered.v1", PROMOTED):
        (event,) = await until(lambda kind=kind: published(platform, kind, "counted"))
        assert event.extensions["hops"] == "3", kind


async def test_changes_that_are_older_than_events_are_not_published_again(platform: Platform) -> None:
    log = ModelLog(platform.bus, "test")
    for name, age in (("ancient", 40 * 86400.0), ("recent", 0.0)):
        origin = Origin(artifact=ref("f" * 64), run_id="r", key=name, attempt=1)
        who = Actor("ada", time.time() - age)
        await log.change(
            "default",
            name,
            lambda model, origin=origin, who=who: decide.register(model, origin, VersionDetails(), who, None),
        )
    # They are published in the order of the stream.
    await until(lambda: published(platform, "penstock.model.registered.v1", "recent"))
    assert await published(platform, "penstock.model.registered.v1", "ancient") == []


async def test_unreadable_model_facts_are_parked_and_block_nothing(platform: Platform, http: Http) -> None:
    await platform.bus.publish("models.default.odd.1", b"{}", {"ce-type": PROMOTED})
    await version(http, platform, "after", b"after")
    await until(lambda: published(platform, "penstock.model.registered.v1", "after"))

    async def parked() -> list[Any]:
        found = [orjson.loads(one.data) for one in await platform.bus.read(subjects.PARKED, "parked.gateway")]
        return [one for one in found if one["subject"] == "models.default.odd.1"]

    (one,) = await until(parked)
    assert "Field required" in one["error"]
