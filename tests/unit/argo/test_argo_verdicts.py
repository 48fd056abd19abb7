"""Why the cluster ended an attempt, from objects as the API server shows them."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_adapters.argo import verdicts
from penstock_adapters.argo.views import PodView, WorkflowView, pod_view, workflow_view
from penstock_core.facts import AttemptRequested, Outcome
from penstock_core.pipeline.ir import Resources

Json = dict[str, Any]

ATTEMPT = AttemptRequested(
    run_id="r", key="a", attempt=1, pool="p", project="d", pipeline="x", version=1, entrypoint="m:f",
    resources=Resources(memory=2**30),
)  # fmt: skip
LABELS = {"workflows.argoproj.io/workflow": "penstock-1"}


def workflow(phase: str = "Running", message: str = "", node: str = "") -> WorkflowView:
    nodes = {"penstock-1": {"message": node}} if node else {}
    names = {"penstock.dev/run": "r", "penstock.dev/step": "a", "penstock.dev/attempt": "1"}
    metadata = {"name": "penstock-1", "annotations": names, "creationTimestamp": "2026-11-30T12:00:00Z"}
    return workflow_view({"metadata": metadata, "status": {"phase": phase, "message": message, "nodes": nodes}})


def pod(phase: str = "Running", state: Json | None = None, deleted: bool = False, **status: Any) -> PodView:
    containers = [{"name": "wait", "state": {"running": {}}}]
    containers += [{"name": "main", "state": state}] if state else []
    metadata: Json = {"name": "penstock-1", "uid": "u1", "labels": LABELS}
    if deleted:
        metadata["deletionTimestamp"] = "2026-11-30T12:00:00Z"
    return pod_view({"metadata": metadata, "status": {"phase": phase, "containerStatuses": containers, **status}})


def terminated(code: int, reason: str = "Error", message: str = "") -> Json:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def waiting(reason: str, message: str = "") -> Json:
    return {"waiting": {"reason": reason, "message": message}}


TARGET = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "higher priority"}
QUOTA = 'pods "penstock-1" is forbidden: exceeded quota: small'


@pytest.mark.parametrize(
    ("found", "container", "claimed", "outcome", "kind", "text"),
    [
        (workflow(), pod(state=terminated(137, "OOMKilled")), True, Outcome.FAILED, "OutOfMemory", "1024 MiB"),
        (
            workflow(),
            pod("Pending", waiting("ErrImagePull", "no such host")),
            False,
            Outcome.FAILED,
            "ImagePullFailed",
            "no such host",
        ),
        *(
            (workflow(), pod("Pending", waiting(reason, text)), False, Outcome.FAILED, "ImagePullFailed", text)
            for reason in ("ErrImagePull", "ImagePullBackOff")
            for text in ("registry.example/a:1: not found", "unexpected status: 401 Unauthorized", "access denied")
        ),
        (
            workflow(),
            pod("Pending", waiting("InvalidImageName")),
            False,
            Outcome.FAILED,
            "ImagePullFailed",
            "InvalidImageName",
        ),
        (
            workflow(),
            pod("Pending", waiting("CreateContainerConfigError", "secret x")),
            False,
            Outcome.FAILED,
            "ContainerFailed",
            "secret x",
        ),
        (
            workflow(),
            pod(state=terminated(1, message="a\nNo module named penstock\nError: exit status 1\n")),
            False,
            Outcome.FAILED,
            "RunnerMissing",
            "No module named penstock",
        ),
        (workflow("Failed"), pod("Failed", terminated(143), deleted=True), False, Outcome.LOST, "PodFailed", "143"),
        (None, pod("Failed", terminated(137), deleted=True), False, Outcome.LOST, "WorkflowDeleted", "deleted"),
        (None, None, True, Outcome.LOST, "WorkflowDeleted", "deleted"),
        (
            workflow("Failed"),
            pod("Failed", terminated(137), conditions=[TARGET]),
            True,
            Outcome.LOST,
            "PreemptionByScheduler",
            "higher priority",
        ),
        (
            workflow("Failed"),
            pod("Failed", reason="Evicted", message="low on disk"),
            True,
            Outcome.LOST,
            "Evicted",
            "low on disk",
        ),
        (workflow("Error", node="pod deleted"), None, True, Outcome.LOST, "PodDeleted", "deleted"),
        (
            workflow("Failed", "Max duration limit exceeded"),
            None,
            True,
            Outcome.TIMED_OUT,
            "DeadlineExceeded",
            "Max duration",
        ),
        (
            workflow("Error", node='admission webhook "x" denied the request: no'),
            None,
            False,
            Outcome.FAILED,
            "PodRefused",
            "webhook",
        ),
        (
            workflow("Error", node='pods "x" is forbidden: violates PodSecurity "restricted"'),
            None,
            False,
            Outcome.FAILED,
            "PodRefused",
            "restricted",
        ),
        (workflow("Error", node=QUOTA), None, False, Outcome.LOST, "PodFailed", "quota"),
        (workflow("Succeeded"), pod("Succeeded", terminated(0)), True, Outcome.LOST, "NoReport", "without a report"),
    ],
)
def test_each_end_has_its_reason(
    found: WorkflowView | None, container: PodView | None, claimed: bool, outcome: Outcome, kind: str, text: str
) -> None:
    verdict = verdicts.verdict(ATTEMPT, found, container, claimed=claimed)
    assert verdict is not None and (verdict.outcome, verdict.kind) == (outcome, kind) and text in verdict.message


@pytest.mark.parametrize(
    ("found", "container"),
    [
        (workflow(""), None),
        (workflow("Pending"), pod("Pending", waiting("ContainerCreating"))),
        (workflow(), pod()),
        (workflow(), pod(state={"running": {}}, conditions=[TARGET])),  # it may still report a result
        (workflow(), pod(state=terminated(0, "Completed"))),
    ],
)
def test_an_attempt_that_may_go_on_has_no_verdict(found: WorkflowView, container: PodView | None) -> None:
    assert verdicts.verdict(ATTEMPT, found, container, claimed=True) is None


def test_what_a_pod_waits_for() -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no gpu"}
    assert "no gpu" in verdicts.waiting(workflow(), pod("Pending", conditions=[unschedulable]))
    assert "quota" in verdicts.waiting(workflow("Pending", node=QUOTA), None)
    assert (
        verdicts.waiting(workflow(""), None)
        == verdicts.waiting(None, None)
        == verdicts.waiting(workflow(), pod())
        == ""
    )


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "ImageInspectError"])
@pytest.mark.parametrize(
    "text", ["dial tcp 10.0.0.1:443: i/o timeout", "503 Service Unavailable", "429 Too Many Requests"]
)
def test_an_image_that_may_be_pulled_later_is_waited_for(reason: str, text: str) -> None:
    waits = pod("Pending", waiting(reason, text))
    assert verdicts.verdict(ATTEMPT, workflow(), waits, claimed=False) is None
    assert text in verdicts.waiting(workflow(), waits)
