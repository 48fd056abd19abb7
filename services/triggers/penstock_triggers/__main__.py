"""`python -m penstock_triggers`: one replica of the triggers service."""

from __future__ import annotations

import sys

from penstock_servicekit.app import run_service
from penstock_triggers.app import build
from penstock_triggers.settings import TriggersSettings

if __name__ == "__main__":
    sys.exit(run_service("triggers", TriggersSettings, build))
