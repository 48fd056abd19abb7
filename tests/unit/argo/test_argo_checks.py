"""What is wrong with a cluster, against an API that a test controls."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_adapters.argo import checks
from penstock_adapters.argo.api import ApiError
from penstock_adapters.argo.config import ArgoConfig
from penstock_core.errors import UnavailableError

CONFIG = ArgoConfig.model_validate({"image": "i", "nats_url": "nats://n:4222", "namespace": "steps"})


class Api:
    def __init__(self) -> None:
        self.denied: set[tuple[str, str]] = set()
        self.error: Exception | None = None
        self.argo = True
        self.controller: str | None = None
        self.executor = "quay.io/argoproj/argoexec:v4.0.5"

    async def get(self, path: str, query: dict[str, str] | None = None) -> Any:
        if self.error is not None:
            raise self.error
        if path.startswith("/apis/argoproj.io") and not self.argo:
            raise ApiError("not found", 404, "NotFound")
        if path == "/api/v1/pods":
            if self.controller is None:
                raise ApiError("forbidden", 403, "Forbidden")
            return pods({"name": "workflow-controller", "image": self.controller})
        return pods({"name": "main", "image": "mine:1.0.0"}, {"name": "wait", "image": self.executor})

    async def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        assert namespace == "steps"
        return (verb, resource) not in self.denied


def pods(*containers: dict[str, str]) -> dict[str, Any]:
    return {"items": [{"spec": {"containers": list(containers)}}]}


async def test_a_good_cluster_has_no_problems() -> None:
    assert await checks.problems(Api(), CONFIG, "p") == []


async def test_missing_rights_are_named() -> None:
    api = Api()
    api.denied = {("create", "workflows"), ("watch", "workflows"), ("list", "pods"), ("create", "secrets")}
    assert await checks.problems(api, CONFIG, "p") == [
        f"the executor may not {what} in namespace 'steps': grant this to its service account"
        for what in ("create, watch workflows.argoproj.io", "list pods", "create secrets")
    ]


async def test_a_cluster_without_argo_or_that_does_not_answer() -> None:
    api = Api()
    api.argo = False
    (problem,) = await checks.problems(api, CONFIG, "p")
    assert "Argo Workflows is not installed" in problem
    api.error = UnavailableError("the Kubernetes API does not answer: refused")
    (problem,) = await checks.problems(api, CONFIG, "p")
    assert problem.startswith("the Kubernetes API does not answer: refused: check the address in KUBECONFIG")


@pytest.mark.parametrize(("controller", "executor"), [("a/controller:v4.0.4", "x"), (None, "a/argoexec:v4.0.4")])
async def test_an_unsafe_version_names_the_fixed_ones(controller: str | None, executor: str) -> None:
    api = Api()
    api.controller, api.executor = controller, executor
    (problem,) = await checks.problems(api, CONFIG, "p")
    assert "Argo 4.0.4 is not safe" in problem and "3.7.14 and 4.0.5" in problem


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("quay.io/argoproj/argoexec:v3.7.13", "3.7.13"),
        ("quay.io/argoproj/argoexec:v3.7.14", ""),
        ("host:5000/argoexec:v3.6.19@sha256:0", "3.6.19"),
        ("argoexec:v4.0.5", ""),
        ("argoexec:v4.0.0-rc1", "4.0.0"),
        ("argoexec:v4.1.0", ""),
        ("argoexec:latest", ""),
        ("argoexec:v4", ""),
    ],
)
def test_unsafe_versions(image: str, version: str) -> None:
    assert checks.unsafe(image) == version
