"""Tracked script runs, imported into the log by a gateway on a real broker."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import pytest_asyncio
from gateway_platform import Http, Platform, running

from penstock import track
from penstock.tracking import TrackedRun
from penstock_contracts import subjects
from penstock_core.shipping.script_end import KILLED
from penstock_gateway.tracked import importer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Platform]:
    async with running(tmp_path_factory.mktemp("intake")) as platform:
        yield platform


def record(home: Path, name: str = "my experiment", **params: Any) -> TrackedRun:
    with track(name, params=params or {"depth": 3}, tags={"team": "vision"}, home=home) as run:
        for step, loss in enumerate([1.0, math.nan, 0.25]):
            run.log_metric("loss", loss, step=step)
        run.log_param("rate", 0.5)
        run.log_artifact("model", b"bytes")
    return run


async def messages(platform: Platform, run_id: str) -> tuple[int, int]:
    """Return the numbers of facts and measurements of a run in the streams."""
    counts: list[int] = []
    for stream, subject in (("RUNS", subjects.run_all(run_id)), ("METRICS", subjects.metrics_all(run_id))):
        info = await platform.bus.api(f"STREAM.INFO.{stream}", {"subjects_filter": subject})
        counts.append(sum((info["state"].get("subjects") or {}).values()))
    return counts[0], counts[1]


async def test_a_tracked_script_run_is_a_regular_run(platform: Platform, http: Http) -> None:
    run = await asyncio.to_thread(record, platform.root)
    page = (await http("GET", "/v1/runs?pipeline=my-experiment&param=depth=3&label=team=vision&metric=loss<0.5")).json()
    (row,) = page["runs"]
    assert (row["run_id"], row["state"], row["version"], row["trigger"]["type"]) == (
        run.run_id,
        "succeeded",
        0,
        "script",
    )
    assert row["trigger"]["name"] == "my experiment"
    assert 0 <= row["duration"] < 60
    assert row["started_at"] == row["created_at"] <= row["finished_at"]
    view = (await http("GET", f"/v1/runs/{run.run_id}")).json()
    step = view["steps"]["script"]
    assert (step["state"], step["params"], step["tags"]) == ("succeeded", {"rate": 0.5}, {"team": "vision"})
    assert view["finished_at"] == step["finished_at"]
    assert view["inputs"] == {"depth": {"value": 3}}
    (loss,) = (await http("GET", f"/v1/runs/{run.run_id}/metrics?name=loss")).json()["series"]
    assert [point[2] for point in loss["points"]] == [1.0, "nan", 0.25]
    assert not (platform.root / "tracked" / run.run_id).exists()
    history = (await http("GET", f"/v1/runs/{run.run_id}/history")).body
    assert len(history.splitlines()) == 5
    again = await http("POST", f"/v1/runs/{run.run_id}/rerun", {})
    assert (again.status, again.json()["detail"]) == (
        409,
        "'my-experiment' is a tracked script, which the platform cannot run: run the script again",
    )


async def test_a_tracked_run_can_be_read_by_id_immediately(platform: Platform, http: Http) -> None:
    for path in ("", "/metrics", "/explain"):
        run = await asyncio.to_thread(record, platform.root)
        assert (await http("GET", f"/v1/runs/{run.run_id}{path}")).status == 200, path
    runs = [await asyncio.to_thread(record, platform.root, depth=n) for n in range(2)]
    rows = (await http("GET", f"/v1/compare?runs={','.join(run.run_id for run in runs)}")).json()["rows"]
    assert {(row["section"], row["name"]) for row in rows if row["section"] != "durations"} == {("inputs", "depth")}


async def test_importing_a_folder_twice_gives_one_run(platform: Platform, http: Http, tmp_path: Path) -> None:
    run = await asyncio.to_thread(record, platform.root)
    folder = platform.root / "tracked" / run.run_id
    shutil.copytree(folder, tmp_path / "kept")
    assert (await http("GET", f"/v1/runs/{run.run_id}")).status == 200
    once = await messages(platform, run.run_id)
    shutil.copytree(tmp_path / "kept", folder)
    views = await asyncio.gather(*(http("GET", f"/v1/runs/{run.run_id}") for _ in range(5)))
    assert {view.status for view in views} == {200}
    assert not folder.exists()
    assert await messages(platform, run.run_id) == once == (4, 1)


async def test_an_interrupted_import_is_repeated(platform: Platform, http: Http, tmp_path: Path) -> None:
    run = await asyncio.to_thread(record, platform.root)
    folder = platform.root / "tracked" / run.run_id
    shutil.copytree(folder, tmp_path / "kept")
    assert (await http("GET", f"/v1/runs/{run.run_id}")).status == 200
    # As if the gateway had been killed after the first of the facts.
    tails = ["step.script.1.requested.script", "step.script.1.finished", "finished"]
    for tail in tails:
        await platform.bus.api("STREAM.PURGE.RUNS", {"filter": subjects.run(run.run_id, tail)})
    shutil.copytree(tmp_path / "kept", folder)
    assert (await http("GET", f"/v1/runs?id={run.run_id}")).json()["runs"][0]["state"] == "succeeded"
    assert (await messages(platform, run.run_id))[0] == 4


SCRIPT = """
    import os, sys, time
    from penstock import track
    with track("killed", params={"a": 1}, home=sys.argv[1]) as run:
        run.log_metric("loss", 0.5, step=1)
        run.log_metric("odd", float("inf"))
        run.log_param("rate", 0.1)
        run.set_tag("stage", "s")
        run.log_artifact("note", {"a": 1})
        print(run.run_id, flush=True)
        time.sleep(600)
