"""The platform with attempts on Kubernetes: services of this machine, steps in pods of a real cluster with Argo.

`KUBECONFIG` names the cluster. `PENSTOCK_TEST_IMAGE` is an image with Python, penstock and nats-py, which the nodes
have; `PENSTOCK_TEST_HOST` an address of this machine that pods can reach.
"""

from __future__ import annotations

import base64
import os
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import kubernetes.client
import kubernetes.config
import yaml

from penstock import Client
from penstock_core.facts import AttemptFinished
from penstock_testkit.servers.cluster import Cluster
from penstock_testkit.servers.nats import NatsServer, accounts
from penstock_testkit.servers.s3 import S3Server

NEEDED = ("KUBECONFIG", "PENSTOCK_TEST_IMAGE", "PENSTOCK_TEST_HOST")

T = TypeVar("T")


@dataclass
class Kubernetes:
    """A namespace of the cluster, as an administrator sees it. Pods in it must fit the standard `restricted`."""

    namespace: str
    custom: Any
    core: Any
    rbac: Any

    @property
    def workflows(self) -> tuple[str, str, str, str]:
        """The first arguments of calls about Workflows."""
        return "argoproj.io", "v1alpha1", self.namespace, "workflows"

    def create(self) -> None:
        """Create the namespace, and let its pods do what Argo needs."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": self.namespace, "labels": labels}})
        results = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
        self.rbac.create_namespaced_role(self.namespace, {"metadata": {"name": "argo"}, "rules": [results]})
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "argo"}
        binding = {"metadata": {"name": "argo"}, "roleRef": role, "subjects": [subject]}
        self.rbac.create_namespaced_role_binding(self.namespace, binding)

    def remove(self) -> None:
        """Delete the namespace with everything in it; returns before it is gone."""
        self.core.delete_namespace(self.namespace)

    def secret(self, workflow: str) -> dict[str, str]:
        """The secret of a Workflow."""
        data = self.core.read_namespaced_secret(workflow, self.namespace).data
        return {name: base64.b64decode(value).decode() for name, value in data.items()}

    def secrets(self) -> list[str]:
        """Names of the secrets."""
        return [one.metadata.name for one in self.core.list_namespaced_secret(self.namespace).items]

    def names(self, run_id: str | None = None) -> list[str]:
        """Names of the Workflows, all or those of a run."""
        items = self.custom.list_namespaced_custom_object(*self.workflows)["items"]
        return [
            item["metadata"]["name"]
            for item in items
            if run_id is None or item["metadata"].get("annotations", {}).get("penstock.dev/run") == run_id
        ]

    def running_workflows(self) -> list[str]:
        """Names of the Workflows that have not ended."""
        items = self.custom.list_namespaced_custom_object(*self.workflows)["items"]
        ended = ("Succeeded", "Failed", "Error")
        return [item["metadata"]["name"] for item in items if item.get("status", {}).get("phase") not in ended]

    def delete(self, name: str) -> None:
        """Delete a Workflow by hand."""
        self.custom.delete_namespaced_custom_object(*self.workflows, name)

    def pods(self, workflow: str) -> list[Any]:
        """The pods of a Workflow."""
        selector = f"workflows.argoproj.io/workflow={workflow}"
        return self.core.list_namespaced_pod(self.namespace, label_selector=selector).items

    def running_pod(self, run_id: str) -> Any:
        """Wait for a pod of a run whose step's container runs."""
        return until(lambda: next((pod for pod in self.pods_of(run_id) if _main_runs(pod)), None))

    def pods_of(self, run_id: str) -> list[Any]:
        """The pods of a run."""
        pods = self.core.list_namespaced_pod(
            self.namespace, label_selector="app.kubernetes.io/managed-by=penstock"
        ).items
        return [pod for pod in pods if (pod.metadata.annotations or {}).get("penstock.dev/run") == run_id]

    def delete_pod(self, name: str, grace: int | None = None) -> None:
        """Delete a pod by hand."""
        self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=grace)


def _main_runs(pod: Any) -> bool:
    return any(one.name == "main" and one.state.running for one in pod.status.container_statuses or [])


