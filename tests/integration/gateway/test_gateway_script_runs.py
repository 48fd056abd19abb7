"""Runs of scripts that are recorded on another machine and sent to a gateway on a real broker."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import pytest_asyncio
from gateway_platform import TOKEN, Http, Platform, running

from penstock import script_sender
from penstock.client import platform as addresses
from penstock_core.shipping.script_end import KILLED

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUN = "01m8p8e2c6520eyh0yqxm3g51t"

SCRIPT = dedent("""
    import sys
    from penstock import track

    with track("tree depth", params={"depth": 3}, tags={"team": "vision"}) as run:
        run.log_param("solver", "sgd")
        run.log_artifact("model", b"weights")
        for step in range(30):
            run.log_metric("loss", 1 / (1 + step), step=step)
            run.progress(step, 30)
        print(run.run_id, flush=True)
        sys.stdin.readline()
        run.log_metric("loss", 0.0, step=30)
""")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Platform]:
    async with running(tmp_path_factory.mktemp("scripts")) as platform:
        yield platform


class Script:
    """A script that runs until it gets a line."""

    def __init__(self, process: asyncio.subprocess.Process, run_id: str, home: Path) -> None:
        self.process = process
        self.run_id = run_id
        self.folder = home / script_sender.OUTBOX / run_id

    async def end(self) -> str:
        """Let it end; return what it printed on stderr."""
        _, errors = await asyncio.wait_for(self.process.communicate(b"\n"), 60)
        return errors.decode()


async def start(home: Path, url: str) -> Script:
    environment = {**os.environ, "PENSTOCK_URL": url, "PENSTOCK_TOKEN": TOKEN, "PENSTOCK_HOME": str(home)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    )
    assert process.stdout is not None
    run_id = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
    return Script(process, run_id, home)


async def view(http: Http, run_id: str, state: str) -> Any:
    """Return the run once it is in a state."""
    response = None
    for _ in range(600):
        response = await http("GET", f"/v1/runs/{run_id}")
        if response.status == 200 and response.json()["state"] == state:
            return response.json()
        await asyncio.sleep(0.1)
    raise AssertionError(f"{run_id} is not {state}: {response}")


async def points(http: Http, run_id: str, least: int) -> list[float]:
    """Return the values of the metric once there are enough."""
    found: list[float] = []
    for _ in range(600):
        response = await http("GET", f"/v1/runs/{run_id}/metrics?name=loss&points=1000")
        series = response.json()["series"] if response.status == 200 else []
        found = [point[2] for point in series[0]["points"]] if series else []
        if len(found) >= least:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{run_id} has {len(found)} points, not {least}")


def url(platform: Platform) -> str:
    return f"http://127.0.0.1:{platform.gateway.port}"


async def test_a_running_script_is_visible_on_a_platform_elsewhere(
    platform: Platform, http: Http, tmp_path: Path
) -> None:
    script = await start(tmp_path, url(platform))
    run = await view(http, script.run_id, "running")
    assert (run["pipeline"], run["version"], run["inputs"]["depth"]) == ("tree-depth", 0, {"value": 3})
    assert await points(http, script.run_id, 30) == [1 / (1 + step) for step in range(30)]
    step: Any = {}
    for _ in range(600):
        step = (await http("GET", f"/v1/runs/{script.run_id}")).json()["steps"]["script"]
        if step["progress"] and "model" in step["artifacts"]:
            break
        await asyncio.sleep(0.1)
    assert (step["state"], step["progress"]["done"], step["progress"]["total"]) == ("running", 29, 30)
    assert await script.end() == ""
    run = await view(http, script.run_id, "succeeded")
    step = run["steps"]["script"]
    assert (step["metrics"], step["params"]) == ({"loss": 0.0}, {"solver": "sgd"})
    page = (await http("GET", "/v1/runs?label=team=vision&param=depth=3&metric=loss=0")).json()
    assert [row["run_id"] for row in page["runs"]] == [script.run_id]
    assert {"model", "environment"} <= set(step["artifacts"])
    assert len(await points(http, script.run_id, 31)) == 31
    assert not script.folder.exists()


async def test_a_killed_script_has_failed_with_everything_it_logged(
    platform: Platform, http: Http, tmp_path: Path
) -> None:
    script = await start(tmp_path, url(platform))
    script.process.send_signal(signal.SIGKILL)
    await script.process.wait()
    run = await view(http, script.run_id, "failed")
    assert (run["error"], run["steps"]["script"]["params"]) == (KILLED, {"solver": "sgd"})
    assert len(await points(http, script.run_id, 30)) == 30


async def test_a_script_without_its_platform_is_sent_later(
    platform: Platform, http: Http, tmp_path: Path, unused_tcp_port: int
) -> None:
    away = f"http://127.0.0.1:{unused_tcp_port}"
    script = await start(tmp_path, away)
    errors = await script.end()
    assert f"the run {script.run_id} is not sent completely" in errors
    assert "`penstock runs upload` sends it" in errors
    assert script_sender.recorded(tmp_path) == [script.folder]
    assert script_sender.url_of(script.folder) == away
    _end_sender(script.folder)
    address = addresses.Address(url(platform), TOKEN)
    assert await asyncio.to_thread(script_sender.upload, script.folder, tmp_path, address)
    await view(http, script.run_id, "succeeded")
    assert len(await points(http, script.run_id, 31)) == 31
    assert script_sender.recorded(tmp_path) == []


def _end_sender(folder: Path) -> None:
    """Kill the process that still tries to send a run, and wait for it."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"penstock.script_sender" in words and str(folder).encode() in words:
            # /proc/PID/cmdline is empty before the process has closed its files, which hold its lock.
            process = os.pidfd_open(int(path.parent.name))
            try:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                assert select.select([process], [], [], 60)[0]
            finally:
                os.close(process)


