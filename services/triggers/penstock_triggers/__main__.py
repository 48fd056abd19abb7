"""`python -m penstock_triggers`: one replica of the triggers service."""

from __future__ import annotations

import sys

from penstock_servicekit import event_loop
from penstock_servicekit.app import serve
from penstock_triggers.app import build
from penstock_triggers.settings import TriggersSettings

if __name__ == "__main__":
    settings = TriggersSettings()
    sys.exit(event_loop.run(serve("triggers", settings, lambda context: build(context, settings))))
