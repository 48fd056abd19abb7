"""The Workflow of an attempt: a pure function.

It holds the identity of the attempt and what Kubernetes must know, never code or inputs: objects stay small, and no
text of a user can contain an expression of Argo.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from penstock_adapters.argo.config import ArgoConfig
from penstock_core import pod_protocol
from penstock_core.facts import AttemptRequested
from penstock_core.shipping.messages import AttemptKey

MANAGED_BY = "app.kubernetes.io/managed-by"
POOL = "penstock.dev/pool"
RUN, KEY, ATTEMPT = "penstock.dev/run", "penstock.dev/step", "penstock.dev/attempt"
"""Annotations that identify the attempt."""

CLASS = "penstock.dev/class"
"""Annotation of a Workflow with the class of its pod, see `work_class`."""

WORKFLOW = "workflows.argoproj.io/workflow"
"""Label of Argo at pods: the name of their Workflow."""

MAIN = "main"
"""Name of the container of the step, given by Argo."""

_INSTANCE = "workflows.argoproj.io/controller-instanceid"
_DEADLINE_MARGIN = 300
_CREDENTIAL_MARGIN = 86400
"""Seconds: a pod may wait for its node before its life begins, and clocks differ."""
_LABEL = re.compile(r"[^A-Za-z0-9._-]+")

Json = dict[str, Any]


def name(attempt: AttemptKey) -> str:
    """Return the name of the Workflow of an attempt: the same at each submission."""
    digest = hashlib.sha256("/".join(map(str, attempt)).encode()).hexdigest()
    return f"penstock-{digest[:32]}"


def work_class(attempt: AttemptRequested, config: ArgoConfig, image: str) -> str:
    """Return what attempts have in common that can share a pod: project, resources, image, configuration of pods.

    A step can read the credential of its pod, and with it claim what the pod is offered later, with its secrets. So
    attempts with secrets only share a pod with others of their pipeline that have secrets.
    """
    own = attempt.resources
    pipeline = attempt.pipeline if attempt.secrets else ""
    parts = [attempt.project, pipeline, own.cpu, own.memory, own.gpu, image, config.model_dump_json()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def selector(pool: str) -> str:
    """Return the label selector of the Workflows, and of the pods, of a pool."""
    return f"{MANAGED_BY}=penstock,{POOL}={_label(pool)}"


def attempt_of(annotations: dict[str, str]) -> AttemptKey | None:
    """Return the attempt that annotations name; None if they name none."""
    try:
        return annotations[RUN], annotations[KEY], int(annotations[ATTEMPT])
    except (KeyError, ValueError):
        return None


def build(attempt: AttemptRequested, pool: str, config: ArgoConfig, image: str = "") -> Json:
    """Return the Workflow of an attempt.

    Args:
        attempt: the attempt.
        pool: pool of the executor, which finds its Workflows by it.
        config: how pods look.
        image: the image of the attempt's environment; empty: that of the configuration.
    """
    key = (attempt.run_id, attempt.key, attempt.attempt)
    labels = {MANAGED_BY: "penstock", POOL: _label(pool)}
    names = {RUN: attempt.run_id, KEY: attempt.key, ATTEMPT: str(attempt.attempt)}
    about = {
        **labels,
        "penstock.dev/pipeline": _label(attempt.pipeline),
        "penstock.dev/project": _label(attempt.project),
    }
    spec: Json = {
        "entrypoint": "step",
        "activeDeadlineSeconds": _deadline(attempt, config),
        "podGC": {"strategy": config.pod_gc, "deleteDelayDuration": "60s"},
        "ttlStrategy": {"secondsAfterCompletion": config.ttl},
        "podMetadata": {
            "labels": {**config.pod_template.labels, **about},
            "annotations": {**config.pod_template.annotations, **names},
        },
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": config.run_as_user,
            "runAsGroup": config.run_as_user,
            "fsGroup": config.run_as_user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": config.node_selector,
        "tolerations": config.tolerations,
        "affinity": config.affinity,
        "imagePullSecrets": [{"name": one} for one in config.image_pull_secrets],
        "serviceAccountName": config.service_account,
        "podPriorityClassName": config.priority_class,
        "podSpecPatch": json.dumps(_patch(config), sort_keys=True),
        "templates": [_template(key, attempt, config, image)],
    }
    instance = {_INSTANCE: config.instance_id} if config.instance_id else {}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": name(key),
            "namespace": config.namespace,
            "labels": {**about, **instance},
            "annotations": {**names, CLASS: work_class(attempt, config, image)},
        },
        "spec": {field: value for field, value in spec.items() if value not in (None, {}, [])},
    }


def _template(key: AttemptKey, attempt: AttemptRequested, config: ArgoConfig, image: str) -> Json:
    container = _container(key, attempt, config)
    if not image:
        return {"name": "step", "container": container, "volumes": _volumes(config)}
    folder = {"name": "penstock-runner", "mountPath": pod_protocol.RUNNER}
    modules = {"name": "PYTHONPATH", "value": f"{pod_protocol.RUNNER_MODULES}:{pod_protocol.RUNNER_LIBRARIES}"}
    # An image of an environment has no runner: that of the configuration brings its own.
    copy: Json = {
        "name": "penstock-runner",
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "command": [*config.command, pod_protocol.COPY_RUNNER],
        "resources": _resources(attempt, config),
        "securityContext": container["securityContext"],
        "volumeMounts": [folder],
    }
    own: Json = {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-P", "-m", "penstock.runner.pod"],
        "env": [*container["env"], modules],
        "volumeMounts": [*container["volumeMounts"], {**folder, "readOnly": True}],
    }
    return {
        "name": "step",
        "initContainers": [copy],
        "container": {**container, **own},
        "volumes": [*_volumes(config), {"name": "penstock-runner", "emptyDir": {}}],
    }


def _container(key: AttemptKey, attempt: AttemptRequested, config: ArgoConfig) -> Json:
    own = {
        pod_protocol.POOL: attempt.pool,
        pod_protocol.RUN: key[0],
        pod_protocol.KEY: key[1],
        pod_protocol.ATTEMPT: str(key[2]),
        pod_protocol.WORK: "/penstock",
        "HOME": "/penstock",
        "TMPDIR": "/tmp",  # noqa: S108 - a volume of the pod
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    fields = {
        pod_protocol.POD_NAME: "metadata.name",
        pod_protocol.POD_UID: "metadata.uid",
        pod_protocol.NODE: "spec.nodeName",
    }
    # The executor creates it with the Workflow, which owns it.
    secret = {"secretKeyRef": {"name": name(key), "key": pod_protocol.TOKEN_KEY}}
    return {
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "command": config.command,
        "workingDir": "/penstock",
        "env": [
            *config.env,
            *({"name": one, "value": value} for one, value in own.items()),
            *({"name": one, "valueFrom": {"fieldRef": {"fieldPath": path}}} for one, path in fields.items()),
            {"name": pod_protocol.NATS_URL, "value": config.nats_url},
            {"name": pod_protocol.NATS_TOKEN, "valueFrom": secret},
        ],
        "resources": _resources(attempt, config),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [
            {"name": "penstock-work", "mountPath": "/penstock"},
            {"name": "penstock-tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
            *config.volume_mounts,
        ],
    }


def _volumes(config: ArgoConfig) -> list[Json]:
    size = {"sizeLimit": config.work_size} if config.work_size else {}
    return [
        {"name": "penstock-work", "emptyDir": size},
        {"name": "penstock-tmp", "emptyDir": size},
        *config.volumes,
    ]


def _resources(attempt: AttemptRequested, config: ArgoConfig) -> Json:
    """Requests and limits: the step's own, else those of the configuration."""
    requests, limits = dict(config.resources.requests), dict(config.resources.limits)
    own = attempt.resources
    if own.cpu is not None:
        requests["cpu"] = f"{round(own.cpu * 1000)}m"
        limits.pop("cpu", None)  # a limit would only slow the step down where processors are idle
    if own.memory is not None:
        requests["memory"] = limits["memory"] = str(own.memory + config.memory_overhead)
    if own.gpu:
        requests[config.gpu_resource] = limits[config.gpu_resource] = str(own.gpu)
    return {"requests": requests, "limits": limits}


