"""`/v1/runs/{id}/metrics` on a real broker: summaries, charts, pages, and invalid messages and queries."""

from __future__ import annotations

import asyncio
import math
from urllib.parse import quote

import pytest
from gateway_platform import Http, Platform

from penstock_contracts import subjects
from penstock_core.queries.series import Point
from penstock_core.shipping.messages import measurements

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def measured(
    platform: Platform, run_id: str, points: list[Point], *, first: int = 0, step: str = "double", attempt: int = 1
) -> None:
    """Publish measurements as an executor does."""
    body = measurements(run_id, step, attempt, first, points)
    await platform.bus.publish(subjects.metrics(run_id, step, attempt), body)


def line(name: str, *values: float, begin: int = 0) -> list[Point]:
    return [Point(name, begin + n, 1000.0 + begin + n, value) for n, value in enumerate(values)]


async def test_summaries_and_points(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await measured(platform, run_id, line("loss", 4.0, math.nan, 1.0) + line("acc", 0.5))
    await measured(platform, run_id, line("loss", math.inf, 2.0, begin=3), first=4)
    found = (await http("GET", f"/v1/runs/{run_id}/metrics")).json()
    assert [
        (one["name"], one["step"], one["count"], one["min"], one["max"], one["last"]) for one in found["series"]
    ] == [
        ("acc", "double", 1, 0.5, 0.5, 0.5),
        ("loss", "double", 5, 1.0, "inf", 2.0),
    ]
    assert all(one["points"] is None for one in found["series"])
    assert (found["lag"], found["more"], found["next"]) == (0, False, None)
    (loss,) = (await http("GET", f"/v1/runs/{run_id}/metrics?name=loss")).json()["series"]
    assert [point[0] for point in loss["points"]] == [0, 1, 2, 3, 4]
    assert [point[2] for point in loss["points"]] == [4.0, "nan", 1.0, "inf", 2.0]
    assert loss["thinned"] is False


async def test_a_long_series_is_downsampled_or_paged(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    for begin in range(0, 6000, 2000):
        values = [float(n) if n != 3333 else -1.0 for n in range(begin, begin + 2000)]
        await measured(platform, run_id, line("loss", *values, begin=begin), first=begin)
    (thin,) = (await http("GET", f"/v1/runs/{run_id}/metrics?name=loss&points=50")).json()["series"]
    assert (thin["count"], thin["thinned"]) == (6000, True)
    assert 20 <= len(thin["points"]) <= 50
    assert {-1.0, 0.0, 5999.0} <= {point[2] for point in thin["points"]}
    whole: list[int] = []
    after = ""
    while True:
        page = (await http("GET", f"/v1/runs/{run_id}/metrics?name=loss&limit=1700{after}")).json()
        whole += [point[0] for point in page["series"][0]["points"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert whole == list(range(6000))


async def test_the_last_attempt_and_items(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await measured(platform, run_id, line("loss", 1.0))
    await measured(platform, run_id, line("loss", 2.0), attempt=2)
    await measured(platform, run_id, line("loss", 3.0), step="train[3]")
    both = (await http("GET", f"/v1/runs/{run_id}/metrics?name=loss")).json()["series"]
    assert [(one["step"], one["attempt"]) for one in both] == [("double", 2), ("train[3]", 1)]
    (item,) = (await http("GET", f"/v1/runs/{run_id}/metrics?step={quote('train[3]')}")).json()["series"]
    assert item["last"] == 3.0
    (first,) = (await http("GET", f"/v1/runs/{run_id}/metrics?name=loss&step=double&attempt=1")).json()["series"]
    assert first["last"] == 1.0
    several = await http("GET", f"/v1/runs/{run_id}/metrics?name=loss&limit=5")
    assert several.status == 422
    assert "'double', 'train[3]'" in several.json()["detail"]


async def test_invalid_queries(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await measured(platform, run_id, line("loss", 1.0))
    missing = await http("GET", f"/v1/runs/{run_id}/metrics?name=los")
    assert (missing.status, missing.json()["detail"]) == (404, "The run has no series 'los': it has: 'loss'")
    assert (await http("GET", "/v1/runs/nobody/metrics")).status == 404
    for query in (
        "points=5",
        "limit=5",
        "name=loss&points=5&limit=5",
        "name=loss&points=1",
        "name=loss&points=1000000",
        "name=loss&after=x",
        "name=loss&after=9999999999999999999999.1",
        "step=a.b",
        "attempt=0",
        f"name={'x' * 201}",
    ):
        assert (await http("GET", f"/v1/runs/{run_id}/metrics?{query}")).status == 422, query
    empty = await platform.request()
    assert (await http("GET", f"/v1/runs/{empty}/metrics")).json()["series"] == []


async def test_an_invalid_message_is_parked_and_the_others_are_stored(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    subject = subjects.metrics(run_id, "double", 1)
    good = measurements(run_id, "double", 1, 0, line("loss", 1.0))
    await platform.bus.publish(subject, b"\xff no json")
    await platform.bus.publish(subject, good.replace(b'"name":[0]', b'"name":[7]'))
    await platform.bus.publish(subject, good.replace(b'"value":[1.0]', b'"value":[]'))
    await platform.bus.publish(subjects.metrics(run_id, "double", 2), good)
    await platform.bus.publish(subject, good)
    found = (await http("GET", f"/v1/runs/{run_id}/metrics")).json()
    assert [(one["name"], one["attempt"], one["count"]) for one in found["series"]] == [("loss", 1, 1)]
    async with asyncio.timeout(30):
        while (await platform.bus.api("STREAM.INFO.PARKED"))["state"]["messages"] < 4:
            await asyncio.sleep(0.05)


async def test_series_are_rebuilt_from_their_stream(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await measured(platform, run_id, line("loss", 1.0, 2.0))
    before = (await http("GET", f"/v1/runs/{run_id}/metrics?name=loss")).json()
    assert before["series"][0]["count"] == 2
    assert (await http("POST", "/v1/admin/rebuild")).status == 202
    assert (await http("GET", f"/v1/runs/{run_id}/metrics?name=loss")).json() == before


async def test_runs_can_be_filtered_by_step_tags(platform: Platform, http: Http) -> None:
    run_id = await platform.request("tagged")
    await platform.run_step(run_id, "double", tags={"stage": "candidate"})
    page = (await http("GET", "/v1/runs?pipeline=tagged&label=stage=candidate")).json()
    assert [run["run_id"] for run in page["runs"]] == [run_id]
    assert (await http("GET", "/v1/runs?pipeline=tagged&label=stage=other")).json()["runs"] == []


async def test_run_views_include_step_tags(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.run_step(run_id, "double", tags={"stage": "candidate"})
    view = (await http("GET", f"/v1/runs/{run_id}")).json()
    assert view["steps"]["double"]["tags"] == {"stage": "candidate"}
