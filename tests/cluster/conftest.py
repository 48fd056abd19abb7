"""Fixtures of the cluster tests. `make e2e-cluster` runs them; `tests/cluster/run TOOL` makes a cluster for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock_testkit.servers import kubernetes
from penstock_testkit.servers.kubernetes import Platform


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in kubernetes.NEEDED if not os.environ.get(name)]
    reason = (
        f"no Kubernetes cluster for these tests: {', '.join(missing)} not set, see penstock_testkit.servers.kubernetes"
    )
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if missing:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the tests of a module."""
    with kubernetes.platform_in(tmp_path_factory.mktemp("argo")) as platform:
        yield platform


@pytest.fixture(scope="session")
def cluster_tool() -> Callable[..., None]:
    """Restart a part of the cluster with SIGKILL, such as `kubelet`; skipped without a tool that can."""
    tool = os.environ.get("PENSTOCK_CLUSTER_TOOL")
    if not tool:
        pytest.skip("PENSTOCK_CLUSTER_TOOL is not set: parts of this cluster cannot be restarted")

    def run(*words: str) -> None:
        subprocess.run([tool, *words], check=True, timeout=120, capture_output=True)

    return run
