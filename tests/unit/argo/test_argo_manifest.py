"""The Workflow of an attempt, against the schemas that Argo publishes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from penstock_adapters.argo import config, manifest
from penstock_adapters.argo.config import ArgoConfig, ArgoConfigError
from penstock_core.facts import AttemptRequested
from penstock_core.pipeline.ir import Resources
from penstock_core.pipeline.values import Inline

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
FOLDERS = [
    Path(os.environ.get("PENSTOCK_ARGO_SCHEMAS", ROOT.parent / "shared" / "argo")),
    ROOT.parents[1] / "shared/argo",
]
SCHEMAS = next((sorted(folder.glob("workflow-schema-*.json")) for folder in FOLDERS if folder.is_dir()), [])
IMAGE = "registry.example/environments@sha256:" + "a" * 64
KIND = "io.argoproj.workflow.v1alpha1.Workflow"

SMALL: Json = {"image": "registry.example/steps:1", "nats_url": "nats://nats.penstock:4222"}
FULL: Json = SMALL | {
    "namespace": "steps",
    "command": ["/opt/python", "-P", "-m", "penstock.runner.pod"],
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry"],
    "service_account": "steps",
    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}},
    "node_selector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}},
    "priority_class": "batch",
    "runtime_class": "nvidia",
    "env": [
        {"name": "HF_HOME", "value": "/cache"},
        {"name": "DB", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
    ],
    "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}],
    "volume_mounts": [{"name": "cache", "mountPath": "/cache"}],
    "work_size": "10Gi",
    "instance_id": "shard-2",
    "pod_template": {
        "labels": {"team": "vision"},
        "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
        "spec": {
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]
        },
    },
}  # fmt: skip


def attempt(**given: Any) -> AttemptRequested:
    fields: Json = {"run_id": "r1", "key": "train[3]", "attempt": 2, "pool": "default", "project": "default"}
    fields |= {"pipeline": "training", "version": 7, "entrypoint": "code:train"}
    return AttemptRequested(**fields | given)


def built(settings: Json = SMALL, **given: Any) -> Json:
    return manifest.build(attempt(**given), "default", ArgoConfig.model_validate(settings))


def container(workflow: Json) -> Json:
    return workflow["spec"]["templates"][0]["container"]


CASES = [built(), built(FULL), built(FULL, timeout=90.0, resources=Resources(cpu=0.5, memory=2**30, gpu=2))]


@pytest.mark.skipif(not SCHEMAS, reason="no published schemas of Argo: set PENSTOCK_ARGO_SCHEMAS to their folder")
@pytest.mark.parametrize("workflow", CASES, ids=["small", "full", "resources"])
@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_every_workflow_fits_the_published_schema(path: Path, workflow: Json) -> None:
    schema = json.loads(path.read_text())
    jsonschema.validate(workflow, {"$ref": f"#/definitions/{KIND}", "definitions": schema["definitions"]})
    assert unknown(workflow, {"$ref": f"#/definitions/{KIND}"}, schema["definitions"]) == []


def unknown(value: Any, schema: Json, definitions: Json, at: str = "") -> list[str]:
    """Fields that the schema does not know: the API server would drop them silently."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        return [one for item in value for one in unknown(item, schema.get("items", {}), definitions, at)]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    found = [f"{at}.{name}" for name in value if name not in known]
    return found + [
        x
        for name, item in value.items()
        if name in known
        for x in unknown(item, known[name], definitions, f"{at}.{name}")
    ]


def test_the_name_is_the_same_for_each_submission_and_differs_between_attempts() -> None:
    names = [manifest.name(key) for key in [("r", "a", 1), ("r", "a", 2), ("r", "a[1]", 1), ("s", "a", 1)]]
    assert built()["metadata"]["name"] == built(FULL)["metadata"]["name"] == manifest.name(("r1", "train[3]", 2))
    assert len(set(names)) == 4 and all(len(name) <= 63 for name in names)


def test_neither_code_nor_inputs_nor_variables_of_the_step_are_in_it() -> None:
    """They could be large, secret, or an expression of Argo."""
    text = json.dumps(built(inputs={"x": Inline("{{workflow.name}} hidden")}, env={"TOKEN": "hidden"}))
    assert "hidden" not in text and "{{" not in text and len(text) < 6000


def test_annotations_identify_the_attempt_and_labels_select_it() -> None:
    workflow = built(pipeline="x" * 80)
    for about in (workflow["metadata"], workflow["spec"]["podMetadata"]):
        assert manifest.attempt_of(about["annotations"]) == ("r1", "train[3]", 2)
        for pair in manifest.selector("default").split(","):
            name, _, value = pair.partition("=")
            assert about["labels"][name] == value
        assert all(len(value) <= 63 for value in about["labels"].values())
    assert manifest.attempt_of({}) is None
    assert manifest.attempt_of({manifest.RUN: "r", manifest.KEY: "a", manifest.ATTEMPT: "one"}) is None


