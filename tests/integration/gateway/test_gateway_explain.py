"""Explanations of step states over HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest
from gateway_platform import Http, Platform, attempt_finished, attempt_requested, attempt_started, chain

from penstock_core.facts import CancelRequested, ErrorInfo, Outcome, StepSkipped

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def explained(http: Http, run_id: str) -> dict[str, Any]:
    answer = await http("GET", f"/v1/runs/{run_id}/explain")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    whole = answer.json()
    assert abs(whole["at"] - time.time()) < 5
    assert (whole["run_id"], whole["pipeline"], whole["version"]) == (run_id, "chain", 1)
    return {"state": whole["state"], **{step["key"]: step for step in whole["steps"]}}


async def test_reasons_follow_the_state_of_the_run(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    found = await explained(http, run_id)
    assert found["state"] == "queued" and list(found) == ["state", "double", "double-2"]
    assert "no scheduler is running" in found["double"]["sentence"]
    assert found["double-2"]["caused_by"] == ["double"]

    before = time.time()
    await platform.log.append([attempt_requested(run_id, "double")])
    one = (await explained(http, run_id))["double"]
    assert one["state"] == "queued" and "no executor of pool 'default' has started it yet" in one["sentence"]
    assert before - 1 < one["since"] < time.time() + 1, "the log's own time"

    await platform.log.append([attempt_started(run_id, "double")])
    found = await explained(http, run_id)
    assert found["double"]["sentence"].startswith("attempt 1 runs on executor-1 for")
    assert found["double"]["since"] == 1_700_000_001.5
    assert found["double-2"]["sentence"] == "waits for step 'double' (running)"

    error = ErrorInfo(type="ValueError", message="boom")
    await platform.log.append([attempt_finished(run_id, "double", outcome=Outcome.FAILED, error=error)])
    await platform.log.append([StepSkipped(run_id=run_id, key="double-2", reason="why not", cause="double")])
    await platform.finish(run_id, Outcome.FAILED)
    found = await explained(http, run_id)
    assert found["state"] == "failed"
    assert "ValueError: boom (retries used: 0 of 0; 1 failure)" in found["double"]["sentence"]
    assert found["double-2"]["sentence"] == "never ran: why not: ValueError: boom"
    assert found["double-2"]["caused_by"] == ["double"]


async def test_a_retry_is_queued_since_its_own_request(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.log.append([attempt_requested(run_id, "double")])
    first = (await explained(http, run_id))["double"]["since"]
    lost = attempt_finished(run_id, "double", outcome=Outcome.LOST)
    await platform.log.append([lost, attempt_requested(run_id, "double", attempt=2)])
    one = (await explained(http, run_id))["double"]
    assert one["since"] > first and "attempt 2 is queued" in one["sentence"] and "1 loss" in one["sentence"]


async def test_the_principal_that_cancelled_is_named(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    await platform.log.append([CancelRequested(run_id=run_id, by="ada", reason="wrong data")])
    assert "cancelled by ada: wrong data" in (await explained(http, run_id))["double-2"]["sentence"]


async def test_a_run_with_many_steps_is_explained_completely(platform: Platform, http: Http) -> None:
    await platform.add_version(chain("long", 400))
    answer = await http("GET", f"/v1/runs/{await platform.request('long')}/explain")
    assert len(answer.json()["steps"]) == 400


async def test_an_unknown_run_is_not_found(http: Http) -> None:
    assert (await http("GET", "/v1/runs/nothing/explain")).status == 404
    assert (await http("GET", "/v1/runs/a.*.b/explain")).status == 404
