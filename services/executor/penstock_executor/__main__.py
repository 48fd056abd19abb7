"""`python -m penstock_executor`: one executor replica."""

from __future__ import annotations

import sys

from penstock_executor.app import build
from penstock_executor.settings import ExecutorSettings
from penstock_servicekit import event_loop
from penstock_servicekit.app import serve

if __name__ == "__main__":
    settings = ExecutorSettings()
    sys.exit(event_loop.run(serve("executor", settings, lambda context: build(context, settings))))