async def test_cancelling_a_script_ends_its_run_and_ignores_the_rest(
    platform: Platform, http: Http, tmp_path: Path
) -> None:
    script = await start(tmp_path, url(platform))
    await view(http, script.run_id, "running")
    assert (await http("POST", f"/v1/runs/{script.run_id}/cancel", {"reason": "enough"})).status == 202
    run = await view(http, script.run_id, "cancelled")
    assert run["error"].endswith(": enough")
    assert await script.end() == ""
    assert (await view(http, script.run_id, "cancelled"))["error"] == run["error"]
    assert not script.folder.exists()


BEGIN = {"name": "by hand", "began_at": 1_700_000_000.0}


async def test_each_request_can_be_repeated(http: Http) -> None:
    path = f"/v1/script-runs/{RUN}"
    records = {
        "points": {"first": 0, "items": [["loss", 1, 1_700_000_001.0, 0.5], ["loss", 2, 1_700_000_002.0, "nan"]]}
    }
    end = {"outcome": "succeeded", "finished_at": 1_700_000_003.0, "metrics": {"loss": 0.5}}
    for _ in range(2):
        for method, at, body in (("PUT", path, BEGIN), ("POST", f"{path}/records", records)):
            assert (await http(method, at, body)).json() == {"run_id": RUN, "state": "running"}
    for _ in range(2):
        assert (await http("PUT", f"{path}/end", end)).json()["state"] == "succeeded"
    assert (await http("POST", f"{path}/records", records)).json()["state"] == "succeeded"
    assert (await http("PUT", f"{path}/end", {**end, "outcome": "failed"})).json()["state"] == "succeeded"
    assert len(await points(http, RUN, 2)) == 2
    other = await http("PUT", path, {**BEGIN, "began_at": 1.0})
    assert (other.status, other.json()["title"]) == (409, "Conflict")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/v1/script-runs/a.b", BEGIN, 422),
        ("PUT", "/v1/script-runs/one", {**BEGIN, "name": ""}, 422),
        ("PUT", "/v1/script-runs/one", {**BEGIN, "source": {"sha256": "0" * 64, "size": 1, "filename": "a.py"}}, 422),
        ("POST", "/v1/script-runs/unknown/records", {}, 404),
        ("PUT", "/v1/script-runs/unknown/end", {"outcome": "succeeded", "finished_at": 1.0}, 404),
        ("POST", "{run}/records", {"points": {"first": 0, "items": [["", 1, 1.0, 1.0]]}}, 422),
        ("POST", "{run}/records", {"points": {"first": 2_000_000, "items": [["a", 1, 1.0, 1.0]]}}, 422),
        ("POST", "{run}/records", {"entries": {"first": 0, "items": [{"param": "a"}]}}, 422),
        ("POST", "{run}/records", {"entries": {"first": 0, "items": [{"at": 1.0, "text": 5}]}}, 422),
        ("POST", "{run}/records", {"entries": {"first": 0, "items": [{"at": 1.0, "value": "x" * 600_000}]}}, 413),
        ("POST", "{run}/records", {"progress": {"at": 1.0, "done": 5.0, "total": 1.0}}, 422),
        ("POST", "{run}/records", {"artifacts": [{"at": 1.0, "artifact": "a", "value": {"odd": 1}}]}, 422),
        (
            "POST",
            "{run}/records",
            {
                "artifacts": [
                    {
                        "at": 1.0,
                        "artifact": "a",
                        "value": {
                            "artifact": {"sha256": "0" * 64, "size": 1, "media_type": "text/plain", "format": "bytes"}
                        },
                    }
                ]
            },
            422,
        ),
        ("PUT", "{run}/end", {"outcome": "lost", "finished_at": 1.0}, 422),
        ("PUT", "{run}/end", {"outcome": "failed", "finished_at": 1.0, "error": {"odd": 1}}, 422),
    ],
)
async def test_invalid_requests_are_refused(http: Http, method: str, path: str, body: Any, status: int) -> None:
    run = "/v1/script-runs/01m8p8e2c6520eyh0yqxm3g51u"
    assert (await http("PUT", run, BEGIN)).status == 200
    response = await http(method, path.replace("{run}", run), body)
    assert response.status == status, response
    assert (await http("POST", f"{run}/records", {})).json()["state"] == "running"
