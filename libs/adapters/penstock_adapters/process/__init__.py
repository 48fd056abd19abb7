"""The process executor: each attempt is a forked child of a warm fork server. See `penstock_core.ports.Executor`."""

from penstock_adapters.process.attempt_environment import AttemptEnvironment, WarmOrder
from penstock_adapters.process.executor import ProcessExecutor, ProcessOptions
from penstock_adapters.process.orphans import sweep

__all__ = ["AttemptEnvironment", "ProcessExecutor", "ProcessOptions", "WarmOrder", "sweep"]
