"""`/v1/compare` on a real broker."""

from __future__ import annotations

from typing import Any

import pytest
from gateway_platform import Http, Platform

from penstock_core.facts import RunRequested, StepExpanded
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import ArtifactRef, Inline, Items, Param, Stored

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


async def test_items_of_mapped_steps_are_aligned_by_their_inputs(platform: Platform, http: Http) -> None:
    ports = tuple(ir.Port(name=name) for name in ("n", "file", "rate"))
    spec = ir.StepSpec(name="double", entrypoint="steps:double", inputs=ports)
    over = {"n": Param("ns"), "file": Param("files"), "rate": Inline(1)}
    node = ir.Node(key="fit", step="double", inputs=over, mapped=ir.MapSpec(over=("n", "file")))
    params = (ir.Port(name="ns"), ir.Port(name="files"))
    await platform.add_version(ir.Pipeline(name="fits", params=params, steps={"double": spec}, nodes=(node,)))
    file = Stored(ArtifactRef(sha256="5" * 64, size=7, media_type="text/csv", format="file"))

    async def run(ns: list[Any]) -> str:
        run_id = f"fits-{len(ns)}-{ns[0]}"
        given = {"ns": Inline(ns), "files": Items((file,) * len(ns))}
        head = {"project": "default", "pipeline": "fits", "version": 1, "requested_at": 1_700_000_000.0}
        await platform.log.append([RunRequested(run_id=run_id, inputs=given, **head)])
        await platform.log.append([StepExpanded(run_id=run_id, key="fit", count=len(ns))])
        for index, n in enumerate(ns):
            loss = 0.5 if n == "x" else n * 10 if isinstance(n, int) else 1.0
            await platform.run_step(run_id, f"fit[{index}]", {"result": Inline(n)}, metrics={"loss": loss})
        return run_id

    one, other = await run([1, 2, "x", 3]), await run([2, 3, 4, 4, {"a": "y" * 99}])
    rows = (await compared(http, one, other, all="true"))["rows"]
    found = {row["step"]: row["values"] for row in rows if row["section"] == "metrics"}
    digest = "5" * 12
    long = next(name for name in found if "yyy" in name)
    assert len(long) < 100 and "…" in long
    assert found == {
        f"fit[n=1, file={digest}]": [{"value": 10}, None],
        f"fit[n=2, file={digest}]": [{"value": 20}, {"value": 20}],
        f"fit[n=3, file={digest}]": [{"value": 30}, {"value": 30}],
        f"fit[n=4, file={digest}]": [None, {"value": 40}],
        f"fit[n=4, file={digest}] #2": [None, {"value": 40}],
        f'fit[n="x", file={digest}]': [{"value": 0.5}, None],
        long: [None, {"value": 1.0}],
    }


async def test_models_in_inputs_are_compared_by_name_and_version(platform: Platform, http: Http) -> None:
    made = Stored(ArtifactRef(sha256="7" * 64, size=7, media_type="x", format="pickle"))
    head = {"project": "default", "pipeline": "chain", "version": 1, "inputs": {"n": made}}
    for run_id, reference in (("with-1", "churn:1"), ("with-2", "churn:2")):
        await platform.log.append([RunRequested(run_id=run_id, models={"n": reference}, **head)])
    (row,) = [row for row in (await compared(http, "with-1", "with-2"))["rows"] if row["section"] == "inputs"]
    models = [value["value"]["model"] for value in row["values"]]
    assert (row["name"], models) == ("n", ["churn:1", "churn:2"])


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
