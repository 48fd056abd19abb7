"""`/v1/script-runs`: what scripts with `penstock.track()` send while they run."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from penstock_contracts.script_runs import ScriptEndBody, ScriptRecordsBody, ScriptRunBody, ScriptRunState
from penstock_core.access import Permission
from penstock_gateway.http.bodies import JsonRoute
from penstock_gateway.http.parameters import NAMED, RunId, feature, requires
from penstock_gateway.http.principal import By
from penstock_gateway.http.responses import BODY, COMMON, problems
from penstock_gateway.script_runs.script_run_service import ScriptRuns

router = APIRouter(prefix="/v1/script-runs", tags=["runs"], route_class=JsonRoute, responses=COMMON)

_CREATE = [requires(Permission.RUNS_CREATE)]
NewRunId = Annotated[str, Path(description="ID of the run, which the script chooses", json_schema_extra=NAMED)]
Runs = Annotated[ScriptRuns, feature(ScriptRuns)]


@router.put("/{run_id}", summary="Start a run of a script", dependencies=_CREATE, responses=problems(409, *BODY))
async def begin_script_run(runs: Runs, by: By, run_id: NewRunId, body: ScriptRunBody) -> ScriptRunState:
    """The script runs elsewhere and chooses the ID. Sending the same again is idempotent."""
    return await runs.begin(run_id, body, by)


@router.post(
    "/{run_id}/records", summary="Record what a script logged", dependencies=_CREATE, responses=problems(404, *BODY)
)
async def record_script(runs: Runs, run_id: RunId, body: ScriptRecordsBody) -> ScriptRunState:
    """Adds metrics, parameters, tags, artifacts and progress to a running script's run.

    After the end of the run, nothing is recorded; the response has its state.
    """
    return await runs.record(run_id, body)


@router.put("/{run_id}/end", summary="End a run of a script", dependencies=_CREATE, responses=problems(404, *BODY))
async def end_script_run(runs: Runs, run_id: RunId, body: ScriptEndBody) -> ScriptRunState:
    """Ends the run with the script's last values. The first end counts."""
    return await runs.end(run_id, body)