"""


async def test_running_scripts_are_not_imported_and_killed_ones_failed(platform: Platform, http: Http) -> None:
    command = [sys.executable, "-c", dedent(SCRIPT), str(platform.root)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    run_id = (await asyncio.wait_for(process.stdout.readline(), 120)).decode().strip()
    assert (await http("GET", f"/v1/runs/{run_id}")).status == 404
    assert (platform.root / "tracked" / run_id).exists()
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    view = (await http("GET", f"/v1/runs/{run_id}")).json()
    assert (view["state"], view["error"]) == ("failed", KILLED)
    step = view["steps"]["script"]
    assert (step["metrics"], step["params"], step["tags"]) == ({"loss": 0.5}, {"rate": 0.1}, {"stage": "s"})
    assert step["artifacts"]["note"] == {"value": {"a": 1}}
    found = (await http("GET", f"/v1/runs/{run_id}/metrics")).json()
    assert {one["name"] for one in found["series"]} == {"loss", "odd"}


async def test_an_incomplete_last_line_is_ignored(platform: Platform, http: Http) -> None:
    run = await asyncio.to_thread(record, platform.root)
    folder = platform.root / "tracked" / run.run_id
    with (folder / "run.points").open("ab") as file:
        file.write(b'["loss",3,17')
    (folder / "end.json").unlink()
    view = (await http("GET", f"/v1/runs/{run.run_id}")).json()
    assert (view["state"], view["steps"]["script"]["metrics"]) == ("failed", {"loss": 0.25})
    (loss,) = (await http("GET", f"/v1/runs/{run.run_id}/metrics")).json()["series"]
    assert loss["count"] == 3


async def test_many_runs_are_imported_over_several_scans(
    platform: Platform, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [await asyncio.to_thread(record, platform.root, "many") for _ in range(4)]
    monkeypatch.setattr(importer, "PATIENCE", -1.0)
    assert (await http("GET", "/v1/runs?pipeline=many")).json()["runs"] == []
    monkeypatch.setattr(importer, "PATIENCE", 1e-6)
    assert (await http("GET", f"/v1/runs/{runs[3].run_id}")).status in (200, 404)
    monkeypatch.setattr(importer, "PATIENCE", 60.0)
    assert len((await http("GET", "/v1/runs?pipeline=many")).json()["runs"]) == 4


async def test_unusable_folders_are_set_aside(platform: Platform, http: Http) -> None:
    root = platform.root / "tracked"
    spoilt: list[str] = []
    for spoil in (
        lambda folder: (folder / "end.json").write_text("{"),
        lambda folder: (folder / "end.json").write_text('{"outcome": "lost"}'),
        lambda folder: (folder / "begin.json").write_text("[]"),
        lambda folder: _change(folder / "begin.json", run_id="another"),
        lambda folder: _change(folder / "begin.json", name=""),
        lambda folder: _change(folder / "end.json", artifacts={"x": {"odd": 1}}),
        lambda folder: _change(folder / "end.json", metrics={"x": "text"}),
        lambda folder: (folder / "about.json").write_text('{"environment": 3}'),
    ):
        run = await asyncio.to_thread(record, platform.root)
        spoil(root / run.run_id)
        spoilt.append(run.run_id)
    (root / "not a run").mkdir()
    (root / "file").write_text("x")
    (root / "empty").mkdir()
    good = await asyncio.to_thread(record, platform.root, "good one")
    page = (await http("GET", "/v1/runs?pipeline=good-one")).json()
    assert [row["run_id"] for row in page["runs"]] == [good.run_id]
    for run_id in spoilt:
        assert (await http("GET", f"/v1/runs/{run_id}")).status == 404
        assert (root / f"{run_id}.unusable").is_dir()
    (root / "file").unlink()


def _change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
