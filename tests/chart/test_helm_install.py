"""The Helm chart on a real cluster: runs outlive an upgrade, the loss of a pod of every service, and a rollback.

`KUBECONFIG` names the cluster, `PENSTOCK_TEST_CHART_VALUES` a file with values for it: images that its nodes have
(`image`, `nats.image`, `s3.image`, `postgresql.image`), and `dnsConfig` where it has no DNS of its own.
`PENSTOCK_TEST_DNS` is then an address of this machine at which pods reach the DNS that the test starts.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

kubernetes = pytest.importorskip("kubernetes")

from penstock_adapters.nats.auth import generated  # noqa: E402
from penstock_testkit.servers.child import Child  # noqa: E402 - after the check that the client is installed
from penstock_testkit.servers.kubernetes import until  # noqa: E402

ROOT = Path(__file__).parents[2]
HELM = shutil.which("helm", path=os.pathsep.join([os.environ.get("PENSTOCK_TEST_TOOLS", ""), os.environ["PATH"]]))
NEEDED = [name for name in ("KUBECONFIG", "PENSTOCK_TEST_CHART_VALUES") if not os.environ.get(name)]
SERVICES = ("scheduler", "executor", "gateway", "nats", "triggers", "cron", "builder", "artifacts", "postgresql")
SCRATCH = "/tmp"  # noqa: S108 - in the container
PIPELINE = """
import time
from penstock import pipeline, step

@step
def wait(n: int) -> int:
    time.sleep(1)
    return n + 1

@pipeline
def slow(n: int = 0):
    for _ in range(30):
        n = wait(n)
    return n
