"""`python -m penstock_cron`: one replica of the cron service."""

from __future__ import annotations

import sys

from penstock_cron.app import build
from penstock_cron.settings import CronSettings
from penstock_servicekit import event_loop
from penstock_servicekit.app import serve

if __name__ == "__main__":
    settings = CronSettings()
    sys.exit(event_loop.run(serve("cron", settings, lambda context: build(context, settings))))
