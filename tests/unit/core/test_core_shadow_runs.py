"""Shadow runs, which repeat what happened, have no effect on anything but themselves."""

from __future__ import annotations

from dataclasses import replace

from penstock_core.deployments.active_runs import DeploymentLimit
from penstock_core.facts import CacheMode, Registration, RunRequested, StepEvent, StepSuspended
from penstock_core.pipeline.ir import Kind
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.requests import Target
from penstock_core.run import child_runs, effects
from penstock_scheduler.limits import admission_request
from penstock_testkit.run_driver import OK, RUN, RunDriver, end, node, pipeline

SHADOW = replace(RUN, shadow=True)
FLOW = pipeline(node("train"), node("last", "train"))
LIMITED = replace(FLOW, max_active=1)
MODELS = (Registration(model="churn", artifact=ArtifactRef(sha256="a" * 64, size=1, media_type="x", format="pickle")),)
EVENTS = (StepEvent(type="com.acme.ready"),)


def test_a_shadow_run_registers_no_models_and_publishes_no_events() -> None:
    for request, expected in ((RUN, 2), (SHADOW, 0)):
        driver = RunDriver(FLOW, request)
        driver.effects()
        driver(replace(end("train"), models=MODELS, events=EVENTS))
        driver(end("last"))
        found = [one for one in driver.effects() if isinstance(one, effects.RegisterModels | effects.PublishEvents)]
        assert len(found) == expected
        assert driver.finished.outcome is OK


def test_a_shadow_run_is_no_active_run_of_its_pipeline() -> None:
    driver = RunDriver(LIMITED, SHADOW)
    assert driver.effects() == []
    driver(end("train"), end("last"))
    assert driver.finished.outcome is OK
    assert driver.effects() == []
    limit = DeploymentLimit(deployment="nightly", most=1)
    assert admission_request(replace(SHADOW, deployment_limit=limit), LIMITED, 1.0) is None
    assert RunDriver(FLOW, replace(SHADOW, deployment_limit=limit)).effects() == []
    assert admission_request(RUN, LIMITED, 1.0) is not None
    assert RunDriver(LIMITED, RUN).effects() == [effects.AdmitRun()]


def test_a_child_run_of_a_shadow_run_is_one() -> None:
    fact = StepSuspended(run_id="r", key="w", attempt=1, kind=Kind.RUN, project="default", target="training", version=1)
    target = Target(project="default", pipeline=replace(FLOW, name="training", params=()), version=1)
    for shadow in (False, True):
        parent = RunRequested(
            run_id="r", project="default", pipeline="p", version=1, shadow=shadow, cache=CacheMode.OFF
        )
        assert child_runs.build_request(fact, parent, target, {}, 1.0).shadow is shadow