"""

pytestmark = [
    pytest.mark.containers,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(HELM is None, reason="no executable 'helm' on PATH or in PENSTOCK_TEST_TOOLS"),
    pytest.mark.skipif(bool(NEEDED), reason=f"no cluster for the chart: {', '.join(NEEDED)} not set"),
]


class Release:
    """The chart in a namespace of its own, whose pods must pass the standard `restricted`."""

    def __init__(self, folder: Path) -> None:
        kubernetes.config.load_kube_config(os.environ["KUBECONFIG"])
        self.core = kubernetes.client.CoreV1Api()
        self.namespace = f"chart-test-{secrets.token_hex(3)}"
        self.values = yaml.safe_load(Path(os.environ["PENSTOCK_TEST_CHART_VALUES"]).read_text())
        # A cluster for tests has no volumes: what is in the bucket and in PostgreSQL is lost with their pods.
        for name in ("nats", "s3", "postgresql"):
            self.values.setdefault(name, {}).update({"enabled": True, "persistence": {"enabled": False}})
        self.values["nats"]["maxFileStore"] = "4GB"
        searches = [f"{self.namespace}.svc.cluster.local", "svc.cluster.local"]
        if self.values.get("dnsConfig"):
            self.values["dnsConfig"]["searches"] = searches
        self._file = folder / "values.yaml"
        self._file.write_text(yaml.safe_dump(self.values))

    def create(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.core.create_namespace({"metadata": {"name": self.namespace, "labels": labels}})
        names = ("token", "postgresql-password", "s3-access-key", "s3-secret-key")
        data = {name: base64.b64encode(f"t{secrets.token_hex(16)}".encode()).decode() for name in names}
        self.core.create_namespaced_secret(self.namespace, {"metadata": {"name": "penstock"}, "data": data})
        with tempfile.TemporaryDirectory() as folder:
            keys = {file.name: base64.b64encode(file.read_bytes()).decode() for file in generated.write(Path(folder))}
        self.core.create_namespaced_secret(self.namespace, {"metadata": {"name": "penstock-nats"}, "data": keys})
        files = {"slow.py": PIPELINE}
        self.core.create_namespaced_config_map(self.namespace, {"metadata": {"name": "project"}, "data": files})

    def remove(self) -> None:
        self.core.delete_namespace(self.namespace)

    def helm(self, *arguments: str) -> str:
        assert HELM is not None
        command = [HELM, *arguments, "--namespace", self.namespace]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr + self.describe()
        return done.stdout

    def apply(self, action: str, *values: str) -> None:
        options = [option for value in values for option in ("--set", value)]
        chart = str(ROOT / "deploy/helm/penstock")
        self.helm(action, "penstock", chart, "--values", str(self._file), *options, "--wait", "--timeout", "5m")

    def pods(self, component: str) -> list[Any]:
        selector = f"app.kubernetes.io/component={component}"
        found = self.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return [pod for pod in found if pod.status.phase == "Running" and not pod.metadata.deletion_timestamp]

    def kill(self, component: str) -> None:
        pod = until(lambda: self.pods(component))[0].metadata.name
        self.core.delete_namespaced_pod(pod, self.namespace, grace_period_seconds=0)

    def start(self, name: str, *command: str) -> None:
        """Start a pod with the `penstock` command, in the environment of steps."""
        image = self.values.get("image", {})
        runner = f"{image.get('registry', '')}penstock-runner:{image.get('tag', '')}"
        secure = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        token = {"secretKeyRef": {"name": "penstock", "key": "token"}}
        container = {
            "name": "client",
            "image": runner,
            "command": ["penstock", *command],
            "workingDir": "/project",
            "securityContext": secure,
            "env": [
                {"name": "PENSTOCK_URL", "value": "http://penstock-gateway"},
                {"name": "PENSTOCK_HOME", "value": f"{SCRATCH}/home"},
                {"name": "PENSTOCK_TOKEN", "valueFrom": token},
            ],
            "volumeMounts": [{"name": "project", "mountPath": "/project"}, {"name": "tmp", "mountPath": SCRATCH}],
        }
        spec = {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "project", "configMap": {"name": "project"}}, {"name": "tmp", "emptyDir": {}}],
        }
        spec |= {name: self.values[name] for name in ("dnsPolicy", "dnsConfig") if name in self.values}
        self.core.create_namespaced_pod(self.namespace, {"metadata": {"name": name}, "spec": spec})

    def phase(self, name: str) -> str:
        return self.core.read_namespaced_pod(name, self.namespace).status.phase

    def output(self, name: str) -> str:
        # The client would read output that looks like JSON.
        return self.core.read_namespaced_pod_log(name, self.namespace, _preload_content=False).data.decode()

    def wait(self, what: Callable[[], Any], timeout: float = 300.0) -> Any:
        return until(what, timeout)

    def run(self, name: str, *command: str) -> str:
        """Run the command to its end; returns its output."""
        self.start(name, *command)
        self.wait(lambda: self.phase(name) in ("Succeeded", "Failed"))
        assert self.phase(name) == "Succeeded", self.output(name)
        return self.output(name)

    def start_run(self, name: str) -> None:
        """Start a run of half a minute or more, and wait until its first steps have run."""
        self.start(name, "run", "slow.py")
        self.wait(lambda: self.phase(name) != "Pending" and "wait-2" in self.output(name))

    def wait_run(self, name: str) -> None:
        """Wait until the run has succeeded."""
        self.wait(lambda: self.phase(name) in ("Succeeded", "Failed"))
        assert self.phase(name) == "Succeeded" and "result  30" in self.output(name), self.output(name)

    def describe(self) -> str:
        pods = self.core.list_namespaced_pod(self.namespace).items
        return "\n".join(f"{pod.metadata.name} {pod.status.phase} {pod.status.container_statuses}" for pod in pods)


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Release]:
    made = Release(tmp_path)
    dns = None
    if address := os.environ.get("PENSTOCK_TEST_DNS"):
        command = [sys.executable, "-m", "penstock_testkit.servers.service_dns", address]
        dns = Child("dns", command, tmp_path / "dns.log", tmp_path, {"KUBECONFIG": os.environ["KUBECONFIG"]})
    made.create()
    try:
        yield made
    finally:
        made.remove()
        if dns is not None:
            dns.stop()


def test_runs_outlive_upgrade_kills_and_rollback(release: Release) -> None:
    release.apply("install")
    release.start_run("upgraded")
    release.apply("upgrade", "logLevel=debug", "scheduler.replicas=2")
    release.wait_run("upgraded")
    release.start_run("killed")
    for service in SERVICES:
        release.kill(service)  # and no service is waited for
    release.helm("rollback", "penstock", "1", "--wait", "--timeout", "5m")
    release.wait_run("killed")
    # The list of runs is in PostgreSQL, which began empty after its pod was lost.
    runs = json.loads(release.run("list", "runs", "list", "--json"))
    assert [(run["pipeline"], run["state"]) for run in runs] == [("slow", "succeeded")] * 2