def _deadline(attempt: AttemptRequested, config: ArgoConfig) -> int:
    """Return the longest life of the Workflow in seconds. The runner enforces the step's own timeout."""
    if config.worker_idle:  # attempts that follow may take longer than this one
        return config.deadline + int(config.worker_life)
    if attempt.timeout is None:
        return config.deadline
    return int(attempt.timeout + config.queue_timeout + config.grace) + _DEADLINE_MARGIN


def lifetime(attempt: AttemptRequested, config: ArgoConfig) -> float:
    """Return the seconds for which credentials of the pod of an attempt are valid: its longest life, and some more."""
    return _deadline(attempt, config) + _CREDENTIAL_MARGIN


def _patch(config: ArgoConfig) -> Json:
    """Return what Argo's own fields do not cover: of the pod, and of Argo's own containers."""
    closed = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    own: Json = {
        "terminationGracePeriodSeconds": config.grace,
        "initContainers": [{"name": "init", "securityContext": closed}],
        "containers": [{"name": "wait", "securityContext": closed}],
    }
    if config.runtime_class:
        own["runtimeClassName"] = config.runtime_class
    return {**config.pod_template.spec, **own}


def _label(text: str) -> str:
    """Return a text as the value of a label: at most 63 characters, which begin and end with a letter or digit."""
    label = _LABEL.sub("-", text).strip("._-")
    if len(label) <= 63 and label == text:
        return label
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{label[:54].strip('._-')}-{digest}" if label else digest
