"""`python -m penstock_gateway`: one gateway replica."""

from __future__ import annotations

import sys

from penstock_gateway.app import build
from penstock_gateway.settings import GatewaySettings
from penstock_servicekit import event_loop
from penstock_servicekit.app import serve

if __name__ == "__main__":
    settings = GatewaySettings()
    sys.exit(event_loop.run(serve("gateway", settings, lambda context: build(context, settings))))
