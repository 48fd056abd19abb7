"""`python -m penstock_scheduler`: one scheduler replica."""

from __future__ import annotations

import sys

from penstock_scheduler.app import build
from penstock_scheduler.settings import SchedulerSettings
from penstock_servicekit import event_loop
from penstock_servicekit.app import serve

if __name__ == "__main__":
    settings = SchedulerSettings()
    sys.exit(event_loop.run(serve("scheduler", settings, lambda context: build(context, settings))))
