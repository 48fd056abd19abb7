"""Configuration and fixtures of all tests."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from penstock_testkit.environment import platforms_below

# An embedded platform stops with its last command, so that no test leaves one behind.
os.environ["PENSTOCK_IDLE"] = "0"

pytest_plugins = ["penstock_testkit.fixtures", "penstock_testkit.executor_harness", "penstock_testkit.workers"]
pytest.register_assert_rewrite("penstock_testkit.suites.artifact_store")

# Machines may be shared and slow: no deadline for one example. CI must not fail by chance: it uses the same examples
# each time, and more of them. `--hypothesis-profile` selects another profile. The explain phase is disabled: it takes
# minutes, and the test would time out instead of reporting the failure.
settings.register_profile(
    "dev",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
settings.register_profile(
    "ci", settings.get_profile("dev"), derandomize=True, max_examples=120, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(scope="session", autouse=True)
def no_platform_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail if a test left an embedded platform behind."""
    yield
    deadline = time.monotonic() + 30
    while left := platforms_below(tmp_path_factory.getbasetemp()):
        assert time.monotonic() < deadline, f"platforms are left: {left}"
        time.sleep(0.1)
