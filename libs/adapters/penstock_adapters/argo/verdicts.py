"""Why the cluster ended an attempt, or what it waits for: pure functions of a Workflow and its pod.

The runner in the pod reports the end itself; a verdict counts only where it did not. What the infrastructure does is
`lost`, so that the scheduler requests another attempt, which is no retry of the user's; what would happen again is
`failed`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock_adapters.argo.views import PodView, WorkflowView
from penstock_core import step_exits
from penstock_core.facts import AttemptRequested, Outcome

_NO_IMAGE = ("InvalidImageName", "ErrImageNeverPull")
_PULLING = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable")
_NEVER_PULLED = re.compile(
    r"not found|manifest unknown|does not exist|no such host|lookup |unauthorized|authentication required"
    r"|authorization failed|denied|forbidden|no match for platform|invalid reference|certificate",
    re.IGNORECASE,
)
"""How registries and nodes say that pulling an image again cannot help, or that the registry has no address.

Kubernetes tries again after anything else.
"""

_NO_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
_REFUSED = ("admission webhook", "violates PodSecurity", "is forbidden", "is invalid", "Invalid value")
_DEADLINE = ("exceeded its deadline", "Max duration limit exceeded", "DeadlineExceeded", "active on the node longer")
_ARGO_LINES = ("time=", "Error: exit status")
"""Beginnings of lines that Argo writes into the log of a step's container."""

QUOTA = "exceeded quota"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of an attempt by the cluster."""

    outcome: Outcome
    kind: str
    message: str


def verdict(
    attempt: AttemptRequested, workflow: WorkflowView | None, pod: PodView | None, *, claimed: bool
) -> Verdict | None:
    """Return how the cluster ended an attempt; None while it may go on.

    Args:
        attempt: the attempt.
        workflow: its Workflow; None if it was deleted.
        pod: its latest pod, in its last state if it was deleted; None if there was none.
        claimed: whether a runner has claimed the attempt.
    """
    if pod is not None and (found := _of_pod(attempt, pod, claimed=claimed)) is not None:
        return found
    if workflow is None:
        return Verdict(Outcome.LOST, "WorkflowDeleted", "the Workflow of the attempt was deleted" + _disruption(pod))
    if not workflow.completed:
        return None
    return _of_workflow(workflow, pod)


def waiting(workflow: WorkflowView | None, pod: PodView | None) -> str:
    """Return what an attempt waits for before its runner starts; empty if nothing out of the ordinary."""
    if pod is None:
        return f"waiting for a pod: {workflow.message}" if workflow is not None and workflow.message else ""
    if pod.unschedulable:
        return f"waiting for a node (Unschedulable): {pod.unschedulable}"
    return f"waiting for the container: {_text(pod.waiting)}" if pod.waiting is not None else ""


def _of_pod(attempt: AttemptRequested, pod: PodView, *, claimed: bool) -> Verdict | None:
    if pod.waiting is not None and _is_unavailable_image(*pod.waiting):
        return Verdict(
            Outcome.FAILED, "ImagePullFailed", f"the image of the step cannot be pulled: {_text(pod.waiting)}"
        )
    if pod.waiting is not None and f'secret "{pod.workflow}" not found' in pod.waiting[1]:
        return None  # the executor creates it right after the Workflow
    if pod.waiting is not None and pod.waiting[0] in _NO_CONTAINER:
        return Verdict(Outcome.FAILED, "ContainerFailed", f"the container cannot be started: {_text(pod.waiting)}")
    if pod.terminated is None:
        return None
    reason, code, message = pod.terminated
    if reason == "OOMKilled":
        limit = attempt.resources.memory
        bound = f" its memory limit of {limit / 2**20:.0f} MiB" if limit is not None else " the memory of its container"
        return Verdict(
            Outcome.FAILED,
            step_exits.OUT_OF_MEMORY,
            f"the step was killed for want of memory (OOMKilled): more than{bound}",
        )
    if not claimed and code != 0 and pod.disruption is None and not pod.deleted:
        lines = [line for line in message.strip().splitlines() if line and not line.startswith(_ARGO_LINES)]
        last = f": {lines[-1][:500]}" if lines else ""
        return Verdict(
            Outcome.FAILED,
            "RunnerMissing",
            f"the container exited with code {code} before the step began{last}. The image needs Python and "
            "`pip install penstock`; see `image` and `command` in the configuration of the executor",
        )
    return None


def _is_unavailable_image(reason: str, message: str) -> bool:
    return reason in _NO_IMAGE or (reason in _PULLING and _NEVER_PULLED.search(message) is not None)


def _of_workflow(workflow: WorkflowView, pod: PodView | None) -> Verdict:
    message = workflow.message
    if pod is not None and pod.disruption is not None:
        reason, why = pod.disruption
        return Verdict(Outcome.LOST, reason, f"the cluster ended the pod of the attempt ({reason}): {why or message}")
    if any(text in message for text in _DEADLINE):
        return Verdict(
            Outcome.TIMED_OUT, "DeadlineExceeded", f"the Workflow of the attempt exceeded its deadline: {message}"
        )
    if "pod deleted" in message:
        return Verdict(Outcome.LOST, "PodDeleted", "the pod of the attempt was deleted")
    if QUOTA not in message and any(text in message for text in _REFUSED):
        return Verdict(Outcome.FAILED, "PodRefused", f"Kubernetes refused the pod of the step: {message}")
    if workflow.phase == "Succeeded":
        return Verdict(Outcome.LOST, "NoReport", "the pod of the attempt ended without a report")
    exited = f"; the container exited with code {pod.terminated[1]}" if pod is not None and pod.terminated else ""
    return Verdict(
        Outcome.LOST, "PodFailed", f"the pod of the attempt ended without a report: {message or workflow.phase}{exited}"
    )


def _disruption(pod: PodView | None) -> str:
    return f" ({pod.disruption[0]}: {pod.disruption[1]})" if pod is not None and pod.disruption is not None else ""


def _text(found: tuple[str, str]) -> str:
    return f"{found[0]}: {found[1]}" if found[1] else found[0]
