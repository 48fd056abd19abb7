"""How the pods of a pool look: a YAML file of the executor, validated when it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from penstock_core.errors import PenstockError

RESERVED = "workflows.argoproj.io/"
"""Prefix of labels and annotations with which Argo controls pods. A bad one crashes Argo's controller for everybody."""

_FORBIDDEN = ("containers", "initContainers", "serviceAccountName", "serviceAccount", "restartPolicy")


class ArgoConfigError(PenstockError):
    """The configuration of the pods is missing or invalid."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComputeResources(_Model):
    """Requests and limits of the step's container, such as `{cpu: "1", memory: 1Gi}`."""

    requests: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, str] = Field(default_factory=dict)


class PodTemplate(_Model):
    """Labels and annotations of pods, and fields of a pod's `spec` that have no setting of their own."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    spec: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _is_allowed(self) -> PodTemplate:
        bad = [name for name in (*self.labels, *self.annotations) if name.startswith(RESERVED)]
        if bad:
            raise ValueError(f"{bad[0]}: labels and annotations with the prefix {RESERVED} are Argo's own")
        for name in _FORBIDDEN:
            if name in self.spec:
                raise ValueError(f"spec.{name} is set by Penstock: use the settings beside pod_template")
        return self


class ArgoConfig(_Model):
    """The pods of a pool."""

    image: str = Field(min_length=1, description="image of the steps: Python with penstock and the users' packages")
    nats_url: str = Field(
        pattern=r"^(nats|tls)://[^@\s]+$",
        description="URLs of NATS as pods reach it, separated by commas, without credentials: each pod gets its own",
    )
    namespace: str = Field(default="default", description="namespace of the Workflows")
    command: list[str] = Field(
        default_factory=lambda: ["python3", "-P", "-m", "penstock.runner.pod"], description="command of the runner"
    )
    check_environment: bool = Field(
        default=True, description="whether the image must have the packages that a pipeline was registered with"
    )
    image_pull_policy: str = Field(default="IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    image_pull_secrets: list[str] = Field(default_factory=list)
    service_account: str | None = Field(
        default=None, description="service account of the pods; it needs Argo's executor role (workflowtaskresults)"
    )
    resources: ComputeResources = Field(
        default_factory=ComputeResources, description="of steps that declare none themselves"
    )
    memory_overhead: int = Field(
        default=128 * 2**20, ge=0, description="bytes for the runner, added to the memory of a step"
    )
    gpu_resource: str = Field(default="nvidia.com/gpu", description="name of the resource for `gpu` of a step")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    affinity: dict[str, Any] = Field(default_factory=dict)
    priority_class: str | None = None
    runtime_class: str | None = None
    env: list[dict[str, Any]] = Field(
        default_factory=list, description="environment variables of the runner's container, as in Kubernetes"
    )
    volumes: list[dict[str, Any]] = Field(default_factory=list)
    volume_mounts: list[dict[str, Any]] = Field(default_factory=list)
    run_as_user: int = Field(default=65532, ge=1, description="user id of the processes")
    work_size: str | None = Field(default=None, description="largest size of the folder of an attempt, such as 10Gi")
    grace: int = Field(default=30, ge=1, le=3600, description="seconds between SIGTERM and SIGKILL of a pod")
    queue_timeout: float = Field(
        default=600.0, gt=0, description="seconds that a pod may wait for a node, for its image or for a quota"
    )
    worker_idle: float = Field(
        default=60.0,
        ge=0,
        le=86400,
        description="seconds that a pod stays after an attempt and takes others of its class; 0: one attempt per pod",
    )
    worker_life: float = Field(
        default=3600.0, gt=0, le=86400, description="seconds after which a pod takes no more attempts"
    )
    max_pending: int = Field(
        default=30, ge=1, le=10_000, description="Workflows of one executor whose pods have not started; others wait"
    )
    deadline: int = Field(
        default=7 * 86400, ge=1, description="longest life of a Workflow in seconds, for steps without a timeout"
    )
    ttl: int = Field(default=3600, ge=60, description="seconds that a finished Workflow is kept")
    pod_gc: str = Field(
        default="OnPodSuccess", pattern="^(OnPodCompletion|OnPodSuccess|OnWorkflowCompletion|OnWorkflowSuccess)$"
    )
    instance_id: str | None = Field(default=None, description="instance id of the Argo controller that runs them")
    pod_template: PodTemplate = Field(default_factory=PodTemplate)


def load(path: Path | None) -> ArgoConfig:
    """Read the configuration.

    Raises:
        ArgoConfigError: there is none, or it is invalid; the message names the fields.
    """
    if path is None:
        raise ArgoConfigError("PENSTOCK_ARGO_CONFIG is not set: it names the YAML file that describes the pods")
    try:
        return ArgoConfig.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError) as error:
        raise ArgoConfigError(f"PENSTOCK_ARGO_CONFIG={path} cannot be read: {error}") from error
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:10])
        raise ArgoConfigError(f"PENSTOCK_ARGO_CONFIG={path} is invalid: {problems}") from error
