"""`python -m penstock_scheduler`: one scheduler replica."""

from __future__ import annotations

import sys

from penstock_scheduler.app import build
from penstock_scheduler.settings import SchedulerSettings
from penstock_servicekit.app import run_service

if __name__ == "__main__":
    sys.exit(run_service("scheduler", SchedulerSettings, build))
