"""A pytest plugin that distributes the tests of `pytest -n auto` over worker processes.

The tests of one file, or of one class in it, run in one worker, in order, so that a file starts its servers once. Files
with slow tests that share no server are distributed test by test. The slowest tests start first, so that none runs
alone at the end.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.scheduler.protocol import Scheduling
    from xdist.workermanage import Producer

SPREAD = (
    "tests/e2e/test_docs.py",
    "tests/faults/test_idle_platform.py",
    "tests/faults/test_retention_faults.py",
    "tests/faults/test_standalone_faults.py",
)
"""Files whose tests share no server."""

ORDER = ("tests/e2e/test_docs.py", "tests/faults/", "tests/e2e/", "tests/histories/", "tests/integration/")
"""Tests that start first; all others follow in collection order."""

LEAST_WORKERS = 4
WORKERS_PER_CORE = 2.5
"""Most tests wait for other processes."""


class ByFile(LoadScopeScheduling):
    """Distributes files and classes, and single tests of the files in `SPREAD`, in collection order."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(SPREAD) else super()._split_scope(nodeid.partition("[")[0])


def rank(nodeid: str) -> int:
    """Return the position of a test in the start order."""
    return next((n for n, start in enumerate(ORDER) if nodeid.startswith(start)), len(ORDER))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort slow tests first."""
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exclude the modules loaded so far from later garbage collections, as services do."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for `-n auto`, and for `-n logical`, which is for tests that compute."""
    cores = len(os.sched_getaffinity(0))
    if config.option.numprocesses == "logical":
        return cores + 1
    return max(LEAST_WORKERS, round(cores * WORKERS_PER_CORE))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Distribute by file unless `--dist` selects another mode."""
    return ByFile(config, log) if config.getvalue("dist") == "load" else None
