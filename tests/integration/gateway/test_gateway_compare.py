"""`/v1/compare` on a real broker."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_platform import Http, Platform

from penstock_core.pipeline.values import ArtifactRef, Inline, Stored

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def a_run(platform: Platform, *, loss: float, digit: str = "5", **more: Any) -> str:
    run_id = await platform.request(**more)
    made = ArtifactRef(sha256=digit * 64, size=7, media_type="text/csv", format="file", filename="a.csv")
    outputs = {"result": Stored(made), "long": Inline("x" * 5000 + digit)}
    tags, params = {"stage": "s"}, {"depth": 3}
    await platform.run_step(run_id, "double", outputs, metrics={"loss": loss}, params=params, tags=tags)
    await platform.finish(run_id)
    return run_id


async def compared(http: Http, *run_ids: str, **query: str) -> dict[str, Any]:
    more = "".join(f"&{name}={text}" for name, text in query.items())
    answer = await http("GET", f"/v1/compare?runs={','.join(run_ids)}{more}")
    assert answer.status == 200, answer.json()
    return answer.json()


async def test_only_differences_are_returned_by_default(platform: Platform, http: Http) -> None:
    one = await a_run(platform, loss=0.5, labels={"team": "a"})
    other = await a_run(platform, loss=0.25, digit="6")
    found = await compared(http, one, other)
    assert [run["run_id"] for run in found["runs"]] == [one, other]
    rows = {(row["section"], row["step"], row["name"]): row["values"] for row in found["rows"]}
    long = rows.pop(("outputs", "double", "long"))
    assert all(len(value["value"]["sha256"]) == 64 for value in long)
    assert {name: values for name, values in rows.items() if name[0] != "durations"} == {
        ("tags", "", "team"): [{"value": "a"}, None],
        ("metrics", "double", "loss"): [{"value": 0.5}, {"value": 0.25}],
        ("outputs", "double", "result"): [{"value": {"artifact": "5" * 64}}, {"value": {"artifact": "6" * 64}}],
    }
    assert found["compared"] > len(found["rows"])


async def test_everything_is_returned_on_request(platform: Platform, http: Http) -> None:
    run_id = await a_run(platform, loss=0.5)
    assert (await compared(http, run_id, run_id))["rows"] == []
    found = await compared(http, run_id, run_id, all="true")
    assert len(found["rows"]) == found["compared"]
    assert all(row["same"] for row in found["rows"])
    values = {(row["section"], row["step"], row["name"]): row["values"][0]["value"] for row in found["rows"]}
    assert values["inputs", "", "n"] == 1
    assert values["params", "double", "depth"] == 3
    assert values["tags", "double", "stage"] == "s"
    assert values["environment", "", "python"] == "3.11"
    assert len(values["code", "", "source"]) == 64
    assert values["durations", "double", "seconds"] == 0.5
    assert values["durations", "double", "attempts"] == 1
    assert values["run", "", "state"] == "succeeded"


async def test_comparing_an_unstarted_run_and_one_with_a_deleted_version(platform: Platform, http: Http) -> None:
    one = await platform.request()
    other = await platform.request("gone", version=7)
    rows = (await compared(http, one, other))["rows"]
    assert {(row["section"], row["name"]) for row in rows} >= {("run", "pipeline"), ("code", "source")}


async def test_invalid_comparisons(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    alone = await http("GET", f"/v1/compare?runs={run_id}")
    assert (alone.status, alone.json()["detail"]) == (422, "runs: expected 2 to 20 run IDs separated by commas, got 1")
    assert (await http("GET", "/v1/compare?runs=")).status == 422
    assert (await http("GET", "/v1/compare")).status == 422
    assert (await http("GET", f"/v1/compare?runs={','.join([run_id] * 21)}")).status == 422
    unknown = await http("GET", f"/v1/compare?runs={run_id},nobody")
    assert (unknown.status, unknown.json()["title"]) == (404, "Not found")
    assert unknown.json()["detail"].startswith("Run 'nobody' does not exist")
    assert (await http("GET", f"/v1/compare?runs={run_id},a.b")).status == 404