def until(condition: Callable[[], T | None], timeout: float = 120.0) -> T:
    """Wait for something that is not false."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return found


def connect() -> Kubernetes:
    """Connect to the cluster, with the name of a new namespace."""
    kubernetes.config.load_kube_config(os.environ["KUBECONFIG"])
    namespace = f"penstock-test-{secrets.token_hex(4)}"
    client = kubernetes.client
    return Kubernetes(namespace, client.CustomObjectsApi(), client.CoreV1Api(), client.RbacAuthorizationV1Api())


@dataclass
class Platform:
    """The services, and how their pods are configured."""

    services: Cluster
    client: Client
    kube: Kubernetes
    config: Path
    settings: dict[str, Any]

    def register(self, name: str, text: str, pipeline: str) -> Any:
        """Register a pipeline; returns its version."""
        return self.client.pipelines.register(f"{self.services.source(f'{name}.py', text)}:{pipeline}")

    def configure(self, **changes: Any) -> None:
        """Restart the executors with another configuration of the pods."""
        self.config.write_text(yaml.safe_dump(self.settings | changes))
        for name in self.executors:
            self.services.kill(name)
            self.services.start_service(name)
        for name in self.executors:
            self.services.wait_ready(name)

    def start(self, pipeline: str, **inputs: Any) -> str:
        """Submit a run; returns its id."""
        return self.client.run(pipeline, inputs).run_id

    def finish(self, run_id: str, timeout: float = 120.0) -> Any:
        """Wait for the end of a run."""
        return self.client.runs.wait(run_id, timeout=timeout)

    def result(self, run_id: str) -> Any:
        """The output of a run that must succeed."""
        run = self.finish(run_id)
        assert run.state == "succeeded", run
        return self.client.artifacts.load(run_id)

    def losses(self, run_id: str) -> list[str]:
        """Why attempts of a run did not succeed."""
        run = self.client.runs.get(run_id)
        facts = [one.fact for one in self.services.history(run_id, run.pipeline, run.version)[1]]
        return [str(fact.error) for fact in facts if isinstance(fact, AttemptFinished) and fact.error is not None]

    def step(self, run_id: str) -> Any:
        """The only step of a run."""
        (step,) = self.client.runs.get(run_id).steps.values()
        return step

    def error(self, run_id: str) -> Any:
        """The error of the only step of a run that must fail."""
        run = self.finish(run_id)
        assert run.state == "failed", run
        return self.step(run_id).error

    def output(self, run_id: str) -> str:
        """What the steps of a run have printed."""
        return "".join(line.text for line in self.client.runs.logs(run_id, follow=False))

    @property
    def executors(self) -> list[str]:
        """Names of the executors' processes."""
        return [name for name in self.services.names if name.startswith("executor")]


@contextmanager
def platform_in(
    folder: Path, replicas: int = 1, services: dict[str, str] | None = None, **settings: Any
) -> Generator[Platform]:
    """Start the services with NATS and S3 where pods reach them, with further variables for the `services`."""
    host = os.environ["PENSTOCK_TEST_HOST"]
    own = accounts()
    nats = NatsServer(folder / "nats", host=host, credentials=own.credentials, options=own.options)
    s3 = S3Server(folder / "s3", host=host)
    (folder / "s3").mkdir()
    s3.start()
    options = s3.options()
    config = folder / "argo.yaml"
    kube = connect()
    kube.create()
    settings = {
        "image": os.environ["PENSTOCK_TEST_IMAGE"],
        "namespace": kube.namespace,
        "nats_url": f"nats://{host}:{nats.port}",
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "grace": 10,
        "worker_idle": 0,
        **settings,
    }
    config.write_text(yaml.safe_dump(settings))
    env = {
        "PENSTOCK_NATS_ISSUER_SEED": own.issuer,
        "PENSTOCK_EXECUTOR": "argo",
        "PENSTOCK_ARGO_CONFIG": str(config),
        "PENSTOCK_SLOTS": "50",
        "PENSTOCK_LEASE": "15",
        "KUBECONFIG": os.environ["KUBECONFIG"],
        "PENSTOCK_ARTIFACTS_URL": f"s3://{options.bucket}/cluster",
        "PENSTOCK_S3_ENDPOINT": s3.endpoint,
        "PENSTOCK_S3_REGION": "us-east-1",
        "PENSTOCK_S3_ACCESS_KEY": options.access_key or "",
        "PENSTOCK_S3_SECRET_KEY": options.secret_key or "",
        **(services or {}),
    }
    try:
        with Cluster(folder / "services", env=env, nats=nats, replicas={"executor": replicas}) as cluster:
            yield Platform(cluster, Client(url=cluster.url, token=cluster.token), kube, config, settings)
    finally:
        kube.remove()
        s3.stop()
