"""Secrets on Kubernetes: those of an operator in Secrets, and steps in pods, which get and mask them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any

import kubernetes.client
import pytest
import pytest_asyncio

from penstock_adapters.argo.secret_source import KubernetesSecrets
from penstock_adapters.nats.bus import Bus
from penstock_core.secrets.records import SecretSource
from penstock_servicekit.nats_connection import connect, servers
from penstock_testkit.servers import kubernetes as testkit
from penstock_testkit.servers.kubernetes import Kubernetes, Platform
from penstock_testkit.suites.secret_source import SecretSourceSuite

VALUE = "correct-horse-battery"
OPERATED = "the-value-of-the-operator"

FLOWS = """
import os
from pathlib import Path
from penstock import context, pipeline, step

@step(secrets={"DB_PASSWORD": "secret:db", "FILE": "secret:operated#file"})
def use(fail: bool) -> int:
    value = os.environ["DB_PASSWORD"]
    operated = Path(os.environ["FILE"]).read_text()
    assert context().secret("operated") == operated
    print("password", value, operated, repr(os.environ))
    context().log_param("password", value)
    if fail:
        raise ValueError(f"cannot connect with {value}")
    return len(value) + len(operated)

@step
def snoop(before: int) -> bool:
    return "DB_PASSWORD" in os.environ

@pipeline
def using(fail: bool = False) -> bool:
    return snoop(use(fail))
"""


@pytest.fixture(scope="module")
def kube() -> Iterator[Kubernetes]:
    """A namespace with nothing in it."""
    found = testkit.connect()
    found.create()
    yield found
    found.remove()


def keep(kube: Kubernetes, project: str, name: str, value: str) -> None:
    """Put a value into the Secret of a project."""
    body = {"metadata": {"name": f"penstock-secrets-{project}"}}
    try:
        kube.core.create_namespaced_secret(kube.namespace, body)
    except kubernetes.client.ApiException as error:
        assert error.status == 409
    data = {name: base64.b64encode(value.encode()).decode()}
    kube.core.patch_namespaced_secret(body["metadata"]["name"], kube.namespace, {"data": data})


class TestKubernetesSecrets(SecretSourceSuite):
    kube: Kubernetes

    @pytest_asyncio.fixture
    async def source(self, kube: Kubernetes) -> AsyncIterator[SecretSource]:
        self.kube = kube
        source = KubernetesSecrets(kube.namespace)
        yield source
        await source.close()
        await asyncio.sleep(0.3)  # aiohttp closes connections with TLS a moment later

    async def fill(self, source: SecretSource, name: str, value: str) -> None:
        await asyncio.to_thread(keep, self.kube, self.project, name, value)


async def _streams(url: str) -> bytes:
    broker, bus = await connect(servers(url), "test", asyncio.get_running_loop().create_future())
    try:
        names = (await bus.api("STREAM.NAMES"))["streams"]
        return b"".join([await _stream(bus, name) for name in names])
    finally:
        await broker.stop()


async def _stream(bus: Bus, name: str) -> bytes:
    return b"\n".join(str(one.headers).encode() + one.data for one in await bus.read(name, ">"))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose pods stay for further attempts, and whose operator keeps secrets in Kubernetes."""
    folder = tmp_path_factory.mktemp("secrets")
    operators = testkit.connect()
    settings = {
        "PENSTOCK_SECRETS_KEY_FILE": str(folder / "keys" / "secrets.keys"),
        "PENSTOCK_SECRETS_KUBERNETES": operators.namespace,
    }
    operators.create()
    keep(operators, "default", "operated", OPERATED)
    try:
        with testkit.platform_in(folder, services=settings, worker_idle=60) as platform:
            yield platform
    finally:
        operators.remove()


@pytest.mark.parametrize("fail", [False, True])
def test_a_pod_gets_secrets_and_nothing_that_leaves_it_has_their_values(platform: Platform, fail: bool) -> None:
    platform.client.secrets.set("db", VALUE)
    platform.register("flows", FLOWS, "using")
    run_id = platform.start("using", fail=fail)
    run = platform.finish(run_id)
    assert run.state == ("failed" if fail else "succeeded"), run
    output = platform.output(run_id)
    assert "password *** *** " in output
    if not fail:
        assert platform.client.artifacts.load(run_id) is False
    kube = platform.kube
    shown: list[Any] = [kube.custom.list_namespaced_custom_object(*kube.workflows), run, output]
    for pod in kube.pods_of(run_id):
        shown += [pod, kube.core.read_namespaced_pod_log(pod.metadata.name, kube.namespace, container="main")]
    shown.append(asyncio.run(_streams(platform.services.nats.url)))
    texts = [str(one) for one in shown]
    assert all(VALUE not in text and OPERATED not in text for text in texts)
    used = platform.client.secrets.get("db")
    assert used.last_used_at is not None and "step use" in used.last_used_by
    assert platform.client.secrets.get("operated").source == "kubernetes"
