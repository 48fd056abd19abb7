"""What is wrong with the cluster of an executor: no Argo, an unsafe version of it, missing rights.

Each problem is a sentence with what to do. The executor announces them; `penstock doctor` shows them.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Protocol

from penstock_adapters.argo import api as kubernetes
from penstock_adapters.argo import manifest
from penstock_adapters.argo.api import ApiError
from penstock_adapters.argo.config import ArgoConfig
from penstock_core.errors import UnavailableError

_WORKFLOWS = "argoproj.io"
_RIGHTS = (
    *((verb, _WORKFLOWS, "workflows") for verb in ("create", "delete", "get", "list", "watch")),
    *((verb, "", "pods") for verb in ("list", "watch")),
    ("create", "", "secrets"),
)
_FIXED = {(3, 7): 14, (4, 0): 5}
"""First patch of each minor version that a bad annotation of a pod cannot stop (CVE-2026-40886)."""

_VERSION = re.compile(r":v?(\d+)\.(\d+)\.(\d+)(?:[-+@].*)?\Z")
_CONTROLLER = "app=workflow-controller"


class Asked(Protocol):
    """The part of `KubernetesApi` that is used."""

    async def get(self, path: str, query: dict[str, str] | None = None) -> Any:
        """See `KubernetesApi`."""
        ...

    async def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """See `KubernetesApi`."""
        ...


async def problems(api: Asked, config: ArgoConfig, pool: str) -> list[str]:
    """Return what is wrong with the cluster, for the executors of a pool."""
    try:
        return [
            *await _missing_argo(api),
            *await _missing_rights(api, config.namespace),
            *await _unsafe_version(api, config.namespace, pool),
        ]
    except UnavailableError as error:
        return [f"{error}: check the address in KUBECONFIG, and the network between executor and API server"]
    except ApiError as error:
        return [f"the Kubernetes API refuses a check: {error}"]


def unsafe(image: str) -> str:
    """Return the unsafe version of Argo in the name of one of its images; empty if it is safe or unknown."""
    found = _VERSION.search(image)
    if found is None:
        return ""
    major, minor, patch = (int(part) for part in found.groups())
    is_unsafe = (major, minor) < min(_FIXED) or patch < _FIXED.get((major, minor), 0)
    return f"{major}.{minor}.{patch}" if is_unsafe else ""


async def _missing_argo(api: Asked) -> list[str]:
    try:
        await api.get(f"/apis/{_WORKFLOWS}/v1alpha1")
    except ApiError as error:
        if error.status != 404:
            raise
        return ["Argo Workflows is not installed in the cluster: install version 4.0.5 or newer"]
    return []


async def _missing_rights(api: Asked, namespace: str) -> list[str]:
    allowed = await asyncio.gather(*(api.may(*right, namespace) for right in _RIGHTS))
    missing: dict[str, list[str]] = {}
    for (verb, group, resource), granted in zip(_RIGHTS, allowed, strict=True):
        if not granted:
            missing.setdefault(f"{resource}.{group}" if group else resource, []).append(verb)
    return [
        f"the executor may not {', '.join(verbs)} {resource} in namespace {namespace!r}: "
        "grant this to its service account"
        for resource, verbs in missing.items()
    ]


async def _unsafe_version(api: Asked, namespace: str, pool: str) -> list[str]:
    """Check the version in the images of the controller, or of Argo's own container in pods of this pool."""
    images: list[str] = []
    for path, selector in (("/api/v1/pods", _CONTROLLER), (kubernetes.pods(namespace), manifest.selector(pool))):
        try:
            found = await api.get(path, {"labelSelector": selector, "limit": "1"})
        except ApiError:  # an executor needs no rights in other namespaces
            continue
        containers = [one for pod in found.get("items") or [] for one in pod["spec"]["containers"]]
        images += [str(one["image"]) for one in containers if one["name"] != manifest.MAIN]
    version = next((version for image in images if (version := unsafe(image))), "")
    fixed = " and ".join(f"{major}.{minor}.{patch}" for (major, minor), patch in _FIXED.items())
    return (
        [
            f"Argo {version} is not safe: a bad annotation of one pod stops it for everybody. {fixed} and newer minor "
            "versions are fixed"
        ]
        if version
        else []
    )
