"""The process executor: every attempt a forked child of a warm fork server. See `penstock_core.ports.Executor`."""

from penstock_adapters.process.executor import ProcessExecutor
from penstock_adapters.process.orphans import sweep

__all__ = ["ProcessExecutor", "sweep"]
