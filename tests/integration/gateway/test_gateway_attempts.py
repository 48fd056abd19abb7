"""What attempts were given, over HTTP."""

from __future__ import annotations

import dataclasses

import pytest
from gateway_platform import Http, Platform, attempt_finished, attempt_requested

from penstock_core.facts import ArtifactCommitted, ErrorInfo, Outcome
from penstock_core.pipeline.values import Inline, ResultOf, ResultRef

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_references_are_resolved_and_the_last_checkpoint_of_earlier_attempts_is_found(
    platform: Platform, http: Http
) -> None:
    run_id = await platform.request()
    first, second = (
        dataclasses.replace(
            attempt_requested(run_id, "double-2", number),
            inputs={"n": ResultOf(ResultRef(key="double", attempt=1, output="result"))},
        )
        for number in (1, 2)
    )
    failed = attempt_finished(
        run_id, "double-2", 1, outcome=Outcome.FAILED, error=ErrorInfo(type="ValueError", message="no")
    )
    saved = {
        number: ArtifactCommitted(
            run_id=run_id, key="double-2", attempt=number, name="checkpoint", value=Inline(number), at=1.0
        )
        for number in (1, 2)
    }
    await platform.log.append([attempt_requested(run_id, "double")])
    await platform.log.append([attempt_finished(run_id, "double", outputs={"result": Inline([6, "six"])})])
    for fact in (first, saved[1], failed, second, saved[2]):
        await platform.log.append([fact])
    path = f"/v1/runs/{run_id}/attempt?step=double-2"
    found = (await http("GET", f"{path}&attempt=2")).json()
    assert found["request"]["inputs"] == {"n": {"value": [6, "six"]}}
    assert (found["request"]["attempt"], found["request"]["entrypoint"]) == (2, "steps:double")
    assert found["checkpoint"] == {"value": 1}
    assert found["environment"]["version"] == "3.11" and len(found["source"]) == 64
    assert (await http("GET", f"{path}&attempt=1")).json()["checkpoint"] is None


async def test_attempts_that_do_not_exist(platform: Platform, http: Http) -> None:
    run_id = await platform.request()
    path = f"/v1/runs/{run_id}/attempt"
    answer = await http("GET", f"{path}?step=double-2")
    assert answer.status == 404
    assert answer.json()["detail"] == "Step 'double-2' has no attempt: it is waiting"
    assert (await http("GET", f"{path}?step=nosuch")).status == 404
    assert (await http("GET", path)).status == 422
    assert (await http("GET", f"{path}?step=double&attempt=0")).status == 422
    assert (await http("GET", "/v1/runs/nosuch/attempt?step=double")).status == 404
