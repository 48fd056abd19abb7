"""`python -m penstock_executor`: one executor replica."""

from __future__ import annotations

import sys

from penstock_executor.app import build
from penstock_executor.settings import ExecutorSettings
from penstock_servicekit.app import run_service

if __name__ == "__main__":
    sys.exit(run_service("executor", ExecutorSettings, build))
