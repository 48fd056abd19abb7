"""What the executor keeps of Workflows and pods: a few fields of objects that have thousands of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from penstock_adapters.argo import manifest
from penstock_core.shipping.messages import AttemptKey

Json = dict[str, Any]

_COMPLETED = ("Succeeded", "Failed", "Error")


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """A Workflow. `created` is in Unix seconds; `work_class` is that of its pod, empty if it is unknown."""

    name: str
    attempt: AttemptKey | None
    work_class: str
    phase: str
    message: str
    created: float

    @property
    def completed(self) -> bool:
        """Whether Argo has finished it."""
        return self.phase in _COMPLETED


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of a Workflow.

    Attributes:
        waiting: reason and message of a container that cannot start.
        terminated: reason, exit code and message of the step's container.
        disruption: reason and message, if the cluster ends the pod: an eviction, a preemption, a lost node.
        unschedulable: why no node takes it.
        deleted: whether somebody has deleted it; it may still be ending.
    """

    name: str
    uid: str
    workflow: str
    phase: str
    node: str
    waiting: tuple[str, str] | None = None
    terminated: tuple[str, int, str] | None = None
    disruption: tuple[str, str] | None = None
    unschedulable: str = ""
    deleted: bool = False

    @property
    def ended(self) -> bool:
        """Whether none of its processes runs."""
        return self.phase in ("Succeeded", "Failed")


def workflow_view(item: Json) -> WorkflowView:
    """Read a Workflow."""
    metadata, status = item["metadata"], item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    return WorkflowView(
        name=metadata["name"],
        attempt=manifest.attempt_of(annotations),
        work_class=annotations.get(manifest.CLASS, ""),
        phase=status.get("phase") or "",
        message=_message_of(status),
        created=datetime.fromisoformat(metadata["creationTimestamp"]).timestamp(),
    )


def pod_view(item: Json) -> PodView:
    """Read a pod."""
    metadata, status = item["metadata"], item.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    conditions = {one["type"]: one for one in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled", {})
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        workflow=(metadata.get("labels") or {}).get(manifest.WORKFLOW, ""),
        phase=status.get("phase") or "",
        node=(item.get("spec") or {}).get("nodeName") or "",
        waiting=next((found for one in containers if (found := _waiting(one)) is not None), None),
        terminated=next((_terminated(one) for one in containers if one["name"] == manifest.MAIN), None),
        disruption=_disruption(status, conditions),
        deleted="deletionTimestamp" in metadata,
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
    )


def _message_of(status: Json) -> str:
    """Return the message of the Workflow, or that of its step, which is more precise."""
    nodes = [node.get("message") for node in (status.get("nodes") or {}).values() if node.get("message")]
    return str(nodes[0] if nodes else status.get("message") or "")[:2000]


def _waiting(container: Json) -> tuple[str, str] | None:
    waiting = (container.get("state") or {}).get("waiting")
    if not waiting or waiting.get("reason") in (None, "PodInitializing", "ContainerCreating"):
        return None
    return waiting["reason"], str(waiting.get("message") or "")[:2000]


def _terminated(container: Json) -> tuple[str, int, str] | None:
    found = (container.get("state") or {}).get("terminated")
    if not found:
        return None
    return found.get("reason") or "", int(found.get("exitCode", 0)), str(found.get("message") or "")[-2000:]


def _disruption(status: Json, conditions: dict[str, Json]) -> tuple[str, str] | None:
    target = conditions.get("DisruptionTarget", {})
    if target.get("status") == "True":
        return target.get("reason") or "Disrupted", str(target.get("message") or "")[:500]
    if status.get("reason"):  # Evicted, NodeLost, Terminated, …
        return status["reason"], str(status.get("message") or "")[:500]
    return None
