"""Dead letters and the stream of events over HTTP, with the triggers service beside the gateway."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from gateway_platform import Http, Platform

pytestmark = pytest.mark.asyncio(loop_scope="module")


def deployment(name: str, expression: str) -> dict[str, Any]:
    trigger = {"kind": "event", "name": "on", "types": [f"com.acme.{name}"], "inputs": {"n": expression}}
    return {"definition": {"pipeline": "chain", "triggers": [trigger]}}


async def letters(http: Http, count: int, **wanted: Any) -> list[dict[str, Any]]:
    """The dead letters with these fields, once there are so many."""
    deadline = time.monotonic() + 60
    while True:
        listed = (await http("GET", "/v1/dead-letters")).json()["dead_letters"]
        found = [one for one in listed if all(one[name] == value for name, value in wanted.items())]
        if len(found) == count:
            return found
        assert time.monotonic() < deadline, listed
        await asyncio.sleep(0.05)


async def outcome(http: Http, event: int, deployment: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        decisions = (await http("GET", f"/v1/events/{event}?deployment={deployment}")).json()["decisions"]
        if decisions and (decisions[0]["run_id"] or decisions[0]["outcome"] == "rejected"):
            return decisions[0]
        assert time.monotonic() < deadline, decisions
        await asyncio.sleep(0.05)


async def test_a_rejected_event_is_replayed_once_to_its_deployment_only(platform: Platform, http: Http) -> None:
    await http("PUT", "/v1/deployments/mapped", deployment("mapped", "data.missing"))
    other = deployment("mapped", "data.rows")
    await http("PUT", "/v1/deployments/beside", other)
    event = {"type": "com.acme.mapped", "source": "s", "id": "1", "data": {"rows": 5}}
    sent = (await http("POST", "/v1/events", event)).json()["sequence"]
    [letter] = await letters(http, 1, deployment="mapped")
    assert (letter["kind"], letter["event"], letter["type"]) == ("rejected", sent, "com.acme.mapped")
    assert "missing" in letter["error"]
    shown = (await http("GET", f"/v1/dead-letters/{letter['id']}")).json()
    assert (shown["data"], shown["headers"]["ce-id"]) == ({"rows": 5}, "1")
    await http("PUT", "/v1/deployments/mapped", deployment("mapped", "data.rows"))
    replay = (await http("POST", f"/v1/dead-letters/{letter['id']}/replay")).json()["event"]
    decided = await outcome(http, replay, "mapped")
    assert decided["outcome"] == "started"
    run = (await http("GET", f"/v1/runs/{decided['run_id']}")).json()
    assert (run["inputs"]["n"], run["trigger"]["event_id"]) == ({"value": 5}, f"1/replay-{letter['id']}")
    assert (await http("GET", f"/v1/events/{replay}?deployment=beside")).json()["decisions"] == []
    assert await letters(http, 0, deployment="mapped") == []
    assert (await http("POST", f"/v1/dead-letters/{letter['id']}/replay")).status == 404


async def test_an_event_that_two_triggers_rejected_is_replayed_to_each(platform: Platform, http: Http) -> None:
    for name in ("left", "right"):
        await http("PUT", f"/v1/deployments/{name}", deployment("both", "data.missing"))
    await http("POST", "/v1/events", {"type": "com.acme.both", "source": "both", "id": "1", "data": {"rows": 5}})
    for name in ("left", "right"):
        [letter] = await letters(http, 1, deployment=name)
        await http("PUT", f"/v1/deployments/{name}", deployment("both", "data.rows"))
        replay = (await http("POST", f"/v1/dead-letters/{letter['id']}/replay")).json()["event"]
        assert (await outcome(http, replay, name))["outcome"] == "started"


async def test_a_replay_that_is_rejected_again_is_another_dead_letter(platform: Platform, http: Http) -> None:
    await http("PUT", "/v1/deployments/twice", deployment("twice", "data.missing"))
    await http("POST", "/v1/events", {"type": "com.acme.twice", "source": "twice", "id": "1", "data": {}})
    [first] = await letters(http, 1, deployment="twice")
    replay = (await http("POST", f"/v1/dead-letters/{first['id']}/replay")).json()["event"]
    [second] = await letters(http, 1, deployment="twice", event=replay)
    assert second["id"] > first["id"]
    assert (await http("DELETE", f"/v1/dead-letters/{second['id']}")).status == 204
    assert await letters(http, 0, deployment="twice") == []
    assert (await http("DELETE", f"/v1/dead-letters/{second['id']}")).status == 404
    # The same event sent again was decided before: no further dead letter.
    await http("POST", "/v1/events", {"type": "com.acme.twice", "source": "twice", "id": "1", "data": {}})
    assert await letters(http, 0, deployment="twice") == []


async def test_an_unreadable_event_is_kept_with_its_headers_and_can_be_sent_again(
    platform: Platform, http: Http
) -> None:
    await platform.bus.publish("events.default.com.acme.broken", b"not JSON", {"ce-id": "1", "ce-source": "s"})
    [letter] = await letters(http, 1, type="com.acme.broken")
    assert (letter["kind"], letter["service"]) == ("unreadable", "triggers")
    shown = (await http("GET", f"/v1/dead-letters/{letter['id']}")).json()
    assert (shown["text"], shown["data"], shown["headers"]) == ("not JSON", None, {"ce-id": "1", "ce-source": "s"})
    await http("POST", f"/v1/dead-letters/{letter['id']}/replay")
    [again] = await letters(http, 1, type="com.acme.broken")
    assert again["id"] != letter["id"]


async def test_only_events_are_replayed(platform: Platform, http: Http) -> None:
    await platform.context.park("runs.00.x.requested", b"{}", "not a fact")
    [letter] = await letters(http, 1, subject="runs.00.x.requested")
    answer = await http("POST", f"/v1/dead-letters/{letter['id']}/replay")
    assert (answer.status, (await http("GET", "/v1/dead-letters/999999999")).status) == (409, 404)


async def test_pages_of_dead_letters(platform: Platform, http: Http) -> None:
    for n in range(3):
        await platform.context.park(f"paged.{n}", b"x", "unreadable")
    first = (await http("GET", "/v1/dead-letters?limit=2")).json()
    rest = (await http("GET", f"/v1/dead-letters?limit=1&before={first['before']}")).json()
    assert [one["subject"] for one in [*first["dead_letters"], *rest["dead_letters"]]] == [
        "paged.2",
        "paged.1",
        "paged.0",
    ]


async def test_events_are_followed_as_they_arrive_and_after_a_reconnection(platform: Platform, http: Http) -> None:
    async def send(type: str, id: str) -> int:
        return (await http("POST", "/v1/events", {"type": type, "source": "s", "id": id, "data": {"n": id}})).json()[
            "sequence"
        ]

    await send("com.acme.tail", "before")
    stream = await http.stream("/v1/events/stream?type=com.acme.tail.*")
    await send("com.acme.other", "1")
    first = await send("com.acme.tail.one", "2")
    found = await stream.next()
    assert found is not None
    assert (found.id, found.data["type"], found.data["data"]) == (first, "com.acme.tail.one", {"n": "2"})
    stream.close()
    second = await send("com.acme.tail.two", "3")
    resumed = await http.stream("/v1/events/stream?type=com.acme.tail.*", first)
    found = await resumed.next()
    assert found is not None
    assert (found.id, found.data["id"]) == (second, "3")
    resumed.close()
