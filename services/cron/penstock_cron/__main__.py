"""`python -m penstock_cron`: one replica of the cron service."""

from __future__ import annotations

import sys

from penstock_cron.app import build
from penstock_cron.settings import CronSettings
from penstock_servicekit.app import run_service

if __name__ == "__main__":
    sys.exit(run_service("cron", CronSettings, build))
