"""Partitions and backfills over HTTP, with the triggers service beside the gateway; the tests finish the runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
from gateway_platform import Http, Platform, chain, runs, started

from penstock_adapters.backfill_items import BackfillItems
from penstock_adapters.nats.backfill_log import BackfillLog
from penstock_adapters.nats.event_stream import EventStream
from penstock_core.deployments.events import Event
from penstock_core.errors import InputError
from penstock_core.facts import CancelRequested, Outcome, RunDeleted, RunRequested
from penstock_core.pipeline import ir
from penstock_triggers import backfills as driver

pytestmark = pytest.mark.asyncio(loop_scope="module")

T = TypeVar("T")
DAYS = {"by": "day", "start": "2026-01-01", "end": "2026-01-11", "tz": "Europe/Paris", "inputs": {"label": "key"}}


async def until(read: Callable[[], Awaitable[T]], enough: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + 60
    while not enough(found := await read()):
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.02)
    return found


async def deploy(http: Http, name: str, partitions: dict[str, Any] | None = DAYS, *triggers: dict[str, Any]) -> None:
    definition = {"pipeline": "chain", "inputs": {"n": 1}, "partitions": partitions, "triggers": [*triggers]}
    answer = await http("PUT", f"/v1/deployments/{name}", {"definition": definition})
    assert answer.status == 200, answer.json()


async def backfill(http: Http, name: str, body: dict[str, Any], status: int = 202) -> Any:
    answer = await http("POST", "/v1/backfills", {"deployment": name, **body})
    assert answer.status == status, answer.json()
    return answer.json()


async def counts(http: Http, id: str) -> dict[str, int]:
    return (await http("GET", f"/v1/backfills/{id}")).json()["counts"]


async def state(http: Http, name: str, key: str) -> str:
    return (await http("GET", f"/v1/deployments/{name}/partitions/{quote(key)}")).json()["state"]


def by_key(found: list[RunRequested]) -> dict[str, RunRequested]:
    return {run.trigger["partition"]: run for run in found}


async def test_a_backfill_runs_each_selected_partition_some_at_a_time(platform: Platform, http: Http) -> None:
    await deploy(http, "some")
    made = await backfill(http, "some", {"from": "2026-01-03", "to": "2026-01-07", "max_active": 2})
    assert (made["total"], made["status"], made["version"], made["by"]) == (5, "running", 1, "token:default")
    first = await started(platform, "some", 2)
    assert [*by_key(first)] == ["2026-01-03", "2026-01-04"]
    run = first[0]
    assert (run.inputs["label"].value, run.requested_by) == ("2026-01-03", "token:default")  # type: ignore[union-attr]
    assert run.labels == {"partition": "2026-01-03", "backfill": made["id"]}
    assert run.trigger == {
        "type": "backfill",
        "deployment": "some",
        "revision": "1",
        "backfill": made["id"],
        "partition": "2026-01-03",
    }
    await until(lambda: state(http, "some", "2026-01-03"), lambda found: found == "running")
    await platform.finish(first[1].run_id, Outcome.FAILED)
    third = by_key(await started(platform, "some", 3))
    assert [*third][2] == "2026-01-05"
    assert await state(http, "some", "2026-01-04") == "failed"
    assert await counts(http, made["id"]) == {"failed": 1, "active": 2, "pending": 2}
    for number in (0, 2, 3, 4):
        found = await started(platform, "some", number + 1)
        await platform.finish(found[number].run_id)
    view = await until(lambda: _view(http, made["id"]), lambda found: bool(found["status"] in ("succeeded", "failed")))
    assert (view["status"], view["finished"], view["counts"]["succeeded"]) == ("failed", 5, 4)
    assert len(await runs(platform, "some")) == 5

    again = await http("POST", f"/v1/backfills/{made['id']}/retry", {})
    assert again.json()["status"] == "running"
    retried = (await started(platform, "some", 6))[5]
    assert (retried.trigger["partition"], retried.run_id) != ("2026-01-04", first[1].run_id)
    await platform.finish(retried.run_id)
    await until(lambda: _view(http, made["id"]), lambda found: bool(found["status"] == "succeeded"))
    items = (await http("GET", f"/v1/backfills/{made['id']}/items?first=1&limit=2")).json()
    assert items["items"][0] == {"key": "2026-01-04", "state": "succeeded", "run_id": retried.run_id, "round": 1}
    assert items["next"] == 3
    listed = (await http("GET", "/v1/backfills?deployment=some")).json()["backfills"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert (await http("POST", f"/v1/backfills/{made['id']}/pause", {})).status == 409


async def _view(http: Http, id: str) -> Any:
    return (await http("GET", f"/v1/backfills/{id}")).json()


async def test_partitions_have_the_state_of_their_latest_run(platform: Platform, http: Http) -> None:
    await deploy(http, "states")
    listed = (await http("GET", "/v1/deployments/states/partitions?limit=3")).json()
    assert (listed["total"], listed["next"], listed["by"], listed["tz"]) == (10, 3, "day", "Europe/Paris")
    assert listed["counts"] == {"missing": 10, "running": 0, "succeeded": 0, "failed": 0}
    assert [one["key"] for one in listed["partitions"]] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    run_id = (await http("POST", "/v1/deployments/states/runs", {"partition": "2026-01-02"})).json()["run_id"]
    assert await state(http, "states", "2026-01-02") == "running"
    await platform.finish(run_id, Outcome.FAILED)
    await until(lambda: state(http, "states", "2026-01-02"), lambda found: found == "failed")
    # A rerun computes the same partition.
    again = (await http("POST", f"/v1/runs/{run_id}/rerun")).json()["run_id"]
    await platform.finish(again)
    await until(lambda: state(http, "states", "2026-01-02"), lambda found: found == "succeeded")
    one = (await http("GET", "/v1/deployments/states/partitions/2026-01-02")).json()
    assert (one["run_id"], one["runs"]) == (again, 2)
    listed = (await http("GET", "/v1/deployments/states/partitions?first=9")).json()
    assert listed["counts"] == {"missing": 9, "running": 0, "succeeded": 1, "failed": 0}
    assert (len(listed["partitions"]), listed["next"]) == (1, None)

    for only, expected in ((["missing"], 9), (["failed"], None), (["missing", "failed"], 9)):
        body = {"all": True, "only": only, "dry_run": True}
        answer = await backfill(http, "states", body, 200 if expected else 422)
        assert expected is None or (answer["total"], answer["id"]) == (expected, "")


async def test_a_request_that_is_sent_again_starts_one_backfill(platform: Platform, http: Http) -> None:
    await deploy(http, "idempotent")
    body = {"deployment": "idempotent", "partitions": ["2026-01-01"]}
    answers = [await http("POST", "/v1/backfills", body, headers={"idempotency-key": "b-1"}) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 200]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[0].headers["location"] == f"/v1/backfills/{answers[0].json()['id']}"
    other = {**body, "partitions": ["2026-01-02"]}
    assert (await http("POST", "/v1/backfills", other, headers={"idempotency-key": "b-1"})).status == 409
    assert len(await started(platform, "idempotent")) == 1


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        ({}, "from", "nothing is selected"),
        ({"from": "2026-01-01", "all": True}, "from", "one way only"),
        ({"from": "2027-01-01"}, "from", "no partition"),
        ({"from": "soon"}, "from", "not a date"),
        ({"partitions": ["2026-02-01"]}, "partitions", "after the last partition"),
        ({"partitions": ["x"]}, "partitions", "there is no partition 'x'"),
        ({"all": True, "trigger": "cron"}, "trigger", "has partitions"),
    ],
)
async def test_a_selection_that_is_not_valid_is_refused(http: Http, body: Any, field: str, text: str) -> None:
    await deploy(http, "refused")
    answer = await http("POST", "/v1/backfills", {"deployment": "refused", **body})
    assert (answer.status, answer.fields) == (422, {field})
    assert text in answer.json()["detail"]


async def test_unknown_deployments_backfills_and_partitions_are_not_found(http: Http) -> None:
    await deploy(http, "found")
    await deploy(http, "plain", None)
    assert (await http("POST", "/v1/backfills", {"deployment": "unknown", "all": True})).status == 404
    assert (await http("GET", "/v1/backfills/unknown")).status == 404
    assert (await http("POST", "/v1/backfills/unknown/cancel", {})).status == 404
    assert (await http("GET", "/v1/deployments/unknown/partitions")).status == 404
    assert (await http("GET", "/v1/deployments/found/partitions/2020-01-01")).status == 404
    assert (await http("GET", "/v1/deployments/plain/partitions")).status == 422
    assert (await http("POST", "/v1/deployments/found/partitions", {"keys": ["a"]})).status == 422
    given = {"partition": "2026-01-01", "inputs": {"label": "x"}}
    answer = await http("POST", "/v1/deployments/found/runs", given)
    assert (answer.status, answer.fields) == (422, {"inputs.label"})
    assert (await http("POST", "/v1/deployments/found/runs", {"partition": "2020-01-01"})).status == 422
    assert (await http("POST", "/v1/deployments/plain/runs", {"partition": "2020-01-01"})).status == 422


async def test_a_deployment_whose_partitions_do_not_fit_the_pipeline_is_refused(http: Http) -> None:
    async def fields(**partitions: Any) -> set[str]:
        definition = {"pipeline": "chain", "partitions": {**DAYS, **partitions}}
        answer = await http("PUT", "/v1/deployments/unfit", {"definition": definition})
        assert answer.status == 422, answer.json()
        return answer.fields

    assert await fields(inputs={"n": "key"}) == {"inputs.n"}
    assert await fields(inputs={"n": "key", "unknown": "key"}) == {"inputs.n", "partitions.inputs.unknown"}
    assert await fields(tz="Mars/Base") == {"partitions.tz"}
    assert await fields(every="day") == {"partitions.every"}
    assert await fields(start=5) == {"partitions.start"}


async def test_pause_resume_and_cancel_with_the_active_runs(platform: Platform, http: Http) -> None:
    await deploy(http, "changed")
    id = (await backfill(http, "changed", {"all": True, "max_active": 1, "order": "newest"}))["id"]
    [first] = await started(platform, "changed")
    assert first.trigger["partition"] == "2026-01-10"
    assert (await http("POST", f"/v1/backfills/{id}/pause", {"reason": "later"})).json()["status"] == "paused"
    await platform.finish(first.run_id)
    await until(lambda: counts(http, id), lambda found: found.get("succeeded") == 1)
    assert len(await runs(platform, "changed")) == 1
    assert (await http("POST", f"/v1/backfills/{id}/resume", {})).json()["status"] == "running"
    second = (await started(platform, "changed", 2))[1]
    cancelled = (await http("POST", f"/v1/backfills/{id}/cancel", {"runs": True})).json()
    assert cancelled["status"] == "cancelling"

    async def requests() -> list[Any]:
        return [record.fact for record in await platform.log.read(second.run_id)]

    facts = await until(requests, lambda found: len(found) == 2)
    assert isinstance(facts[1], CancelRequested)
    assert facts[1].by == "token:default"
    await platform.finish(second.run_id, Outcome.CANCELLED)
    await until(lambda: _view(http, id), lambda found: bool(found["status"] == "cancelled"))
    assert len(await runs(platform, "changed")) == 2


async def test_past_ticks_of_a_cron_trigger_run_with_their_times(platform: Platform, http: Http) -> None:
    trigger = {
        "kind": "cron",
        "name": "c",
        "cron": "0 3 * * *",
        "tz": "Europe/Paris",
        "inputs": {"label": "event.time"},
    }
    await deploy(http, "ticks", None, trigger)
    body = {"from": "2026-03-28", "to": "2026-03-30T03:00"}
    dry = await backfill(http, "ticks", {**body, "dry_run": True}, 200)
    assert dry["keys"] == ["2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"]
    made = await backfill(http, "ticks", body)
    found = await started(platform, "ticks", 3)
    assert found[0].inputs["label"].value == "2026-03-28T02:00:00.000Z"  # type: ignore[union-attr]
    assert [run.trigger["tick"] for run in found] == dry["keys"]
    for run in found:
        await platform.finish(run.run_id)
    await until(lambda: _view(http, made["id"]), lambda view: bool(view["status"] == "succeeded"))
    for wrong in ({"all": True}, {"from": "2026-01-01"}, {**body, "trigger": "other"}, {"from": "x", "to": "y"}):
        await backfill(http, "ticks", wrong, 422)
    await deploy(http, "no-ticks", None)
    await backfill(http, "no-ticks", body, 422)


async def test_events_add_dynamic_partitions(platform: Platform, http: Http) -> None:
    on = {"kind": "event", "name": "on", "types": ["com.acme.region"], "partition": "data.region"}
    await deploy(http, "regions", {"by": "dynamic", "inputs": {"label": "key"}}, on)
    added = (await http("POST", "/v1/deployments/regions/partitions", {"keys": ["eu", "us"]})).json()
    assert added == {"added": ["eu", "us"]}
    assert (await http("POST", "/v1/deployments/regions/partitions", {"keys": ["us", "eu"]})).json() == {"added": []}
    assert (await http("POST", "/v1/deployments/regions/partitions", {"keys": [" x"]})).status == 422
    event = {"type": "com.acme.region", "source": "s", "id": "1", "data": {"region": "asia"}}
    await http("POST", "/v1/events", event)
    [run] = await started(platform, "regions")
    assert (run.trigger["partition"], run.inputs["label"].value) == ("asia", "asia")  # type: ignore[union-attr]
    listed = (await http("GET", "/v1/deployments/regions/partitions")).json()
    assert [one["key"] for one in listed["partitions"]] == ["eu", "us", "asia"]
    sequence = (await http("POST", "/v1/events", {**event, "id": "2", "data": {"region": 5}})).json()["sequence"]

    async def outcome() -> Any:
        return (await http("GET", f"/v1/events/{sequence}")).json()["decisions"][0]

    rejected = await until(outcome, lambda found: bool(found["outcome"] == "rejected"))
    assert "must be text" in rejected["error"]


async def test_ticks_fill_the_partition_that_ended_last(platform: Platform, http: Http) -> None:
    trigger = {"kind": "cron", "name": "c", "cron": "0 3 * * *", "tz": "Europe/Paris"}
    await deploy(http, "filled", {**DAYS, "end": ""}, trigger)

    async def tick(at: str) -> int:
        event = Event(
            project="default",
            type="penstock.cron.tick.v1",
            source="penstock/cron",
            id=at,
            subject="filled/c",
            data={"scheduled_at": at},
        )
        return (await EventStream(platform.bus).publish(event))[0]

    await tick("2026-01-05T02:00:00.000Z")
    [run] = await started(platform, "filled")
    assert (run.trigger["partition"], run.labels) == ("2026-01-04", {"partition": "2026-01-04"})
    early = await tick("2026-01-01T02:00:00.000Z")

    async def outcome() -> Any:
        return (await http("GET", f"/v1/events/{early}")).json()["decisions"][0]

    rejected = await until(outcome, lambda found: bool(found["outcome"] == "rejected"))
    assert "no partition has ended" in rejected["error"]


async def test_items_that_cannot_run_are_rejected_with_the_error(platform: Platform, http: Http) -> None:
    narrow = ir.Port(name="label", type="str", schema={"type": "string", "enum": ["a", "c"]})
    await platform.add_version(replace(chain("narrow"), params=(ir.Port(name="n", type="int"), narrow)))
    partitions = {"by": "static", "keys": ["a", "b", "c"], "inputs": {"label": "key"}}
    definition = {"pipeline": "narrow", "inputs": {"n": 1}, "partitions": partitions}
    answer = await http("PUT", "/v1/deployments/narrow", {"definition": definition})
    assert answer.status == 200, answer.json()
    id = (await backfill(http, "narrow", {"all": True, "max_active": 1}))["id"]
    [first] = await started(platform, "narrow")
    await platform.finish(first.run_id)
    await platform.finish((await started(platform, "narrow", 2))[1].run_id)
    view = await until(lambda: _view(http, id), lambda found: bool(found["status"] == "failed"))
    assert (view["counts"]["rejected"], view["counts"]["succeeded"], [*view["errors"]]) == (1, 2, ["b"])
    assert "inputs.label" in view["errors"]["b"]
    items = (await http("GET", f"/v1/backfills/{id}/items")).json()["items"]
    assert [(one["state"], one["run_id"] is None) for one in items] == [
        ("succeeded", False),
        ("rejected", True),
        ("succeeded", False),
    ]


async def test_an_end_that_was_missed_is_found_by_the_timer(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "CHECK_INTERVAL", 0.3)
    await deploy(http, "missed")
    monkeypatch.setattr(driver, "_end", lambda event: None)  # events about runs are lost
    id = (await backfill(http, "missed", {"partitions": ["2026-01-01", "2026-01-02", "2026-01-03"], "max_active": 1}))[
        "id"
    ]
    [first] = await started(platform, "missed")
    await platform.finish(first.run_id, Outcome.FAILED)
    second = (await started(platform, "missed", 2))[1]
    await platform.log.append([RunDeleted(run_id=second.run_id, project="default", pipeline="chain", deleted_at=1.0)])
    third = (await started(platform, "missed", 3))[2]
    await platform.finish(third.run_id)
    view = await until(lambda: _view(http, id), lambda found: bool(found["status"] == "failed"))
    assert view["counts"] == {"failed": 1, "deleted": 1, "succeeded": 1, "pending": 0, "active": 0}
    log = await BackfillLog(platform.bus, "test").get("default", id)
    assert log.number <= 5, "a backfill is a small log"


async def test_an_active_item_that_no_longer_exists_ends(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: BackfillItems, number: int) -> str:
        raise InputError("the rules of the time zone have changed")

    monkeypatch.setattr(driver, "CHECK_INTERVAL", 0.3)
    await deploy(http, "vanished")
    id = (await backfill(http, "vanished", {"partitions": ["2026-01-01"]}))["id"]
    await started(platform, "vanished")
    monkeypatch.setattr(BackfillItems, "key", gone)
    view = await until(lambda: _view(http, id), lambda found: bool(found["status"] == "failed"))
    assert view["counts"] == {"rejected": 1, "pending": 0, "active": 0}


async def test_inputs_of_a_backfill_override_those_of_the_deployment(platform: Platform, http: Http) -> None:
    await deploy(http, "given")
    made = await backfill(http, "given", {"partitions": ["2026-01-01", "2026-01-02"], "inputs": {"n": 7}})
    runs = await started(platform, "given", 2)
    assert {run.inputs["n"].value for run in runs} == {7}  # type: ignore[union-attr]
    assert {run.trigger["backfill"] for run in runs} == {made["id"]}
    for inputs, field in (
        ({"label": "x"}, "inputs.label"),
        ({"n": "many"}, "inputs.n"),
        ({"other": 1}, "inputs.other"),
        ({"n": ["x" * 300_000]}, "inputs"),
    ):
        answer = await http("POST", "/v1/backfills", {"deployment": "given", "all": True, "inputs": inputs})
        assert (answer.status, answer.fields) == (422, {field}), answer.body
