"""The calls to the Kubernetes API that the executor needs. Every call has a time-out on this side.

Objects stay the JSON that the server sent: the models of the client library would cost more than the calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from penstock_core.errors import PenstockError, UnavailableError

TIMEOUT = 10.0
WATCH = 240
"""Seconds after which the server ends a watch."""

QUIET = 90.0
"""Seconds without any event, bookmarks included, after which a watch counts as broken."""

PAGE = 500
"""Most objects of one answer of a list."""

_CONNECT = 5.0

Json = dict[str, Any]


class ApiError(PenstockError):
    """A final refusal of the Kubernetes API.

    Attributes:
        status: the HTTP status.
        reason: the reason of the server, such as `AlreadyExists` or `Forbidden`.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class GoneError(PenstockError):
    """A watch cannot continue where it ended: list again."""


class KubernetesApi:
    """A connection to a Kubernetes API server. Create it with `connect`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> KubernetesApi:
        """Connect with the service account of this pod, or else with `KUBECONFIG`.

        Raises:
            ApiError: there is neither.
        """
        from kubernetes.aio import client, config  # imports hundreds of models

        configuration = client.Configuration()
        configuration.connection_pool_maxsize = 32
        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
                config.load_incluster_config(client_configuration=configuration)
            else:
                await config.load_kube_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise ApiError(
                f"no Kubernetes cluster is configured: {error}. Set KUBECONFIG, or run the executor in a pod with a "
                "service account",
                0,
                "NoCluster",
            ) from error
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def create_workflow(self, manifest: Json) -> Json:
        """Create a Workflow.

        Raises:
            ApiError: `AlreadyExists`, `Forbidden`, `Invalid` or another refusal.
            UnavailableError: the server does not answer, or is overloaded.
        """
        return await self._call("POST", _workflows(manifest["metadata"]["namespace"]), body=manifest)

    async def workflow_uid(self, namespace: str, name: str) -> str:
        """Return the uid of a Workflow.

        Raises:
            ApiError: `NotFound` or another refusal.
            UnavailableError: the server does not answer.
        """
        return str((await self._call("GET", f"{_workflows(namespace)}/{quote(name)}"))["metadata"]["uid"])

    async def create_secret(self, namespace: str, name: str, data: dict[str, str], owner: str) -> None:
        """Create the secret of a Workflow of the same name, which Kubernetes deletes with it. Idempotent.

        Raises:
            ApiError: `Forbidden` or another refusal.
            UnavailableError: the server does not answer.
        """
        body = {
            "metadata": {
                "name": name,
                "ownerReferences": [
                    {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": name, "uid": owner}
                ],
            },
            "stringData": data,
            "immutable": True,
        }
        try:
            await self._call("POST", f"/api/v1/namespaces/{quote(namespace)}/secrets", body=body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise

    async def delete_workflow(self, namespace: str, name: str) -> bool:
        """Delete a Workflow and its pods; returns whether it was there."""
        body = {"propagationPolicy": "Background"}
        return await self._delete(f"{_workflows(namespace)}/{quote(name)}", body)

    async def list(self, path: str, selector: str) -> tuple[list[Json], str]:
        """List objects, in pages. Returns them and the version at which a watch continues."""
        found: list[Json] = []
        query = {"labelSelector": selector, "limit": str(PAGE)}
        while True:
            page = await self._call("GET", path, query=query, timeout=3 * TIMEOUT)
            found += page.get("items") or []
            more = page["metadata"].get("continue")
            if not more:
                return found, page["metadata"]["resourceVersion"]
            query["continue"] = more

    async def watch(self, path: str, selector: str, version: str) -> AsyncGenerator[tuple[str, Json]]:
        """Watch objects from a version on: yields the type of each event, and the object.

        Returns when the server ends the watch.

        Raises:
            GoneError: the version is too old.
            UnavailableError: the connection broke, or was silent for too long.
        """
        query = {
            "labelSelector": selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH),
        }
        limits = aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=QUIET)
        try:
            response = await self._client.call_api(
                path, "GET", query_params=list(query.items()), auth_settings=["BearerToken"],
                _preload_content=False, _request_timeout=limits,
            )  # fmt: skip
            async with response:
                if response.status != 200:
                    _raise(response.status, await response.read())
                async for line in response.content:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        _raise(int(event["object"].get("code", 500)), orjson.dumps(event["object"]))
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnavailableError(f"the watch of {path} broke: {error or type(error).__name__}") from error

    async def get(self, path: str, query: dict[str, str] | None = None) -> Json:
        """Read what is at a path.

        Raises:
            ApiError: it is not there, or may not be read.
            UnavailableError: the server does not answer.
        """
        return await self._call("GET", path, query=query)

    async def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Whether this client may do something with a kind of objects in a namespace."""
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self._call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=review)
        return bool(answer["status"]["allowed"])

    async def _delete(self, path: str, body: Json) -> bool:
        try:
            await self._call("DELETE", path, body=body)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _call(
        self, method: str, path: str, *, query: Json | None = None, body: Json | None = None, timeout: float = TIMEOUT
    ) -> Json:
        try:
            async with asyncio.timeout(timeout):
                response = await self._client.call_api(
                    path, method, query_params=list((query or {}).items()), body=body, auth_settings=["BearerToken"],
                    _preload_content=False, _request_timeout=(_CONNECT, timeout),
                )  # fmt: skip
                async with response:
                    data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"the Kubernetes API does not answer: {error or type(error).__name__}") from error
        if not 200 <= response.status < 300:
            _raise(response.status, data)
        return orjson.loads(data)


def workflows(namespace: str) -> str:
    """Return the path of the Workflows of a namespace."""
    return _workflows(namespace)


def pods(namespace: str) -> str:
    """Return the path of the pods of a namespace."""
    return f"/api/v1/namespaces/{quote(namespace)}/pods"


def secret(namespace: str, name: str) -> str:
    """Return the path of a Secret."""
    return f"/api/v1/namespaces/{quote(namespace)}/secrets/{quote(name)}"


def _workflows(namespace: str) -> str:
    return f"/apis/argoproj.io/v1alpha1/namespaces/{quote(namespace)}/workflows"


def _raise(status: int, data: bytes) -> None:
    """Raise the error of an answer."""
    try:
        answer = orjson.loads(data)
        message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
    except (ValueError, AttributeError):
        message, reason = data[:300].decode(errors="replace"), ""
    if status == 410:
        raise GoneError(message)
    if status >= 500 or status == 429:
        raise UnavailableError(f"the Kubernetes API answers {status}: {message[:500]}")
    raise ApiError(message[:1000] or f"the Kubernetes API answers {status}", status, reason)