def test_pods_fit_the_restricted_standard() -> None:
    workflow = built()
    pod = workflow["spec"]["securityContext"]
    assert pod["runAsNonRoot"] and pod["runAsUser"] > 0 and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    patch = json.loads(workflow["spec"]["podSpecPatch"])
    own = [one["securityContext"] for one in (*patch["initContainers"], *patch["containers"])]
    for context in (container(workflow)["securityContext"], *own):
        assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
    assert container(workflow)["securityContext"]["readOnlyRootFilesystem"]


def test_the_credentials_of_nats_are_a_reference() -> None:
    workflow = built()
    env = {one["name"]: one for one in container(workflow)["env"]}
    assert env["PENSTOCK_NATS_URL"]["value"] == "nats://nats.penstock:4222"
    reference = {"name": workflow["metadata"]["name"], "key": "token"}
    assert env["PENSTOCK_NATS_TOKEN"]["valueFrom"] == {"secretKeyRef": reference}


def test_resources_of_the_step_replace_those_of_the_configuration() -> None:
    assert container(built(FULL))["resources"] == FULL["resources"]
    found = container(built(FULL, resources=Resources(cpu=0.25, memory=2**30, gpu=1)))["resources"]
    memory = str(2**30 + 128 * 2**20)
    assert found["requests"] == {"cpu": "250m", "memory": memory, "nvidia.com/gpu": "1"}
    assert found["limits"] == {"memory": memory, "nvidia.com/gpu": "1"}


def test_the_deadline_leaves_time_for_waiting_and_reporting() -> None:
    alone = SMALL | {"worker_idle": 0}
    assert built(alone)["spec"]["activeDeadlineSeconds"] == 7 * 86400
    assert 60 + 600 < built(alone, timeout=60.0)["spec"]["activeDeadlineSeconds"] < 3600


def test_the_deadline_of_a_pod_that_stays_covers_attempts_that_follow() -> None:
    found = built(SMALL | {"worker_life": 600, "deadline": 3600}, timeout=1.0)
    assert found["spec"]["activeDeadlineSeconds"] == 3600 + 600


def test_pods_are_shared_within_a_project_with_the_same_resources_and_configuration() -> None:
    config_ = ArgoConfig.model_validate(SMALL)
    classes = [
        manifest.work_class(attempt(), config_, ""),
        manifest.work_class(attempt(project="other"), config_, ""),
        manifest.work_class(attempt(resources=Resources(memory=1)), config_, ""),
        manifest.work_class(attempt(), ArgoConfig.model_validate(FULL), ""),
        manifest.work_class(attempt(), config_, IMAGE),
        manifest.work_class(attempt(secrets=("secret:db",)), config_, ""),
        manifest.work_class(attempt(secrets=("secret:db",), pipeline="other"), config_, ""),
    ]
    assert len(set(classes)) == 7
    assert manifest.work_class(attempt(run_id="r2", key="x", version=9), config_, "") == classes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": ""}, "image"),
        ({"imagee": "x"}, "imagee"),
        ({"pod_template": {"annotations": {"workflows.argoproj.io/pod-gc-strategy": "x"}}}, "Argo's own"),
        ({"pod_template": {"labels": {"workflows.argoproj.io/completed": "true"}}}, "Argo's own"),
        ({"pod_template": {"spec": {"containers": []}}}, "set by Penstock"),
        ({"run_as_user": 0}, "run_as_user"),
        ({"nats_url": "nats://user:password@nats:4222"}, "nats_url"),
    ],
)
def test_an_invalid_configuration_names_the_field(changes: Json, message: str, tmp_path: Path) -> None:
    path = tmp_path / "argo.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    with pytest.raises(ArgoConfigError, match=message):
        config.load(path)


def test_a_missing_configuration_names_the_setting(tmp_path: Path) -> None:
    for path in (None, tmp_path / "none.yaml"):
        with pytest.raises(ArgoConfigError, match="PENSTOCK_ARGO_CONFIG"):
            config.load(path)


@pytest.mark.parametrize("settings", [SMALL, FULL], ids=["small", "full"])
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: path.stem)
def test_the_runner_is_copied_into_the_image_of_an_environment(schema: Path, settings: Json) -> None:
    made = manifest.build(attempt(environment="e"), "default", ArgoConfig.model_validate(settings), IMAGE)
    test_every_workflow_fits_the_published_schema(schema, made)
    (template,) = made["spec"]["templates"]
    (copy,), main = template["initContainers"], template["container"]
    assert (copy["image"], main["image"]) == (settings["image"], IMAGE)
    assert copy["command"][-3:] == ["-m", "penstock.runner.pod", "--copy-runner"]
    assert copy["securityContext"] == main["securityContext"]
    assert main["env"][-1] == {"name": "PYTHONPATH", "value": "/penstock-runner/modules:/penstock-runner/libraries"}
    assert {"name": "penstock-runner", "mountPath": "/penstock-runner", "readOnly": True} in main["volumeMounts"]
    assert {"name": "penstock-runner", "emptyDir": {}} in template["volumes"]
