"""The Helm chart: what it renders, without a cluster. Skipped where `helm` is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock_adapters.nats.auth import generated

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/penstock"
SERVICES = {"gateway", "scheduler", "triggers", "cron", "builder", "artifacts", "executor"}
HELM = shutil.which("helm", path=os.pathsep.join([os.environ.get("PENSTOCK_TEST_TOOLS", ""), os.environ["PATH"]]))
TRIAL = ("s3.enabled=true", "postgresql.enabled=true")
ARGO = ("executor.adapter=argo", "executor.argo.namespace=steps")

pytestmark = pytest.mark.skipif(HELM is None, reason="no executable 'helm' on PATH or in PENSTOCK_TEST_TOOLS")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)


def template(*values: str) -> subprocess.CompletedProcess[str]:
    options = [option for value in values for option in ("--set", value)]
    return helm("template", "penstock", str(CHART), "--kube-version", "1.35.0", "--namespace", "ml", *options)


def render(*values: str) -> list[dict[str, Any]]:
    done = template(*values)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in objects if found["kind"] in kinds}


def environment(workload: dict[str, Any]) -> dict[str, Any]:
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_lint() -> None:
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout


def test_the_version_is_that_of_the_code() -> None:
    version = (ROOT / "libs/core/penstock_core/version.py").read_text()
    assert f'"{yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]}"' in version


@pytest.mark.parametrize("values", [(), TRIAL, (*TRIAL, *ARGO), ("nats.enabled=false", "nats.url=tls://nats:4222")])
def test_all_pods_pass_the_restricted_standard(values: tuple[str, ...]) -> None:
    workloads = of_kind(render(*values), "Deployment", "StatefulSet")
    assert {f"penstock-{name}" for name in SERVICES} <= set(workloads)
    for name, workload in workloads.items():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # Variables such as PENSTOCK_GATEWAY_PORT of services would be read as settings.
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is (name == "penstock-executor" and ARGO[0] in values)
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
            assert container["resources"]["requests"]["memory"] and container["resources"]["limits"]["memory"]


def test_only_references_to_secrets() -> None:
    for workload in of_kind(render(*TRIAL), "Deployment", "StatefulSet").values():
        for name, value in environment(workload).items():
            if any(word in name for word in ("TOKEN", "PASSWORD", "SECRET", "ACCESS_KEY", "SEED")):
                own = "penstock-nats" if "SEED" in name or name == "ROUTES_PASSWORD" else "penstock"
                assert value["secretKeyRef"]["name"] == own, name


def test_credentials_are_where_they_are_used_alone() -> None:
    workloads = of_kind(render(*TRIAL), "Deployment")
    having = {
        word: {name for name, workload in workloads.items() if any(word in key for key in environment(workload))}
        for word in ("S3_SECRET_KEY", "DATABASE_URL", "PENSTOCK_TOKEN", "ISSUER_SEED")
    }
    assert having == {
        "S3_SECRET_KEY": {"penstock-artifacts"},
        "DATABASE_URL": {"penstock-gateway"},
        "PENSTOCK_TOKEN": {"penstock-gateway"},
        "ISSUER_SEED": {"penstock-gateway"},
    }


def test_each_service_has_its_own_key_for_nats() -> None:
    workloads = of_kind(render(*TRIAL), "Deployment")
    for service in SERVICES:
        seed = environment(workloads[f"penstock-{service}"])["PENSTOCK_NATS_SEED"]
        assert seed == {"secretKeyRef": {"name": "penstock-nats", "key": f"{service}.nk"}}
        assert service in generated.SERVICES


def test_no_credential_is_in_the_arguments_of_a_container() -> None:
    for workload in of_kind(render(*TRIAL), "StatefulSet", "Deployment").values():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            assert "$(" not in " ".join([*container.get("command", []), *container.get("args", [])])


def test_nats_has_the_generated_accounts_and_routes() -> None:
    objects = render()
    config = of_kind(objects, "ConfigMap")["penstock-nats"]["data"]["nats.conf"]
    assert 'include "../nats-accounts/accounts.conf"' in config
    assert "authorization { token" not in config
    env = environment(of_kind(objects, "StatefulSet")["penstock-nats"])
    assert env["ROUTE_2"] == '"nats://route:$(ROUTES_PASSWORD)@penstock-nats-2.penstock-nats-nodes:6222"'
    assert "$ROUTE_2" in config


def test_external_servers() -> None:
    objects = render("nats.enabled=false", "nats.url=tls://nats.example.org:4222", "s3.endpoint=https://s3.example.org")
    assert not of_kind(objects, "StatefulSet")
    workloads = of_kind(objects, "Deployment")
    nats = environment(workloads["penstock-scheduler"])["PENSTOCK_NATS_URL"]
    assert nats == "tls://nats.example.org:4222"
    assert environment(workloads["penstock-artifacts"])["PENSTOCK_S3_ENDPOINT"] == "https://s3.example.org"
    database = environment(workloads["penstock-gateway"])["PENSTOCK_DATABASE_URL"]
    assert database == {"secretKeyRef": {"name": "penstock", "key": "database-url"}}


def test_rights_for_workflows_belong_to_the_executor_alone() -> None:
    assert not of_kind(render(), "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    objects = render(*ARGO)
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    roles = of_kind(objects, "Role")
    assert {role["metadata"]["namespace"] for role in roles.values()} == {"steps"}
    assert roles["penstock-executor"]["rules"] == [
        {
            "apiGroups": ["argoproj.io"],
            "resources": ["workflows"],
            "verbs": ["create", "delete", "get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    ]
    binding = of_kind(objects, "RoleBinding")["penstock-executor"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "penstock-executor", "namespace": "ml"}]
    config = yaml.safe_load(of_kind(objects, "ConfigMap")["penstock-executor-argo"]["data"]["argo.yaml"])
    assert config["namespace"] == "steps" and config["nats_url"] == "nats://penstock-nats.ml.svc.cluster.local:4222"
    assert environment(of_kind(objects, "Deployment")["penstock-executor"])["PENSTOCK_EXECUTOR"] == "argo"


def test_replicas_survive_disruptions() -> None:
    objects = render("gateway.autoscaling.enabled=true", "cron.replicas=1")
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert set(budgets) == {f"penstock-{name}" for name in (*(SERVICES - {"cron"}), "nats")}
    assert set(of_kind(objects, "HorizontalPodAutoscaler")) == {"penstock-gateway"}
    # The autoscaler sets the number.
    assert "replicas" not in of_kind(objects, "Deployment")["penstock-gateway"]["spec"]
    nats = of_kind(objects, "StatefulSet")["penstock-nats"]
    assert nats["spec"]["replicas"] == 3
    assert environment(of_kind(objects, "Deployment")["penstock-scheduler"])["PENSTOCK_REPLICAS"] == "3"


def test_network_policies_let_in_who_needs_it() -> None:
    policies = of_kind(render(*TRIAL), "NetworkPolicy")

    def clients(name: str) -> set[str]:
        (rule,) = policies[name]["spec"]["ingress"]
        return {peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]}

    assert clients("penstock-postgresql") == {"gateway"}
    assert clients("penstock-nats-clients") == SERVICES
    assert clients("penstock-nats-routes") == {"nats"}
    assert (
        policies["penstock-default"]["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "penstock"
    )
    assert not of_kind(render("networkPolicies.enabled=false"), "NetworkPolicy")


def test_only_pods_of_steps_reach_nats_and_the_store() -> None:
    policies = of_kind(render(*TRIAL, *ARGO), "NetworkPolicy")
    for name in ("penstock-nats-clients", "penstock-seaweedfs"):
        (rule,) = policies[name]["spec"]["ingress"]
        (steps,) = [peer for peer in rule["from"] if "namespaceSelector" in peer]
        assert steps["podSelector"]["matchLabels"] == {
            "app.kubernetes.io/managed-by": "penstock",
            "penstock.dev/pool": "default",
        }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("executor.adapter=docker", "must be one of 'process', 'argo'"),
        ("executor.argo.natsUrl=nats://token@host:4222", "does not match pattern"),
        ("gateway.replica=2", "additional properties 'replica' not allowed"),
        ("nats.replicas=2", "must be one of 1, 3, 5"),
        ("nats.replicas=1", "nats.streamReplicas is larger than nats.replicas"),
        ("nats.url=nats://token@host:4222", "does not match pattern"),
        ("nats.enabled=false", "nats.url is the URL of your NATS system"),
        ("s3.url=http://bucket", "does not match pattern"),
        ("existingSecret=", "minLength"),
        ("executor.slots=many", "got string, want integer"),
        ("gateway.ingress.enabled=true", "gateway.ingress.host is the name"),
    ],
)
def test_wrong_values_are_refused(value: str, text: str) -> None:
    done = template(value)
    assert done.returncode != 0 and text in done.stderr, done.stderr


def test_the_schema_describes_all_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(yaml.safe_load((CHART / "values.yaml").read_text())) <= set(schema["properties"])


def test_environments_fit_on_the_disks_of_the_pods() -> None:
    deployments = of_kind(render(*TRIAL, "executor.env.PENSTOCK_GRACE=5"), "Deployment")
    assert environment(deployments["penstock-builder"])["PENSTOCK_INSTALL_ENVIRONMENTS"] == "false"
    size = int(environment(deployments["penstock-executor"])["PENSTOCK_ENVIRONMENTS_SIZE"])
    volumes = deployments["penstock-executor"]["spec"]["template"]["spec"]["volumes"]
    (state,) = [volume["emptyDir"]["sizeLimit"] for volume in volumes if volume["name"] == "state"]
    assert size <= int(state.removesuffix("Gi")) * 2**30 // 2
